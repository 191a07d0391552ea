"""The arm *naive* of the fluvio drill: each request is tried on the disk, and each failure is logged. Nothing is learnt from one.

The file is Python's own, buffered and flushed after each record: what it could not write stays in the buffer, although it was
refused, and the next flush tries it again.
"""

from __future__ import annotations

import asyncio

from outlast._drill.fluvio.arms.log_server import LogSettings, plain_logger, serve_until_terminated
from outlast._drill.fluvio.audit import LINES_FILE
from outlast._drill.fluvio.wire import RECORD_BYTES
from outlast._drill.lab.arm.service import one_line


class NaiveLog:
    """Keeps one record a line in one file."""

    def __init__(self, settings: LogSettings) -> None:
        self._log = plain_logger("naive")
        self._file = (settings.disk / LINES_FILE).open("ab")

    async def append(self, record: bytes) -> int:
        """Write a line. Raises the error of the disk."""
        try:
            position = self._file.tell()
            self._file.write(record + b"\n")
            self._file.flush()
        except OSError as exc:
            self._log.error("append failed: %s", one_line(exc))
            raise
        return position

    async def read(self, position: int) -> bytes:
        """Read the line that begins there."""
        with open(self._file.name, "rb") as file:  # noqa: ASYNC230, PTH123  naive, and its name is all it knows
            file.seek(position)
            return file.read(RECORD_BYTES)


async def main() -> None:
    """Run the arm until SIGTERM."""
    settings = LogSettings.from_environment()
    await serve_until_terminated(NaiveLog(settings), settings)


if __name__ == "__main__":
    asyncio.run(main())
