"""PyTorch's .pth and .pt files: state dicts, checkpoints and TorchScript archives, as tensors.

Nothing of PyTorch is needed and nothing in a file is run, see `pickles`. A zip file's tensors are
read one at a time, when they are asked for; a zip member is taken only where it is stored plain, as
PyTorch does, so that no few bytes can unfold into many.
"""

from __future__ import annotations

import io
import math
import mmap
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netdsl.faults import error
from netdsl.formats import pickles
from netdsl.formats.finite import check_finite
from netdsl.formats.pickles import Module, Storage, View
from netdsl.ops import Shape

Bytes = NDArray[np.uint8]

KINDS: dict[str, np.dtype[Any]] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.float32": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.float64": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.float16": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype("<u2"),
    "torch.bfloat16": np.dtype("<u2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.int64": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.int32": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("<i1"),
    "torch.ByteStorage": np.dtype("<u1"),
    "torch.BoolStorage": np.dtype("<u1"),
}
"""How the numbers of each kind lie in the file."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state")
"""Where checkpoints keep the state dict."""

MOST_TENSORS = 100_000

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

LARGEST_PICKLE = 256 << 20


class Holder(Protocol):
    """A container of storages."""

    def storage(self, storage: Storage, width: int) -> Bytes: ...


class TorchFile:
    """An opened file of PyTorch's: the shapes of its tensors, and their numbers on demand.

    A checkpoint's tensors are those of its state dict; a prefix `module.` that all share is
    dropped. Raises NetError when made: no such file, not PyTorch's, broken off, corrupt, or a
    pickle that holds more than tensors.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._holder, content = _opened(self.path)
        self._views = _named(content, self.path)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each tensor, in the file's order."""
        return {name: view.shape for name, view in self._views.items()}

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's numbers in single precision.

        Raises NetError: a kind of number that is not known, a tensor that reaches beyond its
        storage, a number that is not finite.
        """
        view = self._views[name]
        called = f"{self.path}: {name}"
        kind = KINDS.get(view.storage.kind)
        if kind is None:
            raise error("wrong-kind", f"{called} holds {view.storage.kind}, no numbers known here")
        flat = self._holder.storage(view.storage, kind.itemsize)
        numbers = _viewed(
            flat[: len(flat) // kind.itemsize * kind.itemsize].view(kind), view, called
        )
        if view.storage.kind in ("torch.BFloat16Storage", "torch.bfloat16"):
            # The upper half of a float32.
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        values = np.array(numbers, np.float32, order="C")
        check_finite(values, called)
        return values


def _viewed(flat: NDArray[Any], view: View, called: str) -> NDArray[Any]:
    """The tensor in its storage. Raises NetError where it reaches beyond."""
    last = sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True))
    count = math.prod(view.shape)
    if count == 0:
        return np.zeros(view.shape, flat.dtype)
    if view.offset + last >= len(flat) or count > len(flat):
        raise error(
            "corrupt",
            f"{called} is corrupt: it says {count:,} numbers, its storage holds {len(flat):,}",
        )
    strides = tuple(s * flat.itemsize for s in view.stride)
    return np.lib.stride_tricks.as_strided(
        flat[view.offset :], view.shape, strides, writeable=False
    )


# Containers ---------------------------------------------------------------------------------------


def _opened(path: Path) -> tuple[Holder, Any]:
    """The file's storages and the value of its pickle."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            if size == 0:
                raise error("not-weights", f"{path} is empty")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise error("no-such-file", f"there is no weights file {path}") from None
    except OSError as problem:
        raise error("unreadable", f"{path} cannot be read: {problem.strerror}") from None
    if mapped[:4] == b"PK\x03\x04":
        return _zipped(path, mapped)
    if mapped[:1] != b"\x80":
        raise error("not-weights", f"{path} is not a file of PyTorch")
    return _legacy(path, mapped)


@dataclass(frozen=True)
class Zipped:
    """The zip file that PyTorch writes since version 1.6."""

    path: Path
    archive: zipfile.ZipFile
    folder: str

    def member(self, name: str, limit: int) -> bytes:
        """A member's bytes, its checksum compared. Raises NetError."""
        called = f"{self.folder}{name}"
        try:
            info = self.archive.getinfo(called)
        except KeyError:
            raise error("corrupt", f"{self.path} is corrupt: it lacks {called}") from None
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise error(
                "corrupt",
                f"{self.path} is refused: {called} is compressed, which PyTorch never does",
            )
        if info.file_size > limit:
            raise error("too-large", f"{self.path}: {called} has {info.file_size:,} bytes")
        try:
            return self.archive.read(info)
        except (
            zipfile.BadZipFile,
            EOFError,
            OSError,
            RuntimeError,
            ValueError,
            NotImplementedError,
        ):
            raise error(
                "corrupt", f"{self.path} is corrupt: {called} cannot be read whole"
            ) from None

    def storage(self, storage: Storage, width: int) -> Bytes:
        size = self.path.stat().st_size
        return np.frombuffer(self.member(f"data/{storage.key}", size), np.uint8)


