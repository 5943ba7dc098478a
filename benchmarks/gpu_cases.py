"""What gpu.py computes: every op forward and backward, training steps, passes over memory, nets.

On a card of 132 multiprocessors the first four lists launch every kernel that there is but the
peak's, which a test sees to: which tile a layer goes by depends on how many blocks keep the card
busy.
"""

from __future__ import annotations

from typing import Any


def full(name: str) -> Any:
    """The cases of this name for a card."""
    return globals()[name]


def tiny(name: str) -> Any:
    """The same for the simulator."""
    return globals()[f"TINY_{name}"]


BATCHES_OF_CHECKS, BATCHES_OF_GRADIENTS = (1, 9), (1, 17)
BATCHES_OF_ROUNDED = (*BATCHES_OF_GRADIENTS, 70)
TINY_BATCHES_OF_CHECKS = TINY_BATCHES_OF_GRADIENTS = TINY_BATCHES_OF_ROUNDED = (2,)

FORWARD = (
    "input 37x29x31; conv3x3p1(70) -> relu",
    "input 64x28x28; conv3x3s2p1(128) -> relu6",
    "input 256x14x14; conv1x1(512) -> leaky",
    "input 512x7x7; conv3x3p1(512)",
    # By Winograd's algorithm in rows of whole fours, by its widest tile, and pooled.
    "input 64x56x56; conv3x3p1(64) -> relu",
    "input 64x15x18; conv3x3p1(70) -> relu -> maxpool2",
    "input 64x16x12 as a; a -> [conv3x3p1(64) + a] -> relu",
    # Tiles enough for every multiprocessor, so that they are the widest.
    "input 16x63x65; conv3x3p1(64) -> relu",
    "input 12x61x61; conv5x5p2(100)",
    "input 3x56x56; conv7x7s2p3(64) -> relu",
    "input 24x100; conv5p2d2(48)",
    "input 8x9x20x21; conv3p1(24)",
    "input 96x29x31; dwconv3x3p1 -> relu6 -> dwconv3x3s2p1 -> relu -> dwconv3x3p1",
    "input 96x14x14; dwconv5x5p2 -> dwconv5x5s2p2 -> hswish -> dwconv5x5p2",
    "input 96x27x28; dwconv7x7p3 -> dwconv7x7s2p3 -> leaky -> dwconv4x4p1",
    "input 96x100; dwconv3p1 -> dwconv5s2p2 -> relu -> dwconv7p3",
    "input 32x5x27x25; dwconv3p1 -> relu -> dwconv3s2p1",
    "input 96x29x31 as a; a -> [conv3x3p1g24(96) -> relu -> conv3x3s2p1g16(112) | "
    "a -> conv1x1g12(96) -> conv3x3s2p1g32(96)]",
    "input 64x14x14; conv3x3p1g4(128)",
    "input 48x14x14 as a; a -> [conv3x3p1g6(48) + a] -> relu",
    "input 64x9x9 as a; a -> [conv3x3p1g2(64) + a] -> relu",
    "input 32x15x17; tconv3x3s2p1(48)",
    "input 16x7x8x9; tconv2s2(8)",
    "input 64x9x9; conv1x1(64) as a; [a -> conv3x3p1(64) + a] -> relu",
    "input 512x7x7; fc(300) -> relu",
    "input 33x27x25; maxpool3s2p1ceil",
    "input 33x27x25; avgpool3s2p1(count_pad=yes)",
    "input 9x13x27x25; maxpool2ceil -> maxpool3s1p1 -> maxpool3s3p1",
    "input 9x13x27x25; avgpool2ceil -> avgpool3s1p1 -> avgpool3s3p1(count_pad=yes)",
    "input 33x27x25; avgpool(to=7x6)",
    "input 33x27x25; maxpool2s1 -> maxpool5s1p2 -> maxpool5x3s3x2p2x1",
    "input 33x27x25; avgpool2s1 -> avgpool5s3(count_pad=yes)",
    "input 130x7x7; avgpool7 -> relu",
    "input 130x7x7; gap",
    "input 130x29x31; gap",
    "input 130x13x11; gmp",
    "input 130x29x31; gmp",
    "input 30x41x37; gmp",
    "input 48x27x25; [bn + prelu] -> relu",
    "input 48x27x25; ln",
    "input 48x27x25; in",
    "input 48x27x25; gn6",
    "input 48x28x24; gn6 -> in -> ln",
    "input 130x7x7; in -> relu",
    "input 48x57x55; in",
    "input 301; ln",
    "input 1000; softmax",
    "input 9000; softmax",
    "input 333x5x4; log_softmax",
    "input 21x40x41; log_softmax",
    "input 96x27x27; lrn",
    "input 50x33; elu -> gelu -> silu -> hswish -> hsigmoid -> tanh -> sigmoid",
    "input 50x33; gelu(tanh)",
    "input 24x17x19; up2(bilinear) -> up2",
    "input 24x17x19; pad(3, mode=reflect) -> shuffle(4)",
    "input 24x17x19; pad(2, mode=edge) -> pad(1, value=3.5)",
    "input 24x17x19; [relu | tanh] -> [id * gap]",
    "input 24x7x7 as a; [a -> relu * a -> tanh * a -> gap] -> [id * gap] as p; [p * a]",
    "input 24x1x19 as a; input 1x17x19 as b; a -> [id * b]",
    "input 40x27x27; lrn3 -> lrn(beta=0.5)",
    "input 24x17x19; flatten -> relu",
)

