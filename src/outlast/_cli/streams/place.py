"""The place that a command is about: a folder, or the URL of a node, with the token that opens it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    _Places = click.ParamType["Path | Url"]
else:
    # Older versions of click have no type argument here.
    _Places = click.ParamType

TOKEN_VARIABLE: Final = "OUTLAST_STREAMS_TOKEN"  # noqa: S105 - a name
TOKEN_BYTES_MAX: Final = 8 << 10
_TOKEN_FILE: Final = "outlast.streams.token_file"  # noqa: S105 - a key
_SCHEMES: Final = ("http://", "https://")
_ONE_WORD: Final = re.compile("[!-~]+")


@dataclass(frozen=True, slots=True)
class Url:
    """A node by its URL. The token is never printed."""

    url: str
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.url


class Place(_Places):
    """A folder, or what begins as a URL does."""

    name = "folder or URL"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path | Url:
        """Return it; a usage error for a URL that holds a secret, and for a token where there is nothing to open."""
        if isinstance(value, Path | Url):
            return value
        text, file = str(value), None if ctx is None else ctx.meta.get(_TOKEN_FILE)
        if not text.lower().startswith(_SCHEMES):
            if file is not None:
                self.fail(f"--token-file is for the URL of a node, and {text!r} is a folder", param, ctx)
            return Path(text)
        if "@" in urlsplit(text).netloc:
            self.fail("a URL with a user or a password is seen by everyone who lists processes; use --token-file", param, ctx)
        try:
            return Url(text.rstrip("/"), token_of(file))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def token_of(file: Path | None) -> str | None:
    """Return the token in a file, or that of the environment, or None. Raises `ValueError`, which does not quote it."""
    if file is None:
        where, text = f"${TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE, "")
        if not text:
            return None
    else:
        where = str(file)
        try:
            with file.open(encoding="utf-8") as opened:
                text = opened.read(TOKEN_BYTES_MAX + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the token in {where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if _ONE_WORD.fullmatch(text.strip()) is None or len(text) > TOKEN_BYTES_MAX:
        raise ValueError(f"{where} holds no token: it is one word of ASCII, of at most {TOKEN_BYTES_MAX} bytes")
    return text.strip()


def _keep(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    del param
    ctx.meta[_TOKEN_FILE] = value


def place_argument(metavar: str = "FOLDER|URL") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the place, and the file of its token, which is read before."""
    token_file = click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_keep,
        help=f"The token for a URL; without, from ${TOKEN_VARIABLE}.",
    )
    argument = click.argument("place", type=Place(), metavar=metavar)
    return lambda command: argument(token_file(command))
