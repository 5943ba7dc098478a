"""Which tensor of a weights file is which parameter of a net.

Four ways, the first that covers the whole net wins: the net's own names; a name map; either of them
on a part of the file, all that one prefix begins; shapes, where they leave one possibility alone.
The order in a safetensors file says nothing (its tensors are sorted by name or size), so it is no
evidence; a wrong guess would give wrong answers in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from netdsl.faults import NetError, error
from netdsl.formats.namemap import NameMap
from netdsl.formats.safetensors import describe
from netdsl.graph import Graph
from netdsl.ops import Shape, show

Shapes = Mapping[str, Shape]

LISTED = 4
"""Names that a message lists before it says how many more there are."""

DEEPEST = 5
"""Words of a name, the last of which a prefix does not have."""

MOST_PREFIXES = 50

ROLES = {
    "weight": ("weight", "w", "kernel", "gamma", "scale"),
    "bias": ("bias", "b", "beta", "offset", "shift"),
    "mean": ("mean", "running_mean", "moving_mean"),
    "var": ("var", "running_var", "moving_variance", "variance"),
}
"""How files call the tensors of one layer, for those that shapes do not tell apart."""


class Match(NamedTuple):
    """The file's name for each of the net's parameters, and how it was found.

    `by` is "own names", a map's source such as "torchvision", either after a prefix
    ("own names after backbone."), or "shapes".
    """

    names: Mapping[str, str]
    by: str


def match(
    graph: Graph, file: Shapes, maps: Iterable[NameMap] = (), name: str = "the file"
) -> Match:
    """Pairs a net's parameters with a file's tensors, by names or by shapes.

    Auxiliary heads may be missing from the file, one as a whole; all else must be there, and
    nothing may be left over, but outside of a prefix under which the whole net is found by name.
    `name` is what errors call the file. Raises NetError `weights-mismatch` with the first tensor
    that does not fit and what is left over.
    """
    net: dict[str, Shape] = {n: p.shape for n, p in graph.all_parameters().items()}
    maps = tuple(maps)
    namings = _namings(net, file, maps)
    found = _by_names(graph, net, file, namings, maps, name)
    found = found or _under_a_prefix(graph, net, file, maps, name)
    if found is not None:
        return found
    required = {n: s for n, s in net.items() if n.rpartition(".")[0] in graph.main}
    for wanted in (net, required):
        by_shape = _by_layers(wanted, file) or _by_shapes(wanted, file)
        if by_shape is not None:
            return Match(by_shape, "shapes")
    best = max((naming for _, naming in namings), key=len)
    raise _mismatch(graph, required, file, {o: t for t, o in best.items()}, name)


Namings = list[tuple[str, dict[str, str]]]
"""For each way to read the file's names, our name of each tensor."""


def _namings(net: Shapes, file: Shapes, maps: tuple[NameMap, ...]) -> Namings:
    namings = [("own names", {n: n for n in file if n in net})]
    for one in maps:
        renamed = [(theirs, one.ours(theirs)) for theirs in file if not one.skips(theirs)]
        namings.append((one.source, {t: o for t, o in renamed if o is not None and o in net}))
    return namings


def _by_names(
    graph: Graph,
    net: Shapes,
    file: Shapes,
    namings: Namings,
    maps: tuple[NameMap, ...],
    name: str,
) -> Match | None:
    """By the first naming that covers the net and the file. Raises NetError for other shapes."""
    for by, naming in namings:
        skipped = _skipped(by, file, maps)
        paired = {ours: theirs for theirs, ours in naming.items()}
        if len(paired) + len(skipped) == len(file) and not _missing(graph, net, paired):
            _check_shapes(graph, net, file, paired, name)
            return Match(paired, by)
    return None


def _under_a_prefix(
    graph: Graph, net: Shapes, file: Shapes, maps: tuple[NameMap, ...], name: str
) -> Match | None:
    """By names after a prefix. Raises NetError where two prefixes hold the net."""
    found: dict[str, Match] = {}
    for prefix in _prefixes(net, file):
        part = {t.removeprefix(prefix): s for t, s in file.items() if t.startswith(prefix)}
        within = _by_names(graph, net, part, _namings(net, part, maps), maps, name)
        if within is not None:
            names = {ours: prefix + theirs for ours, theirs in within.names.items()}
            found[prefix] = Match(names, f"{within.by} after {prefix}")
    if len(found) > 1:
        raise error(
            "weights-mismatch",
            f"{name} holds weights of {graph.name} more than once: under {' and '.join(found)}",
            help="leave one of them in the file",
        )
    return next(iter(found.values()), None)


def _prefixes(net: Shapes, file: Shapes) -> list[str]:
    """What begins enough of the file's names to be a net of its own, as `backbone.`."""
    counts: Counter[str] = Counter()
    for name in file:
        words = name.split(".")
        counts.update(".".join(words[:n]) + "." for n in range(1, min(len(words), DEEPEST)))
    return [p for p, n in counts.most_common(MOST_PREFIXES) if 2 * n > len(net)]


def _skipped(by: str, file: Shapes, maps: Iterable[NameMap]) -> list[str]:
    return [t for t in file for one in maps if one.source == by and one.skips(t)]