# What stays packed from layer to layer on tensor cores.
PACKED = (
    "input 40x63x65; conv3x3p1(100) -> relu -> conv1x1(64)",
    "input 40x63x65; conv1x1(60) -> relu -> maxpool2 -> conv1x1(130)",
    "input 16x28x30; conv3x3p1(40) -> maxpool3s2p1 -> conv3x3s2p1(64) -> relu -> conv1x1(36)",
    "input 24x14x15; conv1x1(64) -> relu as a; [a -> conv1x1(32) -> relu | a -> conv3x3p1(72) "
    "| a -> maxpool3s1p1 -> conv1x1(30)] -> conv1x1(80)",
    "input 64x9x9; conv1x1(64) as a; [a -> conv3x3p1(64) + a] -> relu -> conv3x3p1g2(64) "
    "-> conv1x1(50)",
    "input 16x17x15; conv1x1(24) -> maxpool2s1 -> maxpool5s1p2 -> conv1x1(40)",
    "input 512x7x7; conv3x3p1(510) -> relu -> conv1x1(130) -> conv1x1(64)",
    "input 40x9x8; conv1x1(96) -> tconv2x2s2(44) -> conv3x3p1(20)",
    "input 16x6x9x8; conv3p1(24) -> relu -> maxpool2 -> conv1(20)",
    "input 700; fc(300) -> relu -> fc(130) -> relu -> fc(70)",
)

# An op's own input has no gradient to look at, so a layer with weights lies before it.
BACKWARD = (
    "input 37x19x21; conv3x3p1(40) -> relu -> conv3x3s2p1(24)",
    "input 24x100; conv5p2d2(48) -> leaky -> conv3g4(16)",
    "input 8x9x10x11; conv3p1(12) -> relu6 -> conv1(5)",
    "input 24x14x14; conv1x1(32) -> dwconv3x3p1 -> hswish",
    "input 24x29x31; conv1x1(32) -> dwconv5x5s2p2 -> dwconv7x7p3 -> conv3x3p1g8(32)",
    "input 24x29x31; conv1x1(32) -> dwconv3x3s2p1 -> dwconv5x5p2 -> dwconv7x7s2p3 -> dwconv4x4p1",
    "input 24x100; conv1(32) -> dwconv3p1 -> dwconv5s2p2 -> dwconv7p3",
    "input 12x9x8; conv1x1(16) -> tconv3x3s2p1(10) -> hsigmoid",
    "input 33x7x7; conv1x1(16) -> fc(30) -> relu -> fc(10)",
    "input 8x17x15; conv1x1(16) -> maxpool3s2p1ceil",
    "input 8x5x17x15; conv1(16) -> maxpool2ceil -> maxpool3s1p1 -> maxpool2s1d2",
    "input 8x17x15; conv1x1(16) -> maxpool2s1 -> maxpool3s3",
    "input 8x17x15; conv1x1(16) -> avgpool3s2p1(count_pad=yes)",
    "input 8x17x15; conv1x1(16) -> avgpool(to=7x6)",
    "input 8x17x15; conv1x1(16) -> [gap | gmp]",
    "input 8x17x15; conv1x1(16, bias=no) -> bn -> prelu",
    "input 8x17x15; conv1x1(16) -> ln",
    "input 8x7x7; conv1x1(16, bias=no) -> bn -> relu",
    "input 8x17x15; conv1x1(16, bias=no) -> in",
    "input 8x17x15; conv1x1(16) -> gn4",
    "input 8x17x15; conv1x1(16) -> lrn",
    "input 8x17x15; conv1x1(40) -> lrn33",
    "input 8x17x15; conv1x1(21) -> softmax",
    "input 33; fc(24) -> ln -> fc(10) -> softmax",
    "input 8x17x15; conv1x1(21) -> log_softmax",
    "input 8x33; conv1(16) -> elu -> gelu -> silu -> tanh -> sigmoid",
    "input 8x33; conv1(16) -> gelu(tanh)",
    "input 8x11x9; conv1x1(8) -> up2(bilinear) -> up2",
    "input 8x11x9; conv1x1(8) -> pad(3, mode=reflect) -> shuffle(4)",
    "input 8x11x9; conv1x1(8) -> pad(2, mode=edge) -> pad(1, value=3.5)",
    "input 8x11x9; conv1x1(8) as a; [a -> relu | a -> tanh] -> [id * gap]",
    "input 8x11x9; conv1x1(8) as a; [a -> tanh * a -> sigmoid] -> conv1x1(8) -> [id * gap]",
    "input 8x11x9 as a; a -> conv1x1(1) as b; a -> conv1x1(8) -> avgpool(to=11x1) as c; [c * b]",
    "input 8x17x15; conv1x1(16) -> lrn3 -> lrn(beta=0.5)",
    "input 8x11x9; conv1x1(8) as a; [a -> conv3x3p1(8) + a] -> flatten -> relu",
)

