"""A Darknet .cfg as its sections: `[convolutional]` and the `key=value` lines under it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from netdsl.faults import Fault, NetError, Source, Span, error

LARGEST = 4 << 20
"""Bytes of a .cfg; the largest known ones have under 100,000."""

MOST = 20_000
"""Sections of a .cfg."""


def broken(message: str) -> NetError:
    """The error for a file that contradicts itself."""
    return error("bad-darknet", message)


@dataclass
class Section:
    """One section: its name without brackets, its settings, and where it begins."""

    kind: str
    span: Span
    settings: dict[str, str] = field(default_factory=dict)

    def integer(self, name: str, default: int) -> int:
        """A whole number. Raises NetError where it is none."""
        text = self.settings.get(name)
        if text is None:
            return default
        if len(text) > 12 or not text.removeprefix("-").isdecimal():
            raise self._wrong(name, "a whole number")
        return int(text)

    def number(self, name: str, default: float) -> float:
        text = self.settings.get(name)
        if text is None:
            return default
        try:
            return float(text)
        except ValueError:
            raise self._wrong(name, "a number") from None

    def integers(self, name: str) -> list[int]:
        """Whole numbers with commas between."""
        found = []
        for text in self.settings.get(name, "").split(","):
            if len(text) > 12 or not text.removeprefix("-").isdecimal():
                raise self._wrong(name, "whole numbers with commas between")
            found.append(int(text))
        return found

    def text(self, name: str, default: str) -> str:
        return self.settings.get(name, default)

    def _wrong(self, name: str, wanted: str) -> NetError:
        said = self.settings.get(name, "")[:40]
        message = f"{name} of [{self.kind}] is {said!r}, but should be {wanted}"
        return NetError(Fault("bad-darknet", message, self.span, file=self.span.source.file))


def read_sections(path: Path) -> list[Section]:
    """The sections of a .cfg file. Raises NetError: no such file, too large, no text, or a line
    that is neither a section, a setting nor a comment."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise error("too-large", f"{path} has {size:,} bytes, a .cfg at most {LARGEST:,}")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error("no-such-file", f"there is no file {path}") from None
    except OSError as problem:
        raise error("unreadable", f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise error("not-text", f"{path} is not a text file, so it is no .cfg") from None
    return parse_sections(text, str(path))


def parse_sections(text: str, file: str | None = None) -> list[Section]:
    """The sections of a text. Raises NetError with the place of the first line that is wrong."""
    source = Source(text, file)
    sections: list[Section] = []
    start = 0
    for line in text.splitlines(keepends=True):
        span = Span(source, start, start + len(line.rstrip()))
        start += len(line)
        # Darknet drops every space and tab, and knows no comment behind a setting.
        content = line.translate({ord(c): None for c in " \t\r\n"})
        if not content or content[0] in "#;":
            continue
        if content[0] == "[" and content[-1] == "]":
            sections.append(Section(content[1:-1], span))
            if len(sections) > MOST:
                raise error("too-large", f"{file} has more than {MOST:,} sections")
            continue
        name, equals, value = content.partition("=")
        if not equals or not sections:
            message = f"{content[:40]!r} is neither a [section] nor a setting of one"
            raise NetError(Fault("bad-darknet", message, span, file=file))
        sections[-1].settings[name] = value
    if not sections or sections[0].kind not in ("net", "network"):
        raise broken(f"{file or 'the text'} is no .cfg of Darknet: it does not begin with [net]")
    return sections
