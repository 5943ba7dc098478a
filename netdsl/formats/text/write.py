"""A graph back to readable .net text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netdsl.formats.text import every, fold
from netdsl.formats.text.parts import Chain, Ref, Step, heads, rebuilt
from netdsl.formats.text.spell import definition_lines, laid_out, word_text
from netdsl.formats.text.structure import Structure
from netdsl.graph import Graph
from netdsl.ops import Input, Picture, show
from netdsl.ops.base import Value


def write_net(graph: Graph) -> str:
    """The .net text of a graph: reading it gives the same graph up to the names of nodes.

    What follows every op of a head is said once, neighbours that are equal become a repeat, and
    parts of one form a block. See `netdsl.graph.same` for which node is which. Raises NetError
    for a graph without layers, or nested too deep.
    """
    structure = Structure(graph)
    lines = _numbered(structure.lines())
    several = len(graph.outputs) > 1 or _end(lines[-1]) != graph.outputs[0]
    names = _labels(graph, structure, graph.outputs if several else ())
    labelled = [rebuilt(line, lambda chain: _labelled(chain, names)) for line in lines]
    everys, chains = every.find(labelled)
    chains = [rebuilt(chain, fold.repeats) for chain in chains]
    blocks, chains = fold.blocks(chains, set(names.values()))
    text = [f"net {_quoted(graph.name)}", *_inputs(graph, names), *_facts(graph)]
    text += [_every(e) for e in everys]
    text += [""] if blocks else []
    for block in reversed(blocks):
        head = f"def {block.name}" + (
            f"({', '.join(block.parameters)})" if block.parameters else ""
        )
        text += definition_lines(head, block.chain, names)
    text.append("")
    for chain in chains:
        text += laid_out(chain, names)
    if several:
        text.append(f"output {', '.join(names[output] for output in graph.outputs)}")
    return "\n".join(text) + "\n"


def _end(chain: Chain) -> str:
    return chain[-1].node


def _numbered(lines: list[Chain]) -> list[Chain]:
    """Auxiliary heads without their names where they are aux1, aux2, … in the text's order."""
    order = [name for line in lines for name in heads(line)]
    if order != [f"aux{i}" for i in range(1, len(order) + 1)]:
        return lines
    return [rebuilt(line, lambda chain: tuple(map(_nameless, chain))) for line in lines]


def _nameless(step: Step) -> Step:
    return replace(step, sides=tuple(side._replace(name="") for side in step.sides))


def _labels(graph: Graph, structure: Structure, outputs: Sequence[str]) -> dict[str, str]:
    """What the nodes that are referred to are called."""
    found: dict[str, str] = {}
    single = len(graph.inputs) == 1
    for i, name in enumerate(graph.inputs, 1):
        if not single or name in structure.named:
            found[name] = "image" if name == "input" else name if name.isidentifier() else f"in_{i}"
    for i, name in enumerate((n for n in structure.named if n not in found), 1):
        found[name] = f"skip{i}"
    for i, name in enumerate((n for n in outputs if n not in found), 1):
        found[name] = f"out{i}"
    return found


def _labelled(chain: Chain, names: dict[str, str]) -> Chain:
    def labelled(step: Step) -> Step:
        if isinstance(step.unit, Ref) or step.node not in names:
            return step
        return replace(step, label=names[step.node])

    return tuple(map(labelled, chain))


def _every(found: every.Every) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in found.settings)
    words = "".join(f" -> {word_text(word)}" for word in found.followers)
    return f"every {found.head}" + (f"({settings})" if settings else "") + words


def _inputs(graph: Graph, names: dict[str, str]) -> list[str]:
    lines = []
    for name in graph.inputs:
        op = graph.input_op(name)
        label = names.get(name, "" if name == "input" else name)
        settings = _picture(op)
        line = f"input {show(op.shape)}" + (f" ({settings})" if settings else "")
        lines.append(line + (f" as {label}" if label else ""))
    return lines


def _picture(op: Input) -> str:
    plain, own = Picture(), op.picture
    parts = []
    for name in ("resize", "order", "scale", "mean", "std"):
        value = getattr(own, name)
        if value != getattr(plain, name):
            parts.append(f"{name}={_value(list(value) if isinstance(value, tuple) else value)}")
    return ", ".join(parts)


def _facts(graph: Graph) -> list[str]:
    lines = []
    if graph.labels is not None:
        name = f'"{graph.labels.name}"' if graph.labels.is_file else graph.labels.name
        lines.append(f"labels {name}")
    if graph.meta:
        facts = " ".join(f"{key}={_value(value)}" for key, value in graph.meta.items())
        lines.append(f"meta {facts}")
    return lines


def _value(value: Value | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, tuple):
        return "x".join(map(_value, value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, str):
        return value if value.isidentifier() else _quoted(value, always=True)
    return repr(value)


def _quoted(text: str, *, always: bool = False) -> str:
    plain = text.isascii() and text.replace("_", "").isalnum()
    if plain and not always:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
