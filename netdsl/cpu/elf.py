"""Object files of x86-64 brought into this process, without LLVM.

What Numba and `region.py` make for Linux is laid out for any distance between code, data and what
it calls ("large code model"), so nothing has to be patched but whole addresses: two kinds of
relocations. A file that holds anything else is left to LLVM. See the System V ABI and its
supplement for x86-64, whose names are used here.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

MAGIC = b"\x7fELF\x02\x01"
"""64 bits, the least byte first."""

RELOCATABLE, X86_64 = 1, 62
SYMTAB, RELA, NOBITS = 2, 4, 8
WRITE, ALLOC = 1, 2
COMMON, LARGE_COMMON, UNDEFINED = 0xFFF2, 0xFF02, 0
R_64, R_PC64 = 1, 24
"""A whole address; a whole distance from the place that holds it."""

READ_AND_RUN = 1 | 4

Find = Callable[[str], int | None]


class Section(NamedTuple):
    """A section's header."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry: int


class Symbol(NamedTuple):
    """An entry of the table of symbols: a place in a section, or, for common ones, an alignment."""

    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


class UnfitError(Exception):
    """An object file that is not of the kind that is read here."""


_images: list[mmap.mmap] = []
"""They hold the code, so live as long as the process."""


def loaded(code: bytes, symbol: str, find: Find) -> int:
    """The address of a function of an object file, brought into memory.

    find: the address of a symbol from outside, None where there is none. Raises UnfitError, and
    OSError where the system gives no memory that may run.
    """
    if not sys.platform.startswith("linux"):
        raise UnfitError("for Linux alone")
    try:
        return Image(code).linked(symbol, find)
    except (struct.error, LookupError, ValueError) as problem:
        raise UnfitError(str(problem)) from None


class Image:
    """An object file laid out in memory."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.sections = _sections(code)
        (table,) = (section for section in self.sections if section.kind == SYMTAB)
        found = struct.iter_unpack("<IBBHQQ", self.content(table))
        self.symbols = [Symbol(*fields) for fields in found]
        self.names = self.content(self.sections[table.link])
        self.size = 0
        self.places = self._places(0)
        self.size = self.sealed = -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.places |= self._places(WRITE)
        self.common = {
            symbol: self._room(symbol.size, symbol.value)
            for symbol in self.symbols
            if symbol.section in (COMMON, LARGE_COMMON)
        }

    def content(self, section: Section) -> bytes:
        """A section's bytes."""
        return self.code[section.offset : section.offset + section.size]

    def name(self, symbol: Symbol) -> str:
        return self.names[symbol.name : self.names.index(0, symbol.name)].decode()

    def _places(self, writable: int) -> dict[int, int]:
        """Room for the sections that are in memory when it runs: those that it writes, or the
        others, which share no page with them."""
        return {
            i: self._room(section.size, section.align)
            for i, section in enumerate(self.sections)
            if section.flags & ALLOC and section.flags & WRITE == writable
        }

    def _room(self, size: int, align: int) -> int:
        """Where so many bytes shall lie."""
        start = -(-self.size // max(align, 1)) * max(align, 1)
        self.size = start + size
        return start

    def linked(self, symbol: str, find: Find) -> int:
        """The address of a function, all of the file being ready to run."""
        image = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(image))
        for i, place in self.places.items():
            section = self.sections[i]
            if section.kind != NOBITS:
                image[place : place + section.size] = self.content(section)
        for section in self.sections:
            if section.kind == RELA and section.info in self.places:
                self._relocate(image, base, section, find)
        called = symbol.encode() + b"\0"
        (wanted,) = (one for one in self.symbols if self.names.startswith(called, one.name))
        _let_run(base, self.sealed)
        _images.append(image)
        return self._address(wanted, base, find)

    def _relocate(self, image: mmap.mmap, base: int, section: Section, find: Find) -> None:
        """Writes the addresses that a section of relocations asks for."""
        for offset, info, addend in struct.iter_unpack("<QQq", self.content(section)):
            at = self.places[section.info] + offset
            value = self._address(self.symbols[info >> 32], base, find) + addend
            kind = info & 0xFFFFFFFF
            if kind not in (R_64, R_PC64):
                raise UnfitError(f"a relocation of kind {kind}")
            if kind == R_PC64:
                value -= base + at
            struct.pack_into("<Q", image, at, value & (1 << 64) - 1)

    def _address(self, symbol: Symbol, base: int, find: Find) -> int:
        if symbol in self.common:
            return base + self.common[symbol]
        if symbol.section != UNDEFINED:
            return base + self.places[symbol.section] + symbol.value
        found = find(self.name(symbol))
        if found is None:
            raise UnfitError(f"nothing here is called {self.name(symbol)}")
        return found


def _sections(code: bytes) -> list[Section]:
    """The headers of a file's sections."""
    kind, machine = struct.unpack_from("<HH", code, 16)
    if code[:6] != MAGIC or (kind, machine) != (RELOCATABLE, X86_64):
        raise UnfitError("not an object file of x86-64")
    (start,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    form = struct.Struct("<IIQQQQIIQQ")
    return [Section(*form.unpack_from(code, start + i * size)) for i in range(count)]


@cache
def _library() -> ctypes.CDLL:
    """The C library, which tells what went wrong."""
    return ctypes.CDLL(None, use_errno=True)


def _let_run(start: int, size: int) -> None:
    """Makes memory readable and runnable, no longer writable. Raises OSError."""
    if _library().mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), READ_AND_RUN):
        raise OSError(ctypes.get_errno(), "memory cannot be made to run")
