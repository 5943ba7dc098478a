"""Pickles read as data: tensors' outlines in dicts and lists, and nothing else.

Python's own unpickler calls whatever a file names. This one interprets the opcodes itself and calls
nothing: a name is only looked up in a table of the few things that weights files are made of, and
any other is refused. Work and memory are bounded by the length of the pickle.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from netdsl.faults import NetError, error
from netdsl.ops import Shape

MOST = 4_000_000
"""Opcodes of one pickle; a state dict takes some 40 a tensor."""

MOST_AXES = 32

LARGEST_SIZE = 1 << 48
"""Bound of every size, stride and offset in a file."""

Key = str | int | float | None


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; never imported."""

    text: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file. kind: the name of torch's storage class or type."""

    kind: str
    key: str
    size: int


@dataclass(frozen=True)
class View:
    """A tensor: how it lies in its storage, counted in numbers."""

    storage: Storage
    offset: int
    shape: Shape
    stride: tuple[int, ...]


@dataclass
class Module:
    """A TorchScript module as the attributes that were saved of it."""

    attributes: dict[Any, Any] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - the pickle is at fault
    """A pickle that names or does what no weights file needs."""


def load(file: IO[bytes], name: str) -> Any:
    """The value of the pickle that begins here, read up to its end.

    file: in memory or mapped, so that no length in it can ask for more than is there. `name` is
    what errors call it. Raises NetError: `unsafe-pickle` for one that wants to call or make
    something else than tensors, `corrupt` for one that is broken.
    """
    machine = Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST:
                raise Refused(f"it has more than {MOST:,} opcodes")
            machine.step(opcode.name, argument)
        return machine.result
    except Refused as why:
        raise error(
            "unsafe-pickle",
            f"{name} is refused: {why}",
            help="weights are read as data and nothing in the file is run; "
            "torch.save(model.state_dict(), FILE) writes a file of tensors alone",
        ) from None
    except (ValueError, TypeError, IndexError, KeyError, struct.error, OverflowError):
        raise broken(name) from None


def broken(name: str) -> NetError:
    """The error for a pickle that ends early or contradicts itself."""
    return error("corrupt", f"{name} is corrupt, or no file of PyTorch: its pickle is broken")


class Mark:
    """Where a group of values begins on the stack."""


MARK = Mark()


class Machine:
    """The stack and memory of a pickle while it is read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.result: Any = None

    def step(self, opcode: str, argument: Any) -> None:
        """One opcode. Raises Refused, or what broken pickles raise (see `load`)."""
        if opcode in PUSHED:
            self.stack.append(argument)
        elif opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in EMPTY:
            self.stack.append(EMPTY[opcode]())
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[argument])
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memory[argument] = self.stack[-1]
        elif opcode in STEPS:
            STEPS[opcode](self)
        elif opcode == "GLOBAL":
            self.stack.append(Name(argument.replace(" ", ".")))
        elif opcode not in ("PROTO", "FRAME"):
            raise Refused(f"it uses {opcode}, which no weights file needs")

    def group(self) -> list[Any]:
        """Takes the values down to the last mark off the stack."""
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise IndexError
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def take(self, count: int) -> list[Any]:
        """Takes the last `count` values off the stack."""
        if len(self.stack) < count:
            raise IndexError
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def stop(self) -> None:
        self.result = self.stack.pop()

    def store(self) -> None:
        self.memory[len(self.memory)] = self.stack[-1]

    def drop(self) -> None:
        self.stack.pop()

    def drop_group(self) -> None:
        self.group()

    def append(self) -> None:
        value = self.stack.pop()
        _list(self.stack[-1]).append(value)

    def appends(self) -> None:
        values = self.group()
        _list(self.stack[-1]).extend(values)

    def set_item(self) -> None:
        key, value = self.take(2)
        _dict(self.stack[-1])[_key(key)] = value

    def set_items(self) -> None:
        values = self.group()
        _dict(self.stack[-1]).update(_pairs(values))

    def global_from_stack(self) -> None:
        module, name = self.take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        self.stack.append(Name(f"{module}.{name}"))

    def call(self) -> None:
        """A call, where it makes a tensor or a container; no other is done."""
        what, arguments = self.take(2)
        if not isinstance(what, Name) or not isinstance(arguments, tuple):
            raise TypeError
        if what.text not in MADE:
            raise Refused(f"it wants to call {shown(what)}")
        self.stack.append(MADE[what.text](arguments))

    def new(self) -> None:
        what, arguments = self.take(2)
        if not isinstance(what, Name):
            raise TypeError
        if not what.text.startswith("__torch__.") or arguments != ():
            raise Refused(f"it wants to make an object of {shown(what)}")
        self.stack.append(Module())

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Module):
            target.attributes = _dict(state)
        elif not isinstance(target, dict) or not isinstance(state, dict):
            raise Refused("it wants to set the state of something else than a module")
        # An OrderedDict's state (a state dict's `_metadata`) says nothing of its tensors.

    def persistent(self) -> None:
        """A reference to a storage: ("storage", kind, key, place, size) and a view's place."""
        reference = self.stack.pop()
        if isinstance(reference, tuple) and reference[0] == "module":
            raise Refused("it holds a whole model and not its tensors alone")
        tag, kind, key, _, size, *rest = reference
        if tag != "storage" or not isinstance(kind, Name) or any(r is not None for r in rest):
            raise ValueError
        self.stack.append(Storage(kind.text, str(_text(key)), _size(size)))


