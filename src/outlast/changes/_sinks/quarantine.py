"""The quarantine of transactions that a sink keeps refusing: a file of JSON lines, with the position, for a person to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast import Fault, Kind, OutlastError, Scope
from outlast.changes._sinks.json_lines import as_json, change_lines
from outlast.extend import AppendFile, OwnThread, Sync
from outlast.postgres.replication import format_lsn

if TYPE_CHECKING:
    import os

    from outlast.changes._sinks.port import Delivery

BYTES_MAX: Final = 64 << 20
"""A quarantine takes no more than this: somebody has to look."""


class QuarantineFullError(OutlastError):
    """The quarantine holds all it may: the stream waits rather than lose a change, until somebody has looked."""

    def __init__(self, path: Path, size: int, more: int, limit: int) -> None:
        reason = f"the quarantine {path} holds {size} bytes, and {more} more are over its limit of {limit}"
        hint = "look at what is in it and move it away"
        super().__init__(reason, Fault(Kind.EXHAUSTED, "quarantine full", reason, scope=Scope.CALL, hint=hint))


class Quarantine:
    """Appends refused transactions to a file of mode 0600, of at most `bytes_max` bytes.

    A transaction is on disk when `take` returns, or not in the file. The file is open, and locked, only while one is written: to
    make room move it away. An unfinished last line, which a crash leaves, is cut off first: its transaction comes again.
    """

    def __init__(self, path: str | os.PathLike[str], *, bytes_max: int = BYTES_MAX) -> None:
        """Name the file, which is made when it is first needed."""
        self.path = Path(path)
        self.bytes_max = bytes_max
        self._disk = OwnThread("outlast changes quarantine")

    async def take(self, delivery: Delivery, fault: Fault) -> None:
        """Keep one transaction, or a part of one, with the fault, in a thread of the quarantine's own.

        Raises `QuarantineFullError`, and `OSError` (`BlockingIOError` while another process writes to it).
        """
        await self._disk.run(self._take, delivery, fault)

    def _take(self, delivery: Delivery, fault: Fault) -> None:
        # The reason may quote a row, as do the lines that follow: here is the one place for both.
        head = {
            "op": "refused",
            "xid": delivery.xid,
            "commit_lsn": format_lsn(delivery.commit_lsn),
            "fault": fault.code,
            "reason": fault.reason,
        }
        data = b"".join(map(as_json, [head, *change_lines(delivery)]))
        with AppendFile.open(self.path, sync=Sync.EACH) as file:
            file.cut_line()
            if file.size + len(data) > self.bytes_max:
                raise QuarantineFullError(self.path, file.size, len(data), self.bytes_max)
            file.append(data)
