"""From a Darknet .cfg to a graph.

Every section makes one output, which routes and shortcuts count by its number; a convolution's
batch norm and activation are settings of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from netdsl.faults import NetError, OpFault, error
from netdsl.formats.darknet.sections import Section, broken, read_sections
from netdsl.formats.darknet.shortcut import fitting
from netdsl.formats.imported import Imported, Trouble, Unsupported, word
from netdsl.graph.build import GraphBuilder
from netdsl.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Elu,
    Flatten,
    GlobalAverage,
    Leaky,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Pad,
    Picture,
    Relu,
    Shape,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    Upsample,
    Window,
    show,
)

EPS = 1e-12
"""Of batch norms: Darknet divides by sqrt(var) + 1e-6. Its variances are changed when they are
read, see `weights`, and this is what then is left to add."""

ACTIVATIONS: dict[str, Activation | None] = {
    "linear": None,
    "leaky": Leaky(0.1),
    "relu": Relu(),
    "logistic": Sigmoid(),
    "tanh": Tanh(),
    "elu": Elu(),
    "swish": Silu(),
}

HALF = (0.5,)


def read_darknet(path: str | Path) -> Imported:
    """The net of a .cfg file.

    Raises NetError: no such file, a line that is wrong, sizes that do not fit; and one error that
    lists every section that the language cannot say.
    """
    path = Path(path)
    return Reading(read_sections(path), path).run()


class Reading:
    """One net on its way to a graph."""

    def __init__(self, sections: list[Section], path: Path) -> None:
        self.file = str(path)
        self.head, *self.sections = sections
        self.builder = GraphBuilder(word(path.stem))
        self.made: list[str | None] = []
        """The node that each section's output is; None for one that cannot be said."""
        self.trouble = Trouble()

    def run(self) -> Imported:
        last: str | None = self._input()
        for i, section in enumerate(self.sections):
            if section.kind == "cost":
                break
            last = self._section(section, i, last)
            self.made.append(last)
        self.trouble.check("darknet-layers", self.file)
        if last is None or last in ("input",):
            raise broken(f"{self.file} has no layers")
        return Imported(self.builder.finish([last]))

    def _input(self) -> str:
        size = tuple(self.head.integer(n, 0) for n in ("channels", "height", "width"))
        if not all(0 < n < 1 << 31 for n in size):
            said = "x".join(map(str, size))
            raise broken(f"[net] of {self.file} has the size {said} (channels, height, width)")
        picture = Picture()
        if self.sections and self.sections[0].kind == "crop":
            size, picture = self._crop_of_pictures(size)
        return self.builder.input(size, picture=picture)

    def _crop_of_pictures(self, size: Shape) -> tuple[Shape, Picture]:
        """A crop at the head is how a picture becomes the input: the centre, from -1 to 1."""
        crop = self.sections[0]
        channels, height, width = size
        cut = (channels, crop.integer("crop_height", 1), crop.integer("crop_width", 1))
        if not (1 <= cut[1] <= height and 1 <= cut[2] <= width):
            raise broken(f"[crop] of {self.file} cuts {cut[1]}x{cut[2]} out of {height}x{width}")
        plain = crop.integer("noadjust", 0)
        if plain:
            return cut, Picture(resize=min(height, width))
        return cut, Picture(resize=min(height, width), mean=HALF, std=HALF)

    def _section(self, section: Section, i: int, last: str | None) -> str | None:
        name = f"section {i}"
        if section.kind == "crop" and i == 0:
            return last
        try:
            if section.kind not in TABLE:
                raise Unsupported("the language has no such layer")
            # Routes read others than the last.
            if last is None and section.kind != "route":
                return None
            return TABLE[section.kind](self, section, i, last or "")
        except Unsupported as why:
            self.trouble.add(f"[{section.kind}]", name, str(why))
            return None
        except NetError as fault:
            if fault.faults[0].span is not None:
                raise
            raise self._placed(fault.faults[0].code, str(fault), section) from None
        except OpFault as fault:
            raise self._placed(fault.code, fault.message, section) from None

    def _placed(self, code: str, message: str, section: Section) -> NetError:
        """An error with the section that it is in."""
        return error(code, f"{self.file}:{section.span.line}: [{section.kind}]: {message}")

    # Sections

    def convolutional(self, section: Section, i: int, last: str) -> str:
        filters, size = section.integer("filters", 1), section.integer("size", 1)
        stride, groups = section.integer("stride", 1), section.integer("groups", 1)
        padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
        self._plain(section, "binary", "xnor", "flipped")
        channels = self._picture(last)[0]
        _positive(filters=filters, size=size, stride=stride, groups=groups, padding=padding + 1)
        if channels % groups or filters % groups:
            raise Unsupported(f"{channels} channels and {filters} filters in {groups} groups")
        window = Window((size, size), (stride, stride), ((padding, padding),) * 2, (1, 1))
        bias = not section.integer("batch_normalize", 0)
        depthwise = groups > 1 and groups == channels
        op = Conv(filters, window, groups, bias, depthwise)
        return self._normed(section, self.builder.add(op, last))

    def deconvolutional(self, section: Section, i: int, last: str) -> str:
        filters, size = section.integer("filters", 1), section.integer("size", 1)
        stride = section.integer("stride", 1)
        padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
        self._picture(last)
        _positive(filters=filters, size=size, stride=stride, padding=padding + 1)
        window = Window((size, size), (stride, stride), ((padding, padding),) * 2, (1, 1))
        bias = not section.integer("batch_normalize", 0)
        op = ConvTranspose(filters, window, (0, 0), bias=bias)
        return self._normed(section, self.builder.add(op, last))

    def connected(self, section: Section, i: int, last: str) -> str:
        outputs = section.integer("output", 1)
        _positive(output=outputs)
        bias = not section.integer("batch_normalize", 0)
        return self._normed(section, self.builder.add(Linear(outputs, bias), last))

    def _normed(self, section: Section, node: str, default: str = "logistic") -> str:
        """What follows a layer in its own section: batch norm and activation."""
        if section.integer("batch_normalize", 0):
            node = self.builder.add(BatchNorm(EPS), node)
        return self._activated(section, node, default)

    def _activated(self, section: Section, node: str, default: str) -> str:
        name = section.text("activation", default)
        if name not in ACTIVATIONS:
            raise Unsupported(f"the language has no activation {name}")
        op = ACTIVATIONS[name]
        return node if op is None else self.builder.add(op, node)

    def maxpool(self, section: Section, i: int, last: str) -> str:
        stride = section.integer("stride", 1)
        size = section.integer("size", stride)
        total = section.integer("padding", size - 1)
        _positive(stride=stride, size=size, padding=total + 1)
        return self.builder.add(MaxPool(_pool(size, stride, total, self._picture(last))), last)

    def avgpool(self, section: Section, i: int, last: str) -> str:
        self._picture(last)
        return self.builder.add(GlobalAverage(), last)

    def normalization(self, section: Section, i: int, last: str) -> str:
        size = section.integer("size", 5)
        _positive(size=size)
        # Darknet's alpha is not divided by the window.
        alpha = section.number("alpha", 0.0001) * size
        beta, kappa = section.number("beta", 0.75), section.number("kappa", 1.0)
        return self.builder.add(LocalResponseNorm(size, float(f"{alpha:.7g}"), beta, kappa), last)

    def route(self, section: Section, i: int, last: str) -> str:
        self._plain(section, "groups", "group_id", usual=(0, 1))
        found = [self._at(n, i, section) for n in section.integers("layers")]
        inputs = [node for node in found if node is not None]
        if len(inputs) < len(found):
            raise Unsupported("it reads a section that cannot be said")
        return inputs[0] if len(inputs) == 1 else self.builder.add(Concat(), *inputs)

    def shortcut(self, section: Section, i: int, last: str) -> str:
        self._plain(section, "alpha", "beta", usual=(1,))
        other = self._at(section.integer("from", -1), i, section)
        if other is None:
            raise Unsupported("it reads a section that cannot be said")
        if self.builder.shape(other) != self.builder.shape(last):
            other = self._fitted(other, self._picture(last))
        return self._activated(section, self.builder.add(Add(), last, other), "linear")

    def upsample(self, section: Section, i: int, last: str) -> str:
        stride = section.integer("stride", 2)
        self._plain(section, "scale", usual=(1,))
        self._picture(last)
        if not 1 <= stride < 1 << 16:
            raise Unsupported("it shrinks")
        return self.builder.add(Upsample((stride, stride)), last)

    def crop(self, section: Section, i: int, last: str) -> str:
        if not section.integer("noadjust", 0):
            raise Unsupported("within the net it scales, too")
        _, height, width = self._picture(last)
        amounts = []
        for size, cut in ((height, "crop_height"), (width, "crop_width")):
            wanted = section.integer(cut, 1)
            if not 1 <= wanted <= size:
                raise Unsupported(f"{cut} is {wanted}, the picture {size}")
            before = (size - wanted) // 2
            amounts.append((-before, wanted - size + before))
        return self.builder.add(Pad(tuple(amounts)), last)

    def dropout(self, section: Section, i: int, last: str) -> str:
        rate = section.number("probability", 0.5)
        if not 0 <= rate < 1:
            raise Unsupported(f"probability is {rate:g}")
        return self.builder.add(Dropout(rate), last)

    def softmax(self, section: Section, i: int, last: str) -> str:
        self._plain(section, "groups", "temperature", usual=(1,))
        if "tree" in section.settings:
            raise Unsupported("a tree of classes")
        positions = self.builder.shape(last)[1:]
        if any(n > 1 for n in positions):
            last = self.builder.add(Flatten(), last)
        return self.builder.add(Softmax(), last)

    def activation(self, section: Section, i: int, last: str) -> str:
        return self._activated(section, last, "linear")

    def _fitted(self, node: str, wanted: Shape) -> str:
        source = self._picture(node)
        op = fitting(source, wanted)
        if op is None:
            raise Unsupported(f"a sum of pictures of {show(source[1:])} and {show(wanted[1:])}")
        return self.builder.add(op, node)

    # Common

    def _at(self, number: int, i: int, section: Section) -> str | None:
        """The output of a section by its number, or counted back from this one if below 0."""
        at = number if number >= 0 else i + number
        if not 0 <= at < i:
            raise broken(f"section {i} reads section {at}, of 0 to {i - 1} before it")
        return self.made[at]

    def _picture(self, node: str) -> Shape:
        shape = self.builder.shape(node)
        if len(shape) != 3:
            raise Unsupported("it works on pictures, and a vector comes in")
        return shape

    def _plain(self, section: Section, *names: str, usual: tuple[float, ...] = (0,)) -> None:
        """Settings that must be left at their usual value."""
        for name in names:
            if section.number(name, usual[0]) not in usual:
                raise Unsupported(f"{name}={section.settings[name]}")


