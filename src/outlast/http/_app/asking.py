"""The question that a request puts to admission: whose it is, how much it matters, how large it is, until when it is of use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast.admission import Criticality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from outlast.http._app.tokens import Token

    Headers = Iterable[tuple[bytes, bytes]]
    """Names in lower case and values, as ASGI has them."""
    Asking = Callable[[str, str, Headers, str, Token | None], "Ask"]
    """A function with the arguments of `ask`."""

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest body, unless a server is told otherwise."""
DEADLINE_S_MAX: Final = 3600.0
"""The longest deadline that a client may name, in seconds; a longer one counts as this one."""
HEALTH_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz"})
_SECONDS: Final = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_DIGITS_MAX: Final = 18
_CRITICAL: Final = Criticality.CRITICAL
_NORMAL: Final = Criticality.NORMAL
_SHEDDABLE: Final = Criticality.SHEDDABLE


class Ask(NamedTuple):
    """One request, as admission is asked about it. Each field is an argument of `Admission.enter` of the same name."""

    key: str = ""
    """The one whose share and rate it counts against."""
    tenant: str = ""
    """The customer that the key belongs to; a tenant's keys share what the tenant may use."""
    criticality: Criticality = Criticality.NORMAL
    cost: float = 1.0
    """The tokens of the rate that it takes."""
    size_bytes: int | None = 0
    """The memory that it announces to need; None: unknown, since it has a body without a length. Admission is then told the
    largest that a body may be, since no more than that can come."""
    deadline_s: float | None = None
    """The seconds from now within which an answer is of use; None: at any time."""


def ask(method: str, path: str, headers: Headers, client: str, token: Token | None) -> Ask:
    """Return what a request asks for, by the rules that hold unless you write your own function with these arguments.

    The key is the name of the token, or without one the address of the client (`client`, "" if unknown); the tenant is the
    token's. DELETE, which makes room, and the health paths (`/livez`, `/readyz`, `/healthz`) are CRITICAL, the rest NORMAL: a
    header `x-criticality: sheddable` lowers a request, and none raises it. The size is its Content-Length from 1,000 bytes
    on, and unknown for a body that comes in chunks. `x-request-timeout` has the remaining seconds until the client gives up,
    so that no clock has to agree with another; at most an hour. A header that cannot be read counts as absent. Pure and
    quick: a server calls it for each request, before it makes anything.
    """
    known = dict(headers)
    criticality = _CRITICAL if method == "DELETE" or path in HEALTH_PATHS else _NORMAL
    if b"x-criticality" in known and known[b"x-criticality"].strip().lower() == b"sheddable":
        criticality = _SHEDDABLE
    size_bytes: int | None = 0
    if b"transfer-encoding" in known:
        size_bytes = None
    elif b"content-length" in known:
        length = known[b"content-length"]
        # Up to three digits are nothing: a request without a body costs more.
        if 3 < len(length) <= _DIGITS_MAX and length.isdigit():
            size_bytes = int(length)
    deadline_s = None
    if b"x-request-timeout" in known and _SECONDS.fullmatch(known[b"x-request-timeout"]):
        deadline_s = min(float(known[b"x-request-timeout"]), DEADLINE_S_MAX)
    if token is None:
        # What Ask() does, for half the time.
        fields = (client, "", criticality, 1.0, size_bytes, deadline_s)
        return tuple.__new__(Ask, fields)  # pyright: ignore[reportUnknownMemberType] - of the fields' types
    return Ask(token.name, token.tenant, criticality, 1.0, size_bytes, deadline_s)
