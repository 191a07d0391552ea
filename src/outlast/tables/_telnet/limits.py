"""The bounds of the telnet door."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from outlast.tables._telnet.datapoints import REFUSED_KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class PutLimits:
    """The bounds of a `PutServer`. Each says what happens at it. Raises ValueError for one that is not above 0."""

    connections_max: int = 1_000
    """Open connections; one beyond them is closed with a line that says so."""
    connections_per_client_max: int = 200
    """Connections from one address; as above."""
    line_bytes_max: int = 16_384
    """The bytes of a line. A longer one is thrown away to its end, and answered with an error. OpenTSDB has 1,024."""
    batch_max: int = 1_000
    """Lines of one connection that are written at a time, at most 1,000. Meanwhile the next are read, up to `ahead_bytes_max`."""
    ahead_bytes_max: int = 65_536
    """The bytes of lines that wait; then the connection is not read until they have gone: the sender's own buffers fill."""
    unread_bytes_max: int = 65_536
    """The bytes of answers that a client has not read; with more, besides those to one batch, no more lines of it are taken."""
    unread_s: float = 10.0
    """The seconds for which it may leave them unread; then the connection is cut."""
    idle_s: float = 600.0
    """The seconds for which a client may send nothing; then the connection is closed."""
    hold_s: float = 10.0
    """The seconds, since the first refusal, for which lines are held and tried again while the store takes none. After them, and
    until it takes some, lines are refused at once with its first cause."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} must be a number above 0, not {value!r}")
        if self.batch_max > REFUSED_KEPT:
            raise ValueError(f"batch_max is at most {REFUSED_KEPT}, so that each bad line has its answer, not {self.batch_max}")
