"""What everything that appends to a file promises, on a disk that fills up, fails and is cut off in the middle.

Each unit is in the file whole or not at all; one that was refused never appears later; nothing is written behind a torn end.
"""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from appenders import ALL, WITH_A_RESTART, Appender, Folded, RefusedError

from outlast import OutlastError
from outlast._files.journal import framed
from outlast.extend import AppendFile, Journal, Sync, TornFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


@each_with_a_restart
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


@pytest.mark.parametrize("kind", [each for each in ALL if each.syncs], ids=lambda kind: kind.__name__)
def test_a_descriptor_that_failed_to_sync_is_never_synced_again(made: Appender, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would report success, and what it had lost would count as on disk."""
    failed, again, due, close = set[int](), list[int](), [1], os.close

    def sync(real: Callable[[int], None], descriptor: int) -> None:
        again.extend({descriptor} & failed)
        if due and real is fdatasync:
            failed.add(descriptor)
            due.clear()
            fails()
        real(descriptor)

    def closes(descriptor: int) -> None:
        failed.discard(descriptor)
        close(descriptor)

    made.append(1)
    fdatasync = os.fdatasync
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, partial(sync, getattr(os, name)))
    monkeypatch.setattr(os, "close", closes)
    refused(made, 2)
    assert not due
    made.append(3)
    assert (made.units(), again) == ([1, 3], [])


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
