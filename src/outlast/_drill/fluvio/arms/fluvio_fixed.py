"""The arm *fluvio-fixed* of the fluvio drill: a flag is set at the first error of the disk, and nothing ever clears it.

The client that meets the error is told of it, everyone after it something else. Once there is space it takes a restart.
"""

from __future__ import annotations

import asyncio
import os

from outlast._drill.fluvio.arms.log_server import LogSettings, plain_logger, serve_until_terminated
from outlast._drill.fluvio.audit import LINES_FILE
from outlast._drill.fluvio.wire import RECORD_BYTES
from outlast._drill.lab.arm.service import one_line


class NotWritableError(Exception):
    """An earlier append failed."""


class FlaggedLog:
    """Keeps one record a line in one file, and takes back what it could not write whole."""

    def __init__(self, settings: LogSettings) -> None:
        self._log = plain_logger("fluvio-fixed")
        self._descriptor = os.open(settings.disk / LINES_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._size = 0
        self._full = False

    async def append(self, record: bytes) -> int:
        """Write a line. Raises the error of the disk once, and NotWritableError ever after."""
        if self._full:
            msg = "PartitionNotWritable: the partition takes no records"
            raise NotWritableError(msg)
        line, written = record + b"\n", 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as exc:
            self._full = True
            self._log.error("append failed, the partition takes no more: %s", one_line(exc))
            os.ftruncate(self._descriptor, self._size)
            msg = f"PartitionFull: {exc}"
            raise NotWritableError(msg) from exc
        position, self._size = self._size, self._size + len(line)
        return position

    async def read(self, position: int) -> bytes:
        """Read the line that begins there."""
        return os.pread(self._descriptor, RECORD_BYTES, position)


async def main() -> None:
    """Run the arm until SIGTERM."""
    settings = LogSettings.from_environment()
    await serve_until_terminated(FlaggedLog(settings), settings)


if __name__ == "__main__":
    asyncio.run(main())
