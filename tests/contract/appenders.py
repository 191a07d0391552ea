"""Everything that appends to a file, each as an `Appender` of numbered units: for the contract, and to be killed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from outlast import Fault, Kind
from outlast._programs.fold.spool import AGAIN, FoldSpool
from outlast._programs.guard.logfile import LogFile
from outlast._programs.guard.rotation import Limits
from outlast.changes import Column, FileSpool, Insert, JsonLinesSink, Quarantine, Relation, ReplicaIdentity, Transaction
from outlast.extend import AppendFile, Journal, Sync
from outlast.jobs._model import Outcome
from outlast.jobs._refusals import Refusals

if TYPE_CHECKING:
    from pathlib import Path

ITEM = Relation(1, "public", "item", ReplicaIdentity.DEFAULT, (Column("id", 20, -1, True), Column("name", 25, -1, False)))
AT = datetime(2026, 1, 1, tzinfo=UTC)
FILLER = hashlib.sha512(b"what does not compress").hexdigest() * 2


class RefusedError(Exception):
    """An implementation that raises nothing said that it did not keep a unit."""


class Appender:
    """One implementation over one file. Units are numbers from 1 on."""

    syncs: ClassVar = True
    """Whether it promises that a unit is on disk."""
    cuts: ClassVar = True
    """Whether an unfinished end is cut off when it is opened; a log's is another program's, and is only ended."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "file"
        self.open()

    def open(self) -> None: ...

    def append(self, unit: int) -> None:
        """Return when it is kept, as safely as it promises; raise when it is not."""
        raise NotImplementedError

    def units(self) -> list[int]:
        """The units that a reader finds."""
        raise NotImplementedError

    def close(self) -> None: ...


class Plain(Appender):
    def open(self) -> None:
        self.file = AppendFile.open(self.path, sync=Sync.EACH)
        self.file.cut_line()

    def append(self, unit: int) -> None:
        self.file.append(f"{unit} {FILLER}\n".encode())

    def units(self) -> list[int]:
        return [int(line.split()[0]) for line in self.path.read_text().splitlines() if line.endswith(f" {FILLER}")]

    def close(self) -> None:
        self.file.close()


class Journalled(Appender):
    def open(self) -> None:
        self.journal = Journal(self.path, "test", encode=str.encode, decode=bytes.decode)
        self.journal.open()

    def append(self, unit: int) -> None:
        self.journal.append([f"{unit} {FILLER}"])

    def units(self) -> list[int]:
        copy = self.path.with_name("copy")
        copy.write_bytes(self.path.read_bytes())
        journal = Journal(copy, "test", encode=str.encode, decode=bytes.decode)
        journal.open()
        journal.close()
        assert journal.damaged == [], "what a crash leaves is a torn tail, and no damage"
        return [int(record.split()[0]) for record in journal.records]

    def close(self) -> None:
        self.journal.close()


def delivery(unit: int) -> Transaction:
    return Transaction(unit, 100 * unit, 100 * unit + 10, AT, None, (Insert(ITEM, (str(unit), FILLER)),))


def committed(path: Path) -> list[int]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["xid"] for line in lines if line["op"] == "commit"]


class Quarantined(Appender):
    def append(self, unit: int) -> None:
        asyncio.run(Quarantine(self.path).take(delivery(unit), Fault(Kind.REJECTED, "23514", "refused")))

    def units(self) -> list[int]:
        return committed(self.path) if self.path.exists() else []


class RefusedOutcomes(Appender):
    def append(self, unit: int) -> None:
        refusals = Refusals(self.path)
        where = refusals.keep(
            ("worker", Outcome(unit, 1, "done", result_json=f'"{FILLER}"')), Fault(Kind.REJECTED, "22P02", "no")
        )
        if not refusals.kept:
            raise RefusedError(where)

    def units(self) -> list[int]:
        return [json.loads(line[9:])["id"] for line in self.path.read_bytes().splitlines()] if self.path.exists() else []


class Lines(Appender):
    def open(self) -> None:
        self.sink = JsonLinesSink(self.path)
        self.is_open = False

    def append(self, unit: int) -> None:
        asyncio.run(self._append(unit))

    async def _append(self, unit: int) -> None:
        """As a stream does it: after a fault of its sink it closes it, and opens it again for the next attempt."""
        try:
            if not self.is_open:
                await self.sink.open("shop", 1)
                self.is_open = True
            await self.sink.write(delivery(unit))
            await self.sink.flush()
        except OSError:
            self.is_open = False
            await self.sink.close()
            raise

    def units(self) -> list[int]:
        return committed(self.path)

    def close(self) -> None:
        asyncio.run(self.sink.close())


class Nameless(Appender):
    """The spool of a stream: its file has no name, and no restart."""

    syncs = False

    def open(self) -> None:
        self.spool = FileSpool(self.path.parent)

    def append(self, unit: int) -> None:
        self.spool.append(1, f"{unit} {FILLER}".encode())

    def units(self) -> list[int]:
        return [int(record.split()[0]) for record in self.spool.records(1)]

    def close(self) -> None:
        self.spool.close()


class Folded(Appender):
    syncs = False

    def open(self) -> None:
        self.now = 0.0
        self.spool = FoldSpool(self.path.parent / "folded", 1 << 20, lambda text: None, self.now, "a")

    def append(self, unit: int) -> None:
        self.now += 2 * AGAIN.cap_s
        self.spool.flush(self.now)
        dropped = self.spool.dropped
        self.spool.add([f"{unit} {FILLER}".encode()])
        self.spool.flush(self.now)
        if self.spool.dropped > dropped:
            raise RefusedError("counted as dropped")

    def units(self) -> list[int]:
        found = b"".join(
            zlib.decompressobj(31).decompress(path.read_bytes()) for path in sorted(self.path.parent.glob("folded/*"))
        )
        return [int(line.split()[0]) for line in found.splitlines()]

    def close(self) -> None:
        self.spool.close()


class Logged(Appender):
    syncs = False
    cuts = False

    def open(self) -> None:
        self.log = LogFile(self.path, Limits())

    def append(self, unit: int) -> None:
        data = f"{unit} {FILLER}\n".encode()
        assert self.log.write(data) == len(data)

    def units(self) -> list[int]:
        return [int(line.split()[0]) for line in self.path.read_text().splitlines() if line.endswith(f" {FILLER}")]

    def close(self) -> None:
        self.log.close()


ALL: list[type[Appender]] = [Plain, Journalled, Quarantined, RefusedOutcomes, Lines, Nameless, Folded, Logged]
WITH_A_RESTART = [each for each in ALL if each not in {Nameless, Folded}]