# Without kinks: near one, rounding decides which way an element's whole gradient goes.
ROUNDED = (
    "input 37x19x21; conv3x3p1(40) -> conv3x3s2p1(24)",
    "input 64x28x28; conv1x1(96) -> conv3x3p1(160)",
    "input 24x100; conv5p2d2(48) -> conv3(16)",
    "input 24x15x13; conv1x1(64) -> conv3x3p1g2(96) -> tconv2x2s2g2(64)",
    "input 8x9x10x11; conv3p1(12) -> conv1(5)",
    "input 12x9x8; conv1x1(16) -> tconv3x3s2p1(10)",
    "input 33x7x7; conv1x1(16) -> flatten -> fc(300) -> fc(10)",
    "input 8x7x7; conv1x1(480) -> conv3x3p1(256)",
    "input 60x3x3; conv1x1(50) -> conv1x1(8500)",
)

# What is packed once a step, written so by what makes it or by a pass, and read so by what.
COPIED = (
    "input 16x29x31; conv3x3p1(40) -> relu -> conv3x3p1(72) -> relu -> maxpool2 -> conv1x1(36)",
    "input 24x13x15; conv1x1(64) as a; [a -> conv1x1(32) -> relu | a -> conv3x3p1(72) -> relu] "
    "-> conv1x1(80) -> relu -> tconv2x2s2(20)",
    "input 8x14x14; conv1x1(64, bias=no) -> bn -> relu as a; "
    "[a -> conv3x3p1g2(64, bias=no) -> bn + a] -> relu -> [conv1x1(40) | conv1x1(36)]",
    "input 8x7x7; conv3x3(60) -> relu -> flatten -> fc(300) -> relu -> dropout -> fc(20)",
)

NET = (
    "input 3x15x13; conv3x3(20) -> bn -> relu -> maxpool2 -> [conv1x1(24) | conv3x3p1(40)] "
    "-> relu -> flatten -> dropout(0.3) -> fc(10) -> softmax"
)
DENSE = "input 40; fc(50) -> relu -> aux(weight=0.3) { fc(7) } -> fc(9)"
PLACES = "input 3x12x11; conv3x3p1(16) -> leaky -> conv1x1(5)"

STEPS: tuple[tuple[str, int, dict[str, Any], str], ...] = (
    (NET, 17, {"clip": 0.5, "smoothing": 0.1}, "classes"),
    (NET, 16, {"optimiser": "adam"}, "classes"),
    (PLACES, 5, {"optimiser": "sgd", "decay": 0.01, "decay_all": True}, "classes"),
    (DENSE, 9, {"optimiser": "nesterov", "loss": "hinge"}, "classes"),
    (DENSE, 9, {"optimiser": "adagrad", "loss": "mse"}, "numbers"),
    (DENSE, 9, {"optimiser": "rmsprop", "loss": "bce"}, "shares"),
    (DENSE, 9, {"optimiser": "adamw", "schedule": "step"}, "classes"),
)
"""Nets, batches, settings, and what the targets are."""

