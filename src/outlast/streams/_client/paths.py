"""The paths of streams: those of the protocol, and ours beside it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from outlast.streams._model import NAME_BYTES_MAX

PROTOCOL: Final = "/v1/stream"
BESIDE: Final = "/v1/streams"
USAGE: Final = "/v1/usage"
VERIFY: Final = "/v1/verify"
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def checked(name: str) -> str:
    """Return the name of a stream. Raises `ValueError` for one that no URL can have: its path would mean another."""
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"the name of a stream has 1 to {NAME_BYTES_MAX} bytes of UTF-8, not {len(name.encode())}")
    if not {".", ".."}.isdisjoint(name.split("/")):
        raise ValueError(f"the name {name!r} has a part that is a dot or two: in a URL that is another stream")
    if CONTROL.search(name):
        raise ValueError(f"the name {name!r} has control characters")
    return name


def path_of(prefix: str, name: str) -> str:
    """Return the path of a stream in the protocol, in which a slash is one."""
    return f"{prefix}/{quote(name, safe='/')}"


def beside(name: str, *more: str) -> str:
    """Return the path of a stream beside the protocol, in which a slash is part of the name."""
    return "/".join((BESIDE, quote(name, safe=""), *(quote(part, safe="") for part in more)))
