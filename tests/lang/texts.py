"""Texts to read: made from the language's own pieces, so that many of them mean something."""

from __future__ import annotations

from hypothesis import strategies as st

NUMBERS = st.integers(0, 9).map(str)
NAMES = st.sampled_from(["a", "b", "w", "x1", "conv1", "relu", "stem", "block", "id", "k"])
HEADS = st.sampled_from(
    ["conv3p1", "conv1", "dwconv3p1", "maxpool2", "relu", "bn", "fc", "gap", "flatten", "up2"]
)
WORDS = st.one_of(
    HEADS,
    NAMES,
    st.sampled_from(["double", "halve", "id", "conv{k}", "conv{w//2}p{k}", "maxpol2", "block"]),
)
VALUES = st.recursive(
    st.one_of(NUMBERS, NAMES, st.sampled_from(["yes", "no", "1e-5", "2x2", '"s"', "0.5"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", " * ", "/", "//"]), inner).map("".join),
        inner.map(lambda v: f"({v})"),
        inner.map(lambda v: f"[{v}, {v}]"),
        inner.map(lambda v: f"-{v}"),
    ),
    max_leaves=3,
)
NAMED = st.tuples(st.sampled_from(["bias", "w", "k", "eps"]), VALUES).map("=".join)
ARGUMENTS = st.tuples(st.lists(VALUES, max_size=2), st.lists(NAMED, max_size=2)).map(
    lambda found: f"({', '.join(found[0] + found[1])})" if any(found) else ""
)
SPACES = st.sampled_from([" ", "", "  ", "\n", " # note\n", "\n  # alone\n"])
CALLS = st.tuples(st.sampled_from(["", "", "", "bare "]), WORDS, ARGUMENTS).map("".join)
ARROWS = st.tuples(SPACES, SPACES).map(lambda pair: f"{pair[0]}->{pair[1]}")


@st.composite
def joined(draw: st.DrawFn, parts: st.SearchStrategy[str], signs: st.SearchStrategy[str]) -> str:
    """Parts with signs between them."""
    first, *rest = draw(st.lists(parts, min_size=1, max_size=3))
    return first + "".join(draw(signs) + part for part in rest)


@st.composite
def brackets(draw: st.DrawFn, parts: st.SearchStrategy[str]) -> str:
    """A bracket with two branches or more."""
    sign = draw(st.sampled_from(["|", "+", "*"]))
    branches = draw(st.lists(parts, min_size=2, max_size=3))
    gap = draw(SPACES)
    return f"[{gap}" + f"{gap}{sign} ".join(branches) + f"{draw(SPACES)}]"


def steps(chains: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    unit = st.one_of(
        chains.map(lambda c: f"({c})"),
        brackets(chains),
        chains.map(lambda c: f"aux(weight=0.3) {{ {c} }}"),
    )
    repeat = st.sampled_from(["", "", " x2", " x{k}", " x0"])
    label = st.one_of(st.just(""), st.just(""), NAMES.map(" as {}".format))
    return joined(st.tuples(unit, repeat, label).map("".join), ARROWS)


CHAINS = st.recursive(
    joined(st.tuples(CALLS, st.sampled_from(["", "", " x2"])).map("".join), ARROWS),
    steps,
    max_leaves=4,
)
STATEMENTS = st.one_of(
    CHAINS,
    CHAINS,
    st.tuples(st.sampled_from(["def block = ", "def block(w, k=3) = ", "def a = "]), CHAINS).map(
        "".join
    ),
    st.tuples(st.sampled_from(["every conv -> ", "every conv(bias=no) -> "]), CHAINS).map("".join),
    st.sampled_from(
        [
            "net n",
            "input 4x8x8",
            "input 4x8x8 (resize = 9,order=bgr)",
            "input 8 as a",
            "input 2x9 as b",
            "output a, b",
            "labels mnist",
            'meta year=2014 paper="a b"',
            "every bn(eps = 1e-3)",
            "# a comment",
            "",
        ]
    ),
)
ENDS = st.sampled_from(["\n", "\n", "\n\n", "; ", " # why\n"])
NETS = st.lists(st.tuples(STATEMENTS, ENDS).map("".join), max_size=7).map("".join)


class Sound:
    """Draws nets without a fault: every step keeps 8x8 positions, names are given once."""

    STEPS = ("relu", "bn", "conv3p1", "conv1x1(4)", "dwconv3x3p1(bias=no)", "maxpool3s1p1", "id")

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.names: list[str] = []
        self.blocks = draw(st.integers(0, 2))
        self.inside = True
        """Whether a block or a repeat is drawn, where no label may stand."""

    def pick(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def arrow(self) -> str:
        return self.draw(ARROWS) if self.draw(st.integers(0, 3)) == 0 else " -> "

    def chain(self, depth: int, calls: int) -> str:
        count = self.draw(st.integers(1, 3))
        return "".join((self.arrow() if i else "") + self.step(depth, calls) for i in range(count))

    def step(self, depth: int, calls: int) -> str:
        kind = self.draw(st.integers(0, 9 if depth else 4))
        if kind == 5 and calls:
            text = (
                f"block{self.draw(st.integers(0, calls - 1))}({self.pick('4', 'k=2 + 1', '6//2')})"
            )
        elif kind == 6:
            text = f"[id{self.draw(SPACES)}| {self.chain(depth - 1, calls)}] -> conv1(4)"
        elif kind == 7:
            text = f"[{self.draw(SPACES)}relu + id{self.draw(SPACES)}]"
        elif kind == 8:
            outside, self.inside = self.inside, True
            text = f"({self.chain(depth - 1, calls)}) x{self.pick('0', '2', '{3 - 1}')}"
            self.inside = outside
        elif kind == 9:
            text = (
                f"aux(weight={self.pick('0.3', '1')}) {{ {self.chain(depth - 1, calls)} -> fc(2) }}"
            )
        elif self.names and not self.inside and kind == 0:
            text = f"[{self.pick(*self.names)} | id]"
        else:
            return self.pick(*self.STEPS)
        return text

    def line(self) -> str:
        self.inside = False
        text = self.chain(2, self.blocks)
        if self.draw(st.booleans()):
            name = f"t{len(self.names)}"
            text += f" -> relu as {name}"
            self.names.append(name)
        return text

    def net(self) -> str:
        lines = [f"def block{i}(k) = conv1(k) -> {self.chain(1, i)}" for i in range(self.blocks)]
        lines += ["input 4x8x8", self.pick("", "every conv -> relu", "every conv(bias=no) -> bn")]
        lines += [self.line() for _ in range(self.draw(st.integers(1, 4)))]
        if self.names and self.draw(st.booleans()):
            lines.append(f"output {self.pick(*self.names)}")
        return "".join(line + self.draw(ENDS) for line in lines)


@st.composite
def sound(draw: st.DrawFn) -> str:
    """A net without a fault."""
    return Sound(draw).net()


CHARACTERS = st.text(
    st.one_of(st.sampled_from('()[]{}|+*->=,;#"\\x0123456789 \n\tas'), st.characters()),
    max_size=60,
)
"""Anything at all, mostly of the language's own signs."""


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A net with a few characters cut out or put in."""
    text = draw(NETS)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(CHARACTERS)[:4] + text[at + draw(st.integers(0, 4)) :]
    return text
