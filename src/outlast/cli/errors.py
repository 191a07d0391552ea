"""A user's mistake as one line on stderr and an exit code of sysexits.h."""

from __future__ import annotations

from enum import IntEnum
from typing import IO, Any

import click

from outlast.core.redact import redact


class Exit(IntEnum):
    """Exit codes of the command itself; `outlast up` gives those of `outlast.run` beside them."""

    USAGE = 64
    NO_INPUT = 66
    UNAVAILABLE = 69
    CONFIGURATION = 78
    INTERRUPTED = 130


class CommandError(click.ClickException):
    """Ends the command: one line on stderr without secrets, and its exit code."""

    def __init__(self, message: str, code: Exit) -> None:
        """Say what was attempted, on what, the value seen and the next step."""
        super().__init__(" ".join(redact(message).split()))
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line."""
        click.echo(f"outlast: {self.message}", file=file, err=file is None)
