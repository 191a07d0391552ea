"""What everything that appends to a file promises, on a disk that fills up, fails and is cut off in the middle.

Each unit is in the file whole or not at all; one that was refused never appears later; nothing is written behind a torn end.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import resource
import zlib
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from outlast import Fault, Kind, OutlastError
from outlast._files.journal import framed
from outlast._programs.fold.spool import AGAIN, Spool
from outlast._programs.guard.logfile import LogFile
from outlast._programs.guard.rotation import Limits
from outlast.changes import Column, FileSpool, Insert, JsonLinesSink, Quarantine, Relation, ReplicaIdentity, Transaction
from outlast.extend import AppendFile, Journal, Sync, TornFileError
from outlast.jobs._model import Outcome
from outlast.jobs._refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
        self.spool = Spool(self.path.parent / "folded", 1 << 20, lambda text: None, self.now, "a")

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
each_implementation = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
each_with_a_restart = pytest.mark.parametrize("kind", WITH_A_RESTART, ids=lambda kind: kind.__name__)


@pytest.fixture
def made(kind: type[Appender], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Appender]:
    # So small that each record writes the one before it.
    monkeypatch.setattr("outlast.changes._decoding.spool.BUFFER_BYTES", 300)
    appender = kind(tmp_path)
    yield appender
    appender.close()


def refused(appender: Appender, unit: int) -> None:
    with pytest.raises((OSError, OutlastError, RefusedError)):
        appender.append(unit)


def full_after(room: int) -> Callable[[int, Any], int]:
    """A disk with this room: as near the end of a real one, a write is short, and the next one fails."""
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(descriptor, bytes(data[:room]))
        room -= done
        return done

    return write


def fails(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the kernel itself refuse what goes beyond: a short write first, then EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@each_implementation
def test_short_writes_make_whole_units(made: Appender, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:7])))
    made.append(1)
    made.append(2)
    assert made.units() == [1, 2]


@each_implementation
@pytest.mark.parametrize("room", [0, 1, 60])
def test_what_a_full_disk_refused_never_appears(made: Appender, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made.append(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_after(room))
        refused(made, 2)
    assert made.units() == [1]
    made.append(3)
    assert made.units() == [1, 3]


@pytest.mark.parametrize("kind", [each for each in ALL if each not in {Nameless, Folded}], ids=lambda kind: kind.__name__)
def test_what_the_kernel_refuses_half_way_never_appears(made: Appender) -> None:
    made.append(1)
    with file_size_limit(made.path.stat().st_size + 60):
        refused(made, 2)
    assert made.units() == [1]
    made.append(3)
    assert made.units() == [1, 3]


@pytest.mark.parametrize("kind", [each for each in ALL if each is not Folded], ids=lambda kind: kind.__name__)
def test_nothing_is_written_behind_what_could_not_be_taken_back(made: Appender, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spool of a fold begins another file instead."""
    made.append(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fails)
        with patch.context() as full:
            full.setattr(os, "write", full_after(60))
            refused(made, 2)
        with suppress(OSError, RefusedError):
            made.append(3)
    made.append(4)
    assert made.units() in ([1, 4], [1, 3, 4])


@pytest.mark.parametrize("kind", [each for each in ALL if each.syncs], ids=lambda kind: kind.__name__)
def test_what_could_not_be_synced_never_appears(made: Appender, monkeypatch: pytest.MonkeyPatch) -> None:
    made.append(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        refused(made, 2)
    assert made.units() == [1]
    made.append(3)
    made.close()
    made.open()
    assert made.units() == [1, 3]


@each_with_a_restart
@pytest.mark.parametrize("part", [1, 9, 100])
def test_a_torn_end_costs_nothing_but_itself(made: Appender, part: int) -> None:
    made.append(1)
    whole = made.path.read_bytes()
    made.append(2)
    made.close()
    os.truncate(made.path, len(whole) + part)
    made.open()
    made.append(3)
    if made.cuts:
        assert made.units() == [1, 3]
        assert made.path.read_bytes().startswith(whole)
    else:
        assert made.path.read_bytes()[len(whole) :].split(b"\n")[1].startswith(b"3 ")


@each_with_a_restart
def test_a_second_writer_is_refused(made: Appender, tmp_path: Path) -> None:
    made.append(1)
    made.close()
    with AppendFile.open(made.path, sync=Sync.NEVER), pytest.raises((OSError, OutlastError, RefusedError)):
        type(made)(tmp_path).append(2)
    made.open()
    assert made.units() == [1]


def test_a_file_that_cannot_be_cut_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile.open(tmp_path / "file", sync=Sync.EACH)
    file.append(b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fails)
        with patch.context() as full:
            full.setattr(os, "write", full_after(2))
            with pytest.raises(TornFileError, match="cannot be cut back to 4 bytes") as caught:
                file.append(b"two\n")
        assert (caught.value.errno, file.is_torn, file.size) == (errno.ENOSPC, True, 4)
        with pytest.raises(OSError, match="Input/output error"):
            file.append(b"three\n")
    assert (tmp_path / "file").read_bytes() == b"one\ntw"
    file.append(b"four\n")
    assert not file.is_torn
    file.close()
    assert (tmp_path / "file").read_bytes() == b"one\nfour\n"


def test_a_failed_sync_closes_the_file_at_what_was_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile.open(tmp_path / "file", sync=Sync.ASKED)
    file.append(b"one\n")
    file.sync()
    file.append(b"two\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()
    with pytest.raises(OSError, match="it is closed"):
        file.append(b"three\n")
    assert (tmp_path / "file").read_bytes() == b"one\n"


def test_what_an_earlier_process_left_is_synced_before_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output error"):
            AppendFile.open(tmp_path / "file", sync=Sync.ASKED)
        AppendFile.open(tmp_path / "file", sync=Sync.NEVER).close()
    AppendFile.open(tmp_path / "file", sync=Sync.ASKED).close()


def test_a_replacement_that_fails_changes_nothing_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile.open(tmp_path / "file", sync=Sync.EACH)
    file.append(b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_after(2))
        with pytest.raises(OSError, match="No space left"):
            file.replace(b"two\n")
    file.append(b"three\n")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"one\nthree\n")]
    file.replace(b"four\n")
    file.append(b"five\n")
    file.close()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"four\nfive\n")]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        AppendFile.open(tmp_path / "pipe", sync=Sync.NEVER)


def test_frames_hold_any_bytes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "file", "test", encode=bytes, decode=bytes)
    journal.open()
    records = [b"", b"\n\n", bytes(range(256)), framed(b"inside")]
    journal.append(records)
    journal.close()
    again = Journal(tmp_path / "file", "test", encode=bytes, decode=bytes)
    again.open()
    assert (again.records, again.damaged, again.torn_bytes) == (records, [], 0)
    again.close()
