"""Cancel requests, told apart from other connections by what a client sends first."""

from __future__ import annotations

from collections import deque
from typing import Final

CANCEL_CODE: Final = 80877102
"""CancelRequest of the PostgreSQL protocol (message formats): 1234 in the upper two bytes, 5678 in the lower ones."""
_ENCRYPTION_CODES: Final = (80877103, 80877104)
"""SSLRequest and GSSENCRequest, which a client may send before."""
HEAD_BYTES: Final = 8
"""Length and code, four bytes each. The two requests for encryption are no longer than that."""
_KEPT_MAX: Final = 1_000_000


class Cancels:
    """The times of the cancel requests that a proxy passed on. Given to `FaultProxy` as its `watch`."""

    def __init__(self) -> None:
        self.times_s: deque[float] = deque(maxlen=_KEPT_MAX)
        """The monotonic times at which their connections were opened; the oldest are forgotten beyond a million."""

    def __call__(self, at: float, opening: bytes) -> None:
        """Take what a client has sent so far."""
        if is_cancel_request(opening):
            self.times_s.append(at)


def is_cancel_request(opening: bytes) -> bool:
    """Return whether these bytes are one whole cancel request. Longer keys (protocol 3.2) are known by their length."""
    while len(opening) > HEAD_BYTES:
        length, code = (int.from_bytes(opening[at : at + 4]) for at in (0, 4))
        if code not in _ENCRYPTION_CODES:
            return code == CANCEL_CODE and length == len(opening)
        opening = opening[HEAD_BYTES:]
    return False