def _positive(**values: int) -> None:
    for name, value in values.items():
        if not 1 <= value < 1 << 31:
            raise Unsupported(f"{name} is {value}")


def _pool(size: int, stride: int, total: int, shape: Shape) -> Window:
    """A max pool whose padding is given in all, half of it before, as simple as may be said."""
    before = total // 2
    padding = (before, total - before)
    if max(padding) >= size:
        raise Unsupported(f"padding {max(padding)} is as wide as the kernel {size}")
    exact = Window((size, size), (stride, stride), (padding,) * 2, (1, 1))
    wanted = exact.output(shape[1:])
    for ceil in (False, True):
        even = Window(exact.kernel, exact.stride, ((before, before),) * 2, (1, 1), ceil)
        if all(n + 2 * before >= size for n in shape[1:]) and even.output(shape[1:]) == wanted:
            return even
    return exact


Take = Callable[[Reading, Section, int, str], str]

TABLE: dict[str, Take] = {
    "convolutional": Reading.convolutional,
    "conv": Reading.convolutional,
    "deconvolutional": Reading.deconvolutional,
    "deconv": Reading.deconvolutional,
    "connected": Reading.connected,
    "conn": Reading.connected,
    "maxpool": Reading.maxpool,
    "max": Reading.maxpool,
    "avgpool": Reading.avgpool,
    "avg": Reading.avgpool,
    "normalization": Reading.normalization,
    "lrn": Reading.normalization,
    "route": Reading.route,
    "shortcut": Reading.shortcut,
    "upsample": Reading.upsample,
    "crop": Reading.crop,
    "dropout": Reading.dropout,
    "softmax": Reading.softmax,
    "soft": Reading.softmax,
    "activation": Reading.activation,
}
"""The sections by all their names, and what makes their nodes."""
