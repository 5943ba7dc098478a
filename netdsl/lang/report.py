"""Where faults are gathered while a text is read on."""

from __future__ import annotations

from netdsl.faults import Call, Fault, Source, Span


class Full(Exception):  # noqa: N818 - not an error, a reason to stop reading
    """There are as many faults as anyone wants to see, or going on makes no sense."""


class Report:
    """The faults found so far; the same fault at the same place counts once."""

    def __init__(self, source: Source, most: int) -> None:
        self.source = source
        self.faults: list[Fault] = []
        self.errors = 0
        self._most = most
        self._seen: set[tuple[str, int, int]] = set()

    def span(self, start: int, end: int) -> Span:
        """A span of this text."""
        return Span(self.source, start, end)

    def error(
        self,
        code: str,
        message: str,
        span: Span | None,
        help: str | None = None,
        trail: tuple[Call, ...] = (),
    ) -> None:
        """Adds an error. Raises Full when there are enough."""
        self.add(Fault(code, message, span, help, trail=trail))

    def warning(self, code: str, message: str, span: Span | None, help: str | None = None) -> None:
        """Adds a warning."""
        self.add(Fault(code, message, span, help, severity="warning"))

    def add(self, fault: Fault) -> None:
        """Adds a fault, unless its like was found at the same place. Raises Full."""
        span = fault.span
        key = (fault.code, span.start, span.end) if span else (fault.code, -1, -1)
        if key in self._seen:
            return
        self._seen.add(key)
        self.faults.append(fault)
        self.errors += fault.severity == "error"
        if len(self.faults) >= self._most:
            message = f"more than {self._most} faults; the rest of the text was not read"
            self.faults.append(Fault("too-many-faults", message, file=self.source.file))
            self.errors += 1
            raise Full

    def sorted(self) -> tuple[Fault, ...]:
        """All faults in the order of the text, those without a place last."""
        last = len(self.source.text) + 1
        return tuple(sorted(self.faults, key=lambda f: f.span.start if f.span else last))