IN_A_ROW = ("input 3x17x19; conv3x3p1(20) -> relu -> maxpool2",)

PASSES = (
    "input 96x112x112; dwconv3x3p1 -> relu6",
    "input 96x112x112; dwconv3x3s2p1 -> relu6",
    "input 240x28x28; dwconv5x5p2 -> relu6",
    "input 96x56x56; dwconv7x7p3",
    "input 128x56x56; conv3x3p1g32(128) -> relu",
    "input 64x112x112; maxpool3s2p1",
    "input 64x111x111; maxpool3s2",
    "input 64x112x112; maxpool2",
    "input 64x112x112; maxpool3s1p1",
    "input 64x112x112; avgpool2",
    "input 64x112x112; maxpool2s1",
    "input 64x55x55; maxpool5s1p2",
    "input 64x111x111; maxpool3s3",
    "input 128x16000; maxpool4",
    "input 64x111x111; avgpool5s3",
    "input 256x27x27; avgpool(to=6x6)",
    "input 64x112x112; bn -> relu",
    "input 64x112x112; gelu",
    "input 64x112x112; in",
    "input 64x112x112; gn8",
    "input 64x112x112; ln",
    "input 64x111x111; ln",
    "input 64x111x111; in",
    "input 512x7x7; in",
    "input 256x14x14; in",
    "input 768; ln",
    "input 96x55x55; lrn",
    "input 144x56x56; [id * gap]",
    "input 64x112x112 as a; input 64x112x112 as b; a -> [id * b]",
    "input 1000x14x14; softmax",
    "input 1000; softmax",
    "input 512x14x14; gap",
    "input 2048x7x7; gap",
)

NETS = ("vgg16", "resnet50", "alexnet", "googlenet_torchvision")
BATCHES = (64, 1, 8)
CHUNKED, CHUNKED_BATCH = "vgg16", 64
SCRATCH = (1 << 25, 1 << 27, 1 << 29, 0)
"""Bytes of scratch of Winograd's algorithm that are compared; 0 goes without it."""
LAYERED, LAYERED_BATCH = "vgg16", 32
TRAINED = (("lenet5", 64), ("resnet50", 32))

TINY_FORWARD = (
    "input 3x5x4; conv3x3p1(5) -> relu",
    "input 2x6; tconv3s2p1(3)",
    "input 3x3x2; fc(5) -> relu",
    "input 3x5x5; maxpool3s2p1",
    "input 2x5x7; avgpool(to=2)",
    "input 4x3x3; gn2 -> softmax",
    "input 4x3x3; lrn -> gelu",
    "input 2x3x2; up2 -> pad(1, mode=edge)",
    "input 3x2x3; [relu | tanh] -> [id * gap]",
)
TINY_PACKED = ("input 3x5x4; conv3x3p1(9) -> relu -> maxpool2 -> conv1x1(3)",)
TINY_BACKWARD = (
    "input 2x4x4; conv3x3p1(3) -> relu -> fc(2)",
    "input 2x4x4; conv1x1(2) -> maxpool2 -> tanh",
)
TINY_ROUNDED = ("input 2x4x4; conv3x3p1(3) -> conv1x1(2)", "input 12; fc(8) -> fc(3)")
TINY_COPIED = ("input 2x3x3; conv2x2(9) -> relu -> conv1x1(2)",)
TINY_STEPS: tuple[tuple[str, int, dict[str, Any], str], ...] = (
    ("input 5; fc(4) -> relu -> fc(3)", 2, {"optimiser": "adam", "clip": 0.1}, "classes"),
)
TINY_IN_A_ROW = ("input 2x3x3; conv3x3p1(2) -> relu",)
SMALL_WINOGRAD = ("input 24x13x14; conv3x3p1(64)", "input 40x9x8; conv3x3p1(64) -> relu")
SMALL_ROUNDED = ("input 20x7x9; conv3x3p1(70)", "input 3x5x4; tconv3x3s2p1(5)", *TINY_PACKED)
TINY_PASSES = ("input 2x6x6; maxpool3s2p1", "input 4x3; softmax")
TINY_NET = "net tiny; input 1x5x5; conv3x3(2) -> relu -> maxpool2s1 -> flatten -> fc(3)"
