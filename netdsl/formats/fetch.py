"""Files from the net by pooch, whole or not at all: broken downloads go on where they stopped.

pooch by itself starts again at the beginning, and wants the whole checksum where published weights
give its first eight digits, in their names. So it is given a downloader that writes beside, as
`NAME.part`, until the file is whole and its checksum is right.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from netdsl.faults import NetError, error

PIECE = 1 << 18

PATIENCE = 30
"""Seconds without an answer after which a connection is given up."""

LARGEST = 4 << 30
"""Bytes of a file that is fetched; VGG-19's weights have 575 million."""

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes in all, 0 where nobody knows."""


def fetch(url: str, to: Path, digest: str, progress: Progress | None = None) -> Path:
    """Fetches a file unless it is there, and checks the beginning of its checksum.

    digest: the first digits of its SHA-256, in hexadecimal, or of another sum: `md5:` and so on.
    Raises NetError: no connection, no such file there, no space, or a file that is not the one it
    should be, which is removed.
    """
    if to.is_file():
        return to
    part = to.with_name(f"{to.name}.part")
    import pooch

    pooch.get_logger().setLevel("WARNING")

    def download(url: str, output: str, _: object) -> None:
        _download(url, part, progress)
        _check(url, part, digest)
        part.replace(output)

    try:
        pooch.retrieve(url, None, to.name, to.parent, downloader=download)
    except urllib.error.HTTPError as problem:
        problem.close()
        raise error("cannot-fetch", f"{url} cannot be fetched: {problem}") from None
    except urllib.error.URLError as problem:
        raise _no_connection(url, str(problem.reason), to) from None
    except (http.client.HTTPException, TimeoutError, ConnectionError) as problem:
        raise _no_connection(url, str(problem) or type(problem).__name__, to) from None
    except OSError as problem:
        said = problem.strerror or str(problem)
        raise error("cannot-write", f"{part} cannot be written: {said}") from None
    return to


def _check(url: str, part: Path, digest: str) -> None:
    """That a file is the one it should be; one that is not is removed. Raises NetError."""
    kind, _, wanted = digest.rpartition(":")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, kind or "sha256").hexdigest()
    if not found.startswith(wanted):
        part.unlink()
        raise error(
            "wrong-checksum",
            f"{url} gave a file whose checksum begins with {found[:8]}, not {wanted[:8]}",
            help="it was removed; try again, or fetch it another way",
        )


def _no_connection(url: str, said: str, to: Path) -> NetError:
    return error(
        "cannot-fetch",
        f"{url} cannot be fetched: {said}",
        help=f"what is there already is kept, try again; or put the file at {to}",
    )


def _download(url: str, part: Path, progress: Progress | None) -> None:
    """Writes what of the file is not there yet."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "netdsl"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as problem:
        if problem.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # All of it is there, or more than all; the checksum tells.
        problem.close()
        return
    with answer:
        goes_on = answer.status == http.client.PARTIAL_CONTENT
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length") or ""
        total = have + int(length) if length.isdecimal() else 0
        _room(part, total - have, total)
        with part.open("ab" if goes_on else "wb") as file:
            _copy(answer, file, have, total, progress)


def _room(part: Path, more: int, total: int) -> None:
    """That there is space for what comes. Raises NetError."""
    if total > LARGEST:
        raise error(
            "too-large", f"{part.stem} has {total:,} bytes, at most {LARGEST:,} are fetched"
        )
    free = shutil.disk_usage(part.parent).free
    if more > free:
        raise error(
            "no-space", f"{part.parent} has {free:,} bytes free, {part.stem} needs {more:,} more"
        )


def _copy(
    answer: IO[bytes], file: IO[bytes], have: int, total: int, progress: Progress | None
) -> None:
    while piece := answer.read(PIECE):
        file.write(piece)
        have += len(piece)
        if have > LARGEST:
            raise error("too-large", f"the file goes on after {LARGEST:,} bytes")
        if progress is not None:
            progress(have, total)
    if have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")