def _missing(graph: Graph, net: Shapes, paired: Mapping[str, str]) -> list[str]:
    """The parameters that have no tensor, but for auxiliary heads that are missing as a whole."""
    absent = [n for n in net if n not in paired]
    for aux in graph.aux:
        head = {node.name for node in graph.head_nodes(aux)}
        mine = [n for n in net if n.rpartition(".")[0] in head]
        if not any(n in paired for n in mine):
            absent = [n for n in absent if n not in mine]
    return absent


def _check_shapes(
    graph: Graph, net: Shapes, file: Shapes, paired: Mapping[str, str], name: str
) -> None:
    for ours in net:
        if ours in paired and net[ours] != file[paired[ours]]:
            raise _mismatch(graph, net, file, paired, name)


def _by_shapes(net: Shapes, file: Shapes) -> dict[str, str] | None:
    """Tensor by tensor, where every shape occurs once on either side."""
    theirs = {shape: name for name, shape in file.items()}
    if len(theirs) != len(file) or len(set(net.values())) != len(net) or len(net) != len(file):
        return None
    if any(shape not in theirs for shape in net.values()):
        return None
    return {ours: theirs[shape] for ours, shape in net.items()}


def _by_layers(net: Shapes, file: Shapes) -> dict[str, str] | None:
    """Layer by layer, where the shapes of a layer's tensors occur once on either side."""
    ours, theirs = _layers(net), _layers(file)
    signature = {tuple(sorted(file[n] for n in layer)): layer for layer in theirs}
    if len(signature) != len(theirs) or len(ours) != len(theirs):
        return None
    paired: dict[str, str] = {}
    for layer in ours:
        partner = signature.pop(tuple(sorted(net[n] for n in layer)), None)
        inside = partner and _within(layer, partner, net, file)
        if not inside:
            return None
        paired |= inside
    return paired


def _layers(shapes: Shapes) -> list[list[str]]:
    """Names grouped by what stands before their last word: `conv1.weight` and `conv1.bias`."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(_words(name)[0], []).append(name)
    return list(groups.values())


def _words(name: str) -> tuple[str, str]:
    """The layer and the tensor's own name: ("layer1.0.bn1", "running_mean"), ("conv1", "w")."""
    *before, last = re.split(r"[./:]", name)
    if not last.startswith(("running_", "moving_")) and "_" in last:
        stem, _, last = last.rpartition("_")
        before.append(stem)
    return ".".join(before), last


def _within(
    layer: list[str], partner: list[str], net: Shapes, file: Shapes
) -> dict[str, str] | None:
    """The pairs within one layer: by shape, and by the usual names where shapes are equal."""
    paired: dict[str, str] = {}
    for ours in layer:
        alike = [t for t in partner if file[t] == net[ours]]
        if len(alike) > 1:
            role = ours.rpartition(".")[2]
            alike = [t for t in alike if _words(t)[1].lower() in ROLES.get(role, ())]
        if len(alike) != 1:
            return None
        paired[ours] = alike[0]
    return paired if len(set(paired.values())) == len(partner) else None


def _mismatch(
    graph: Graph, net: Shapes, file: Shapes, paired: Mapping[str, str], name: str
) -> NetError:
    """The first tensor that does not fit, both shapes, and what is left over on either side."""
    fitting = {o: t for o, t in paired.items() if o in net and net[o] == file[t]}
    used = set(fitting.values())
    left_net = [n for n in net if n not in fitting]
    left_file = [t for t in file if t not in used]
    if not left_net:
        first = f"it has {_count(len(left_file), 'tensor')} that the net lacks"
    elif left_net[0] in paired:
        ours, theirs = left_net[0], paired[left_net[0]]
        called = "there" if theirs == ours else f"{theirs} in the file"
        first = f"{ours} is {show(net[ours])} in the net and {show(file[theirs])} {called}"
    else:
        first = _first_by_shape(net, left_net, {t: file[t] for t in left_file})
    return error(
        "weights-mismatch",
        f"{name} does not hold weights of {graph.name}: {first}",
        help=f"left over: {_list('in the net', left_net, net)}; "
        f"{_list('in the file', left_file, file)}",
    )


def _first_by_shape(net: Shapes, left: list[str], file: Shapes) -> str:
    """What to say of tensors whose names do not help."""
    supply = Counter(file.values())
    for ours in left:
        if supply[net[ours]] > 0:
            supply[net[ours]] -= 1
            continue
        near = max(file, key=lambda t: _likeness(net[ours], file[t]), default=None)
        beside = f"; the nearest is {describe(near, file[near])}" if near else ""
        return f"no tensor is left there for {describe(ours, net[ours])}{beside}"
    if len(file) > len(left):
        return "shapes fit, but the file has more tensors than the net"
    ours = next((n for n in left if Counter(file.values())[net[n]] > 1), left[0])
    alike = [t for t, shape in file.items() if shape == net[ours]]
    return (
        f"its names are not known, and by shape {describe(ours, net[ours])} could be "
        f"{' or '.join(alike[:LISTED])}: a name map beside the net would tell"
    )


def _likeness(one: Shape, other: Shape) -> tuple[bool, int]:
    return len(one) == len(other), sum(a == b for a, b in zip(one, other, strict=False))


def _list(where: str, names: list[str], shapes: Shapes) -> str:
    if not names:
        return f"{where} none"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{where} {', '.join(describe(n, shapes[n]) for n in names[:LISTED])}{more}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
