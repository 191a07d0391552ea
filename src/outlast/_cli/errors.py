"""A user's mistake as one line on stderr and an exit code of sysexits.h."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import IO, Any, Final

import click

from outlast._core.redact import redact
from outlast.logs._last_words import bounded

SHOW_S: Final = 2.0


class Exit(IntEnum):
    """Exit codes of the command itself; `outlast up` ends with those of `outlast.run` as well."""

    REFUSED = 1
    USAGE = 64
    NO_INPUT = 66
    UNAVAILABLE = 69
    SKIPPED = 77
    """As in automake: nothing was tested, because the machine does not allow it."""
    CONFIGURATION = 78
    INTERRUPTED = 130


class CommandError(click.ClickException):
    """Ends the command: one line on stderr without secrets, and its exit code."""

    def __init__(self, message: str, code: Exit) -> None:
        """Say what was attempted, on what, the value seen and the next step."""
        super().__init__(" ".join(redact(message).split()))
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line; a stderr that nobody reads does not keep the process from its exit code."""
        if not bounded(lambda: click.echo(f"outlast: {self.message}", file=file, err=file is None), SHOW_S):
            os._exit(self.code)
