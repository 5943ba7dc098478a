"""The command line: one file a command, thin; `main` puts them together."""

from netdsl.cli.main import app, main

__all__ = ["app", "main"]
