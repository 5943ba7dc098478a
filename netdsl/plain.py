"""Text from files as it may reach a terminal or a table."""

from __future__ import annotations


def clean(text: str) -> str:
    """Text that a terminal shows as it is: no tabs, no control characters, one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\t\n\r" else "\ufffd" for c in text)
