"""Frozen dataclasses that take little time to define.

`dataclasses.dataclass(frozen=True)` writes six methods of each class as text and compiles them,
half a millisecond a class: for those that a run needs it was a twelfth of the whole start. Here
these methods are functions that know the fields' names, and all else is as there: `fields`,
`replace`, `field(...)`, `__match_args__`. To whoever checks types it is `dataclasses.dataclass`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen, eq=True):
        """Makes a class a frozen dataclass. eq: compared and hashed by its fields, not by identity.

        Such classes inherit from each other, not from Python's dataclasses, nor these from them.
        """
        assert frozen
        return _compared if eq else _defined


def _defined(cls: type) -> type:
    """The class as a dataclass that nothing compares."""
    assert not hasattr(cls, "__post_init__"), "nothing is done after a field is set"
    cls = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    return _given(cls, __init__=_init(cls), __repr__=_repr(cls), __setattr__=_no, __delattr__=_no)


def _compared(cls: type) -> type:
    """The class as a dataclass that its fields compare."""
    cls = _defined(cls)
    values = _values(*(field.name for field in dataclasses.fields(cls) if field.compare))

    def equal(self: object, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    return _given(cls, __eq__=equal, __hash__=lambda self: hash(values(self)))


def _given(cls: type, **methods: Callable[..., Any]) -> type:
    """The class with these methods in place of inherited ones; its own stay."""
    for name, method in methods.items():
        if cls.__dict__.get(name) is None:  # a class that compares has None for its hash
            setattr(cls, name, method)
    return cls


def _values(*names: str) -> Callable[[object], Any]:
    """What an object holds under these names."""
    return attrgetter(*names) if names else lambda one: ()


def _init(cls: type) -> Callable[..., None]:
    fields = dataclasses.fields(cls)
    names = tuple(field.name for field in fields)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    made = {f.name: f.default_factory for f in fields if callable(f.default_factory)}
    count, known = len(names), set(names)

    def init(self: object, *given: Any, **named: Any) -> None:
        values = vars(self)
        if len(given) == count and not named:
            values.update(zip(names, given, strict=True))
            return
        values.update(defaults)
        values.update(zip(names, given, strict=False))
        values.update(named)
        values.update({name: make() for name, make in made.items() if name not in values})
        twice = not named.keys().isdisjoint(names[: len(given)])
        if values.keys() != known or len(given) > count or twice:
            raise TypeError(f"{cls.__name__} takes {', '.join(names)}: not {given} and {named}")

    return init


def _repr(cls: type) -> Callable[[object], str]:
    shown = [field.name for field in dataclasses.fields(cls) if field.repr]

    def text(self: object) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({said})"

    return text


def _no(self: object, name: str, *value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"{name} of a {type(self).__name__} stays as it is")