def _zipped(path: Path, mapped: mmap.mmap) -> tuple[Holder, Any]:
    try:
        archive = zipfile.ZipFile(path)
        names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        raise error("truncated", f"{path} is broken off, or corrupt: its zip has no end") from None
    finally:
        mapped.close()
    folder = next((n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")), None)
    if folder is None:
        raise error("not-weights", f"{path} is a zip file, but not one of PyTorch's")
    holder = Zipped(path, archive, folder)
    if f"{folder}byteorder" in names and holder.member("byteorder", 16) != b"little":
        raise error("wrong-kind", f"{path} holds numbers in another byte order")
    content = holder.member("data.pkl", LARGEST_PICKLE)
    return holder, pickles.load(io.BytesIO(content), str(path))


@dataclass(frozen=True)
class Legacy:
    """The one stream that PyTorch wrote before version 1.6: pickles, then each storage's bytes."""

    path: Path
    mapped: mmap.mmap
    places: Mapping[str, tuple[int, int]]

    def storage(self, storage: Storage, width: int) -> Bytes:
        if storage.key not in self.places:
            raise error("corrupt", f"{self.path} is corrupt: it lacks the storage {storage.key}")
        start, count = self.places[storage.key]
        end = start + count * width
        if end > len(self.mapped):
            raise error(
                "truncated",
                f"{self.path} is broken off: {len(self.mapped):,} of at least {end:,} bytes",
            )
        return np.frombuffer(self.mapped, np.uint8, count * width, start)


def _legacy(path: Path, mapped: mmap.mmap) -> tuple[Holder, Any]:
    stream: IO[bytes] = mapped  # type: ignore[assignment]
    if pickles.load(stream, str(path)) != LEGACY_MAGIC:
        raise error("not-weights", f"{path} is a pickle, but not one of PyTorch's")
    _, _, content, keys = (pickles.load(stream, str(path)) for _ in range(4))
    widths = {s.key: KINDS[s.kind].itemsize for s in _storages(content) if s.kind in KINDS}
    places: dict[str, tuple[int, int]] = {}
    at = mapped.tell()
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(mapped[at : at + 8], "little")
        places[str(key)] = (at + 8, count)
        at += 8 + count * widths.get(str(key), 0)
        if at > len(mapped):
            break
    return Legacy(path, mapped, places), content


def _storages(content: Any) -> Iterator[Storage]:
    return (view.storage for _, view in _tensors(content))


# Names --------------------------------------------------------------------------------------------


def _named(content: Any, path: Path) -> dict[str, View]:
    """The tensors of a file by name. Raises NetError where there are none, or too many."""
    if isinstance(content, dict) and not any(isinstance(v, View) for v in content.values()):
        inner = [content[k] for k in WRAPPERS if isinstance(content.get(k), dict | Module)]
        content = inner[0] if inner else content
    found: dict[str, View] = {}
    for name, view in _tensors(content):
        if len(found) >= MOST_TENSORS:
            raise error("too-large", f"{path} holds more than {MOST_TENSORS:,} tensors")
        found[name] = view
    if not found:
        raise error("not-weights", f"{path} holds no tensors")
    if all(name.startswith("module.") for name in found):
        # torch.nn.DataParallel puts it before every name.
        found = {name.removeprefix("module."): view for name, view in found.items()}
    return found


def _tensors(content: Any) -> Iterator[tuple[str, View]]:
    """Every tensor with the keys that lead to it, joined by dots."""
    todo = [("", content, 0)]
    visited = 0
    while todo:
        name, value, depth = todo.pop()
        visited += 1
        if visited > 10 * MOST_TENSORS or depth > 100:
            raise error("corrupt", "the file nests its tensors too deep to be a state dict")
        if isinstance(value, View):
            yield name, value
            continue
        inside = value.attributes if isinstance(value, Module) else value
        if isinstance(inside, dict):
            todo += [
                (f"{name}.{key}" if name else str(key), one, depth + 1)
                for key, one in reversed(inside.items())
            ]
