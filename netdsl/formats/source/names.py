"""Names of the net as names of Python."""

from __future__ import annotations

import keyword
import re

# fmt: off
MODULE = frozenset((
    "T_destination", "add_module", "append", "apply", "buffers", "call_super_init", "children",
    "compile", "cpu", "cuda", "double", "dump_patches", "eval", "extend", "extra_repr", "float",
    "forward", "get_buffer", "get_extra_state", "get_parameter", "get_submodule", "half",
    "insert", "ipu", "load_state_dict", "modules", "mtia", "named_buffers", "named_children",
    "named_modules", "named_parameters", "parameters", "pop", "register_backward_hook",
    "register_buffer", "register_forward_hook", "register_forward_pre_hook",
    "register_full_backward_hook", "register_full_backward_pre_hook",
    "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook", "register_module",
    "register_parameter", "register_state_dict_post_hook", "register_state_dict_pre_hook",
    "requires_grad_", "set_extra_state", "set_submodule", "share_memory", "state_dict", "to",
    "to_empty", "train", "training", "type", "xpu", "zero_grad",
))
# fmt: on
"""What nn.Module and nn.Sequential use themselves."""

TAKEN = frozenset(
    ("nn", "F", "torch", "Tensor", "Path", "load", "load_file", "self", "str", "WEIGHTS")
)
"""What a file uses itself."""


def identifier(text: str) -> str:
    """ASCII that Python takes as a name: what does not fit becomes `_`."""
    plain = re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")
    if not plain or plain[0].isdigit():
        plain = f"n{plain}"
    return f"{plain}_" if keyword.iskeyword(plain) or plain in TAKEN else plain


def class_name(text: str) -> str:
    """As classes are called: resnet50 is ResNet50, vgg16 VGG16, mobilenet_v2 MobileNetV2."""
    words = re.findall(r"[A-Za-z]+|\d+", re.sub(r"[^0-9A-Za-z]+", " ", text))
    name = "".join(map(_word, words))
    return identifier(name if name and not name[0].isdigit() else f"Net{name}")


def _word(word: str) -> str:
    if word in FAMOUS:
        return FAMOUS[word]
    start = word.removesuffix("net")
    if start != word and start:
        return f"{_word(start)}Net"
    few = len(word) <= 3 and not re.search("[aeou]", word[1:])
    return word.upper() if few else word[0].upper() + word[1:]


FAMOUS = {"googlenet": "GoogLeNet"}


class Names:
    """Names of one scope, each given once."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self.taken = set(taken)

    def fresh(self, wish: str) -> str:
        """The wish, or with a number where it is taken."""
        name, number = wish, 1
        between = "_" if wish[-1].isdigit() or wish.islower() else ""
        while name in self.taken:
            number += 1
            name = f"{wish}{between}{number}"
        self.taken.add(name)
        return name


def safe(text: str) -> str:
    """Text that may stand in a docstring or a comment."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return shown.replace("\\", "/").replace('"', "'").strip()
