"""A sink that writes JSON lines: to a file that is its own record of the position, or to standard output."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from outlast.changes._decoding.messages import UNCHANGED, Delete, Insert, Truncate, Update
from outlast.extend import AppendFile, OwnThread, Sync
from outlast.postgres.replication import format_lsn, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.changes._decoding.messages import Change
    from outlast.changes._sinks.port import Delivery

TAIL_BYTES: Final = 1 << 20
"""Bytes of the end of a file that are read at a time to find the last commit."""
_COMMIT: Final = b'{"op":"commit",'
"""The beginning of the line of a commit, and of no other: inside a value its quotes would be escaped."""
_COMMIT_BYTES_MAX: Final = 256
BUFFER_BYTES_MAX: Final = 4 << 20
"""Bytes that are written at a time; a large transaction goes out piece by piece."""


def change_lines(delivery: Delivery) -> Iterator[dict[str, Any]]:
    """Yield the lines of one transaction, or of a part of it; the last one is its commit."""
    for change in delivery.changes:
        yield {"xid": delivery.xid, **change_as_dict(change)}
    if delivery.end_lsn is not None:
        yield {
            "op": "commit",
            "xid": delivery.xid,
            "lsn": format_lsn(delivery.end_lsn),
            "at": delivery.commit_at.isoformat(),
        }


def change_as_dict(change: Change) -> dict[str, Any]:
    """Return one change in JSON's types. A large value that an update left alone is missing in `new` and named in `unchanged`."""
    if isinstance(change, Insert):
        return {"op": "insert", "table": change.relation.qualified_name, "new": change.as_dict()}
    if isinstance(change, Update):
        new = change.as_dict()
        line: dict[str, Any] = {"op": "update", "table": change.relation.qualified_name, "old": change.old_as_dict()}
        kept = [name for name, value in new.items() if value is UNCHANGED]
        line["new"] = {name: value for name, value in new.items() if value is not UNCHANGED}
        return {**line, "unchanged": kept} if kept else line
    if isinstance(change, Delete):
        return {"op": "delete", "table": change.relation.qualified_name, "old": change.old_as_dict()}
    if isinstance(change, Truncate):
        return {"op": "truncate", "tables": [relation.qualified_name for relation in change.relations]}
    return {"op": "message", "prefix": change.prefix, "content": base64.b64encode(change.content).decode()}


def as_json(line: dict[str, Any]) -> bytes:
    """Return one line of JSON; values for which JSON has no type are text, and bytes are base64."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=_plain).encode() + b"\n"


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


class JsonLinesSink:
    """Appends each change as a line to a file, and each commit as `{"op":"commit","lsn":…}`: the position is in the file.

    A program that reads the file as it grows sees each change at least once; one that reads up to the last commit sees it
    exactly once: a transaction without its commit is cut off at the next `open`. The file is locked (flock): the fault of a
    second sink is `CONTENDED`. A write that fails is taken back, and `flush` is an fsync; after one that failed the sink has to
    be opened again. All of it is done in a thread of the sink's own. To cancel a method ends the waiting at once, not the work,
    and `close` waits for that.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file; `open` makes it if it is not there, but not its directory."""
        self.path = Path(path)
        self._file: AppendFile | None = None
        self._disk = OwnThread("outlast changes json lines")
        """The one thread that touches the file."""
        self._complete_lsn = 0
        self._durable_lsn = 0

    async def open(self, stream: str, epoch: int) -> int:
        """Find the last commit, cut off what follows it, and return its position; 0 if there is none. Raises `OSError`."""
        del stream, epoch
        await self._disk.run(self._open)
        return self._durable_lsn

    async def write(self, delivery: Delivery) -> None:
        """Append a transaction or a part of one. Raises `OSError`."""
        await self._disk.run(self._write, delivery)
        if delivery.end_lsn is not None:
            self._complete_lsn = delivery.end_lsn

    async def flush(self) -> int:
        """Wait until all that was written is on disk, and return the position of the last commit there. Raises `OSError`."""
        if self._complete_lsn != self._durable_lsn:
            complete = self._complete_lsn
            await self._disk.run(self._opened().sync)
            self._durable_lsn = complete
        return self._durable_lsn

    async def close(self) -> None:
        """Close the file, once the work that was under way has ended."""
        await self._disk.run(self._close)
        self._disk.close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        file = AppendFile.open(self.path, sync=Sync.ASKED)
        try:
            size, self._durable_lsn = _last_commit(file)
            file.cut(size)
        except BaseException:
            file.close()
            raise
        self._file = file
        self._complete_lsn = self._durable_lsn

    def _write(self, delivery: Delivery) -> None:
        file = self._opened()
        pieces: list[bytes] = []
        size = 0
        for line in map(as_json, change_lines(delivery)):
            pieces.append(line)
            size += len(line)
            if size >= BUFFER_BYTES_MAX:
                file.append(b"".join(pieces))
                pieces, size = [], 0
        file.append(b"".join(pieces))

    def _opened(self) -> AppendFile:
        if self._file is None:
            raise RuntimeError(f"the file {self.path} is not open")
        return self._file


def _last_commit(file: AppendFile) -> tuple[int, int]:
    """Return the byte at which the last whole commit line ends, and its position; (0, 0) if there is none."""
    end, overlap = file.size, b""
    while end > 0:
        begin = max(0, end - TAIL_BYTES)
        block = file.read(begin, end - begin) + overlap
        at = block.rfind(_COMMIT)
        while at >= 0:
            line_end = block.find(b"\n", at)
            if line_end >= 0 and (begin + at == 0 or block[at - 1 : at] == b"\n"):
                return begin + line_end + 1, parse_lsn(json.loads(block[at:line_end])["lsn"])
            at = block.rfind(_COMMIT, 0, at)
        overlap, end = block[:_COMMIT_BYTES_MAX], begin
    return 0, 0


class StdoutSink:
    """Writes the same lines to standard output. It has no position of its own: a change that the pipe took is done."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._pipe = OwnThread("outlast changes standard output")
        self._complete_lsn = 0

    async def open(self, stream: str, epoch: int) -> int:
        """Return 0: nothing is known of earlier changes, and the slot's own position counts."""
        del stream, epoch
        return 0

    async def write(self, delivery: Delivery) -> None:
        """Write the lines, and wait until the pipe has taken them. Raises `OSError`."""
        data = b"".join(map(as_json, change_lines(delivery)))
        await self._pipe.run(_write_all, self._descriptor, data)
        if delivery.end_lsn is not None:
            self._complete_lsn = delivery.end_lsn

    async def flush(self) -> int:
        """Return the end of the last whole transaction: it is written already."""
        return self._complete_lsn

    async def close(self) -> None:
        """End the thread of the sink. The descriptor stays open: it is not the sink's."""
        self._pipe.close()


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
