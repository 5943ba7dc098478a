"""From a word to an op and back, and what a wrong word gets."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdsl.faults import OpFault
from netdsl.ops import HEADS, OPS, Conv, Op, Word, build, show
from netdsl.ops.base import Value

IMAGE = (32, 24, 20)
axes = st.one_of(st.tuples(st.integers(1, 5)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
small = st.one_of(st.tuples(st.integers(0, 2)), st.tuples(st.integers(0, 2), st.integers(0, 2)))


@st.composite
def convolutions(draw: st.DrawFn) -> Word:
    options = {"s": draw(axes), "p": draw(small), "d": draw(axes.filter(lambda a: max(a) < 4))}
    settings: dict[str, Value] = {"bias": draw(st.booleans())}
    if draw(st.booleans()):
        settings["pad_end"] = draw(small)
    head = draw(st.sampled_from(["conv", "dwconv", "tconv"]))
    if head != "dwconv":
        options["g"] = draw(st.sampled_from([(1,), (2,), (32,)]))
    return Word(head, draw(axes), options, (draw(st.sampled_from([32, 64])),), settings)


def reread(text: str) -> Op:
    """The op that a canonical spelling stands for, through the language."""
    from netdsl.lang import load

    graph = load(f"input {show(IMAGE)}; {text}")
    return graph[graph.outputs[0]].op


@pytest.mark.parametrize("cls", OPS, ids=lambda cls: cls.__name__)
def test_every_op_is_declared_whole(cls: type) -> None:
    assert cls.heads  # type: ignore[attr-defined]
    assert cls.doc  # type: ignore[attr-defined]
    names = [s.name for s in cls.spelling.settings]  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    for setting in cls.spelling.settings:  # type: ignore[attr-defined]
        assert (setting.kind == "name") == bool(setting.choices)


def test_heads_are_unique() -> None:
    assert len(HEADS) == sum(len(cls.heads) for cls in OPS)


def test_filters_left_out_are_the_channels_times_the_width() -> None:
    op = build(Word("conv", (3,), {"p": (1,)}), (IMAGE,), Fraction(2))
    assert op.output((IMAGE,)) == (64, 24, 20)


def test_an_odd_number_of_channels_cannot_be_halved() -> None:
    with pytest.raises(OpFault, match="3 channels times 1/2 is not a whole number"):
        build(Word("conv", (3,)), ((3, 8, 8),), Fraction(1, 2))


def test_depthwise_has_a_filter_a_channel() -> None:
    op = build(Word("dwconv", (3,), {"p": (1,)}), (IMAGE,))
    assert isinstance(op, Conv)
    assert op.groups == op.filters == 32
    assert op.parameters((IMAGE,))[0].shape == (32, 1, 3, 3)


@given(convolutions())
def test_counts_of_a_convolution(word: Word) -> None:
    try:
        op = build(word, (IMAGE,))
    except OpFault:
        return
    weight = op.parameters((IMAGE,))[0]
    positions = op.output((IMAGE,))[1:] if word.head != "tconv" else IMAGE[1:]
    assert op.macs((IMAGE,)) == weight.size * positions[0] * positions[1]


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        (Word("cnov", (3,)), "unknown-op", "no op `cnov`"),
        (Word("conv"), "missing-kernel", "conv needs a size"),
        (Word("conv", (3, 3, 3), {}, (8,)), "wrong-rank", "has 3 axes, the data has 2"),
        (Word("conv", (3,), {"s": (0,)}, (8,)), "out-of-range", "stride must be 1 or more"),
        (Word("conv", (3,), {"s": (1, 1, 1)}, (8,)), "wrong-rank", "stride 1x1x1 has 3 axes"),
        (Word("conv", (3,), {"ceil": ()}, (8,)), "unknown-option", "conv has no ceil"),
        (Word("conv", (3,), {"same": (), "p": (1,)}, (8,)), "unknown-option", "leave pN out"),
        (Word("conv", (3,), {"g": (5,)}, (8,)), "uneven-groups", "32 input channels"),
        (Word("conv", (99,), {}, (8,)), "kernel-too-large", "kernel of 99 does not fit"),
        (
            Word("conv", (3,), {}, (8, 9)),
            "too-many-arguments",
            "conv takes 1 value without a name, but was given 2",
        ),
        (Word("conv", (3,), {}, ("many",)), "wrong-value", "filters of conv must be a whole"),
        (Word("conv", (3,), {}, (0,)), "out-of-range", "filters of conv is 0"),
        (Word("conv", (3,), {}, (8,), {"bais": False}), "unknown-setting", "no setting `bais`"),
        (Word("conv", (3,), {}, (8,), {"filters": 8}), "given-twice", "given filters twice"),
        (Word("maxpool", (3,), {"p": (3,)}), "pool-padding", "smaller than the pool's kernel"),
        (Word("avgpool"), "missing-kernel", "avgpool needs a kernel"),
        (Word("gn", (5,)), "uneven-groups", "32 channels do not divide into 5"),
        (Word("relu", (3,)), "unknown-option", "relu takes no size"),
        (Word("shuffle"), "missing-setting", "shuffle needs its groups"),
        (Word("pad"), "missing-setting", "pad needs an amount"),
        (Word("pad", None, {}, (-12,)), "out-of-range", "cropping 24x20 that far"),
        (Word("gelu", None, {}, ("exact",)), "wrong-value", "one of erf, tanh"),
        (Word("dropout", None, {}, (1,)), "out-of-range", "rate of dropout is 1"),
        (Word("bn", None, {}, (), {"eps": 0}), "out-of-range", "eps of bn is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_word_says_what_is_wrong(word: Word, code: str, says: str) -> None:
    with pytest.raises(OpFault) as caught:
        build(word, (IMAGE,))
    assert caught.value.code == code
    assert says in caught.value.message + (caught.value.help or "")


def test_a_vector_has_no_axes_to_slide_over() -> None:
    for word in (Word("conv", (3,), {}, (8,)), Word("maxpool", (2,)), Word("gap"), Word("in")):
        with pytest.raises(OpFault, match="vector of 784"):
            build(word, ((784,),))


def test_joins_name_both_shapes() -> None:
    from netdsl.ops import Add, Concat, Multiply

    for join in (Add(), Concat(), Multiply()):
        with pytest.raises(OpFault, match="64x56x56 and 64x28x28"):
            join.output(((64, 56, 56), (64, 28, 28)))
    assert Concat().output(((3, 4, 4), (5, 4, 4))) == (8, 4, 4)
    assert Multiply().output(((16, 4, 4), (16, 1, 1))) == (16, 4, 4)


CANONICAL = [
    "conv3x3(64)",
    "conv3x1s2x1p1x0d1x2g4(64, pad_end=2, bias=no)",
    "dwconv3x3p1(64)",
    "tconv2x2s2(64, out_pad=1)",
    "fc(10, bias=no)",
    "maxpool3s2ceil",
    "maxpool3x2s1p1x0d2",
    "avgpool2(count_pad=yes)",
    "avgpool(to=7)",
    "avgpool(to=7x5)",
    "gap",
    "gmp",
    "bn(eps=0.001, affine=no, momentum=0.01)",
    "ln",
    "in(affine=no)",
    "gn8(eps=1e-06)",
    "lrn5(k=1)",
    "lrn4(alpha=0.0005, beta=0.5)",
    "leaky(0.2)",
    "prelu",
    "elu(0.5)",
    "gelu(tanh)",
    "hsigmoid(slope=0.2)",
    "log_softmax",
    "dropout(0.3)",
    "flatten",
    "up2(bilinear)",
    "up2x3",
    "pad(1x2, end=0, mode=edge, value=2)",
    "pad([1, -2])",
    "shuffle(4)",
]


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_words_read_back(text: str) -> None:
    assert reread(text).word() == text


@given(convolutions())
def test_any_convolution_reads_back(word: Word) -> None:
    try:
        op = build(word, (IMAGE,))
    except OpFault:
        return
    assert reread(op.word()) == op
