"""Where transactions go that a sink keeps refusing: a file of JSON lines, with the position, for a person to look at."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast import OutlastError
from outlast.changes.json_sink import as_json, change_lines
from outlast.changes.messages import format_lsn

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.changes.sink import Delivery

BYTES_MAX: Final = 64 << 20
"""Beyond this nothing more is taken: somebody has to look."""


class QuarantineFullError(OutlastError):
    """The quarantine holds all it may; the stream stops rather than lose a change."""


@dataclass(slots=True)
class Trouble:
    """Which transaction the sink refused last, and how often in a row. Kept outside of the session, which begins anew."""

    commit_lsn: int = 0
    count: int = 0
    fault: Fault | None = None
    careful_until: int = 0
    """Up to this position each transaction is flushed alone, to find out which one it is that makes the flush fail."""

    def refused(self, commit_lsn: int, fault: Fault) -> None:
        """Count a refusal: how many in a row there were of this one."""
        self.count = self.count + 1 if commit_lsn == self.commit_lsn else 1
        self.commit_lsn, self.fault = commit_lsn, fault


class Quarantine:
    """Appends refused transactions to a file of mode 0600, of at most `bytes_max` bytes; durable when `take` returns."""

    def __init__(self, path: str | os.PathLike[str], *, bytes_max: int = BYTES_MAX) -> None:
        """Write to `path`, which is made when it is first needed."""
        self.path = Path(path)
        self.bytes_max = bytes_max

    async def take(self, delivery: Delivery, fault: Fault) -> None:
        """Keep one transaction, or a part of one, with the fault. Raises `QuarantineFullError`, OSError."""
        await asyncio.to_thread(self._take, delivery, fault)

    def _take(self, delivery: Delivery, fault: Fault) -> None:
        head = {"op": "refused", "xid": delivery.xid, "commit_lsn": format_lsn(delivery.commit_lsn), "fault": fault.code}
        data = b"".join(map(as_json, [head, *change_lines(delivery)]))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size + len(data) > self.bytes_max:
                msg = (
                    f"the quarantine {self.path} holds {size} bytes, and {len(data)} more are over its limit of "
                    f"{self.bytes_max}: look at what is in it, move it away, and start again"
                )
                raise QuarantineFullError(msg)
            written = 0
            try:
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
