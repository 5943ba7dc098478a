"""Frozen dataclasses of our own, beside Python's."""

import copy
import dataclasses
import pickle
from abc import ABC, abstractmethod
from dataclasses import field, replace
from typing import ClassVar

import pytest

from netdsl.frozen import dataclass


@dataclass(frozen=True)
class Base(ABC):
    """A class to inherit from."""

    kind: ClassVar[str] = "base"

    @abstractmethod
    def area(self) -> int: ...


@dataclass(frozen=True)
class Box(Base):
    """A class with all sorts of fields."""

    width: int
    height: int = 2
    note: str = field(default="", compare=False, repr=False)
    tags: list[str] = field(default_factory=list, compare=False)

    def area(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class Cube(Box):
    """One that inherits fields."""

    depth: int = 1


@dataclass(frozen=True)
class Pair:
    """One without defaults."""

    left: int
    right: int


@dataclass(frozen=True, eq=False)
class Same:
    """One that is compared by identity."""

    number: int


def test_fields_are_given_by_place_by_name_or_left_out() -> None:
    assert Box(3, note="x") == Box(width=3, height=2)
    assert vars(Box(3, 4)) == {"width": 3, "height": 4, "note": "", "tags": []}
    assert vars(Cube(3, 4, depth=5))["depth"] == 5
    assert Box(1).tags is not Box(1).tags


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1, 2, "", [], 5), {}), ((1,), {"width": 2}), ((1,), {"w": 2})]
)
def test_fields_that_are_missing_too_many_twice_or_unknown_raise(
    given: tuple[object, ...], named: dict[str, object]
) -> None:
    with pytest.raises(TypeError, match="Box takes width, height, note, tags"):
        Box(*given, **named)  # type: ignore[arg-type]


def test_an_unknown_name_does_not_stand_for_a_missing_one() -> None:
    with pytest.raises(TypeError, match="Pair takes left, right"):
        Pair(1, wrong=2)  # type: ignore[call-arg]


def test_they_are_compared_and_hashed_by_their_fields() -> None:
    assert hash(Box(1, note="x")) == hash(Box(1, note="y"))
    assert Box(1) != Box(2)
    assert Box(1) != Cube(1)
    assert Box(1) != (1, 2)


def test_without_eq_they_are_compared_by_identity() -> None:
    one = Same(1)
    assert one == one
    assert one != Same(1)
    assert len({one, Same(1)}) == 2


def test_they_stay_as_they_are() -> None:
    box = Box(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        box.width = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del box.width
    assert box.width == 1


def test_what_reads_dataclasses_reads_them() -> None:
    assert [f.name for f in dataclasses.fields(Cube)] == [
        "width",
        "height",
        "note",
        "tags",
        "depth",
    ]
    assert replace(Cube(1, depth=7), height=3) == Cube(1, 3, depth=7)
    assert dataclasses.asdict(Box(1)) == {"width": 1, "height": 2, "note": "", "tags": []}
    assert repr(Cube(1)) == "Cube(width=1, height=2, tags=[], depth=1)"
    assert pickle.loads(pickle.dumps(Box(1, tags=["a"]))).tags == ["a"]
    assert copy.copy(Box(5)) == Box(5)


def test_what_is_abstract_is_not_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]