def shown(name: Name) -> str:
    return name.text if len(name.text) <= 60 else name.text[:57] + "..."


def _text(value: Any) -> str | int:
    if not isinstance(value, str | int):
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _key(value: Any) -> Key:
    # A tuple of tuples of tuples ... would take exponentially long to hash.
    if not isinstance(value, str | int | float | None):
        raise TypeError
    return value


def _pairs(values: list[Any]) -> dict[Key, Any]:
    return {_key(k): v for k, v in zip(values[::2], values[1::2], strict=True)}


def _size(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < LARGEST_SIZE:
        raise ValueError
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > MOST_AXES:
        raise ValueError
    return tuple(map(_size, values))


def _ordered(arguments: tuple[Any, ...]) -> dict[Key, Any]:
    found: dict[Key, Any] = {}
    for pair in arguments[0] if arguments else ():
        key, value = pair
        found[_key(key)] = value
    return found


def _tensor(arguments: tuple[Any, ...]) -> View:
    """torch._utils._rebuild_tensor(_v2)(storage, offset, size, stride, ...)."""
    storage, offset, shape, stride, *_ = arguments
    if not isinstance(storage, Storage):
        raise TypeError
    view = View(storage, _size(offset), _sizes(shape), _sizes(stride))
    if len(view.shape) != len(view.stride):
        raise ValueError
    return view


def _typed_tensor(arguments: tuple[Any, ...]) -> View:
    """torch._utils._rebuild_tensor_v3(storage, offset, size, stride, ..., dtype)."""
    view = _tensor(arguments)
    kind = arguments[6]
    if not isinstance(kind, Name):
        raise TypeError
    return View(
        Storage(kind.text, view.storage.key, view.storage.size),
        view.offset,
        view.shape,
        view.stride,
    )


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0]


MADE: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": _first,
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
}
"""What a call of each name makes, from its arguments. Nothing else is called."""

PUSHED = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": MARK}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}

STEPS: dict[str, Callable[[Machine], None]] = {
    "STOP": Machine.stop,
    "POP": Machine.drop,
    "POP_MARK": Machine.drop_group,
    "DUP": lambda m: m.stack.append(m.stack[-1]),
    "MEMOIZE": Machine.store,
    "LIST": lambda m: m.stack.append(m.group()),
    "TUPLE": lambda m: m.stack.append(tuple(m.group())),
    "TUPLE1": lambda m: m.stack.append(tuple(m.take(1))),
    "TUPLE2": lambda m: m.stack.append(tuple(m.take(2))),
    "TUPLE3": lambda m: m.stack.append(tuple(m.take(3))),
    "DICT": lambda m: m.stack.append(_pairs(m.group())),
    "APPEND": Machine.append,
    "APPENDS": Machine.appends,
    "ADDITEMS": Machine.appends,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    "STACK_GLOBAL": Machine.global_from_stack,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.new,
    "BUILD": Machine.build,
    "BINPERSID": Machine.persistent,
}
