"""The id of a request: the client's, if it is one, otherwise one of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

HEADER: Final = b"x-request-id"
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_id_of(headers: Iterable[tuple[bytes, bytes]], rng: random.Random) -> str:
    """Return the value of the first `x-request-id`, or a new one of 16 hex digits.

    That of a client is taken if it has 1 to 128 letters, digits, dots, hyphens and underscores: it goes into headers, JSON and
    logs as it is.
    """
    for name, value in headers:
        if name == HEADER:
            if _ID.fullmatch(value):
                return value.decode("ascii")
            break
    return f"{rng.getrandbits(64):016x}"
