"""A message as both forms of a file give it: for each field's name, its values in order."""

from __future__ import annotations

from typing import Any

from netdsl.faults import NetError, error


def broken(message: str) -> NetError:
    """The error for a file that is cut off or contradicts itself."""
    return error("bad-caffe", message)


class Message:
    """Fields by name. Values are numbers, texts (names of enums among them), flags, messages."""

    def __init__(self, **values: Any) -> None:
        self.fields: dict[str, list[Any]] = {}
        for name, value in values.items():
            self.fields[name] = list(value) if isinstance(value, list | tuple) else [value]

    def add(self, name: str, value: Any) -> None:
        self.fields.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def message(self, name: str) -> Message:
        """A part; an empty one where it is left out. Raises NetError where it is no message."""
        value = self._last(name, Message())
        if not isinstance(value, Message):
            raise broken(f"{name} is {value!r}, but should be a group in braces")
        return value

    def messages(self, name: str) -> list[Message]:
        return [v for v in self.fields.get(name, ()) if isinstance(v, Message)]

    def integer(self, name: str, default: int) -> int:
        value = self._last(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise broken(f"{name} is {value!r}, but should be a whole number")
        return value

    def integers(self, name: str) -> list[int]:
        values = self.fields.get(name, [])
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                raise broken(f"{name} is {value!r}, but should be a whole number")
        return values

    def number(self, name: str, default: float) -> float:
        value = self._last(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise broken(f"{name} is {value!r}, but should be a number")
        return float(value)

    def numbers(self, name: str) -> list[float]:
        for value in self.fields.get(name, []):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise broken(f"{name} is {value!r}, but should be a number")
        return [float(v) for v in self.fields.get(name, [])]

    def text(self, name: str, default: str = "") -> str:
        return str(self._last(name, default))

    def texts(self, name: str) -> list[str]:
        return [str(v) for v in self.fields.get(name, ())]

    def flag(self, name: str, default: bool) -> bool:
        value = self._last(name, default)
        if not isinstance(value, bool | int):
            raise broken(f"{name} is {value!r}, but should be true or false")
        return bool(value)

    def _last(self, name: str, default: Any) -> Any:
        values = self.fields.get(name)
        return values[-1] if values else default
