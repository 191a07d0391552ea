"""The group of commands, and what they have in common: the folder, its errors, and who holds it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from outlast import ConfigurationError, OutlastError, Unavailable
from outlast._cli.database import silence
from outlast._cli.errors import CommandError, Exit
from outlast._cli.output import as_json_option
from outlast._cli.streams.place import TOKEN_VARIABLE, Url, place_argument

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

LOCK_NAME: Final = "outlast-streams.lock"
LOCKS: Final = Path("/proc/locks")
PROCESSES: Final = Path("/proc")
COMMAND_CHARS_MAX: Final = 60

on_place = place_argument()
stream_argument = click.argument("stream")


@click.group()
def streams() -> None:
    """Look at the streams in a folder or of a node, act on them, and serve them.

    FOLDER is what the service has as `Streams(FOLDER)`. ls, cat, tail, cursors and verify only look, and may be used while the
    service runs; append, trim and verify --repair hold the folder, so they need it stopped.

    URL is that of a node, such as one that serve runs: http://127.0.0.1:4437. Everything but verify --repair works with it.

    Example: outlast streams append --create ./data orders "hello"

    outlast streams cat ./data orders
    """


def on_stream(command: Callable[..., int]) -> Callable[..., int]:
    """Add what names one stream to a command."""
    return on_place(stream_argument(as_json_option(command)))


@contextlib.contextmanager
def explained(act: str, place: Path | Url, stream: str | None = None) -> Generator[None]:
    """Turn what goes wrong into one line and an exit code: 66 for what is not there, 69 for the rest."""
    what = f"cannot {act} {f'stream {stream!r} in ' if stream else ''}{place}"
    try:
        with silence() if isinstance(place, Url) else contextlib.nullcontext():
            yield
    except FileNotFoundError as error:
        raise CommandError(f"{what}: there is no {error.filename or 'such folder'}", Exit.NO_INPUT) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{what}: {error.strerror or error}", Exit.UNAVAILABLE) from error
    except OutlastError as error:
        if isinstance(place, Url):
            raise CommandError(f"{what}: {_not_let_in(error) or _reason(error, place, stream)}", _code_of_node(error)) from error
        raise CommandError(f"{what}: {_reason(error, place, stream)}", _code(error)) from error
    except ImportError as error:
        raise CommandError(f'{what}: {error}; pip install "outlast[streams]"', Exit.CONFIGURATION) from error
    except ValueError as error:
        raise CommandError(f"{what}: {error}", Exit.USAGE) from error


def _reason(error: OutlastError, place: Path | Url, stream: str | None) -> str:
    from outlast.streams import DamagedError

    if isinstance(place, Path) and isinstance(error, ConfigurationError) and (holder := holder_of(place / LOCK_NAME)):
        return f"it is in use by {holder}; stop that first"
    if isinstance(place, Url) and isinstance(error, Unavailable):
        return f"{error.fault.code}: {error.fault.reason}"
    reason = str(error).removeprefix(f"stream {stream!r}: ")
    if isinstance(error, DamagedError) and error.next is not None:
        reason += f"; go on behind it with --from {error.next}"
    return reason


def _not_let_in(error: OutlastError) -> str:
    """Return the reason for which a node lets nobody in with this token, or with none; empty for another error."""
    from outlast.http import AnswerError

    match error:
        case AnswerError(status=401):
            return f"it lets in nobody without a token that it knows (401); use --token-file or ${TOKEN_VARIABLE}"
        case AnswerError(status=403):
            return "the token has not the scope that this needs (403): read to look, write for the rest"
        case _:
            return ""


def _code_of_node(error: OutlastError) -> Exit:
    # Nobody holds a node, so its settings are wrong: a URL, a token.
    return Exit.CONFIGURATION if isinstance(error, ConfigurationError) or _not_let_in(error) else _code(error)


def _code(error: OutlastError) -> Exit:
    from outlast.extend import NewerFormatError
    from outlast.streams import OutcomeUnknownError, StreamNotFoundError

    match error:
        case StreamNotFoundError():
            return Exit.NO_INPUT
        case OutcomeUnknownError():
            # Nobody has refused it.
            return Exit.UNAVAILABLE
        case NewerFormatError():
            return Exit.CONFIGURATION
        case Unavailable() | ConfigurationError():
            return Exit.UNAVAILABLE
        case _:
            return Exit.REFUSED


def holder_of(lock: Path) -> str:
    """Return who holds a lock file, as the kernel lists it: `process 71 (python shop.py)`. Empty if that cannot be found out."""
    try:
        found = lock.stat()
        place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        lines = [line.split() for line in LOCKS.read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        return ""
    # "1: FLOCK  ADVISORY  WRITE 71 00:2b:3211 0 EOF"; those who wait for it have an arrow.
    holders = [words[4] for words in lines if len(words) > 5 and words[1:4:2] == ["FLOCK", "WRITE"] and words[5] == place]
    if not holders or int(holders[0]) <= 0:
        return ""
    try:
        command = (PROCESSES / holders[0] / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = ""
    return f"process {holders[0]}" + (f" ({command[:COMMAND_CHARS_MAX]})" if command else "")
