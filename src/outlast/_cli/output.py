"""Output that scripts and people read: JSON that any output takes, one line for what was done, and readers that leave."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from outlast.extend import clean

if TYPE_CHECKING:
    from collections.abc import Generator

EXIT_UNREAD: Final = 141
"""Nobody reads the output: 128 and SIGPIPE."""

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")


def say(value: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print what was done: one object, or one line."""
    click.echo(dumps(value) if as_json else clean(text))


def dumps(value: object, indent: int | None = None) -> str:
    """Return JSON, of which each character can be written to any output."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextlib.contextmanager
def printing() -> Generator[None]:
    """Print something long: when nobody reads it any more the command ends, with 141 and without a word, as `cat` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would be written, and complained about, at the end of the process.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_UNREAD) from None
