"""What every place of a writer promises: what `write` counts has arrived, in order, and what it did not count can come again."""

from __future__ import annotations

import errno
import io
import os
import select
from typing import TYPE_CHECKING, Any

import pytest

from outlast._programs.guard.logfile import LogFile
from outlast._programs.guard.rotation import Limits
from outlast.logs._places import Descriptor, LogPlace, TextStream, place_of
from outlast.logs._writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 60.0


class Target:
    """A place, what has arrived there, and how it is made to refuse the next write, if it can."""

    def __init__(self, place: LogPlace, arrived: Callable[[], bytes], refuse: Callable[[pytest.MonkeyPatch], None]) -> None:
        self.place, self.arrived, self.refuse = place, arrived, refuse


def refuse_os(monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = os.write, iter([True])

    def full(fd: int, data: Any) -> int:
        if next(calls, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)


def file(tmp_path: Path) -> Iterator[Target]:
    path = tmp_path / "file"
    with path.open("w") as stream:
        yield Target(place_of(stream)[0], path.read_bytes, refuse_os)


def pipe(tmp_path: Path) -> Iterator[Target]:
    del tmp_path
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    found = b""

    def arrived() -> bytes:
        nonlocal found
        while select.select([reads], [], [], 0)[0] and (data := os.read(reads, 1 << 20)):
            found += data
        return found

    yield Target(Descriptor(writes), arrived, refuse_os)
    os.close(reads)
    os.close(writes)


def log_file(tmp_path: Path) -> Iterator[Target]:
    place = LogFile(tmp_path / "log", Limits())
    yield Target(place, (tmp_path / "log").read_bytes, refuse_os)
    place.close()


def text_stream(tmp_path: Path) -> Iterator[Target]:
    del tmp_path
    stream = io.StringIO()

    def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream, "write", lambda text: 1 / 0)

    yield Target(TextStream(stream), lambda: stream.getvalue().encode(), refuse)


@pytest.fixture(params=[file, pipe, log_file, text_stream], ids=lambda make: make.__name__)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    yield from request.param(tmp_path)


def test_what_is_counted_has_arrived_and_the_rest_comes_again(target: Target) -> None:
    target.place.begin()
    data = b"".join(b"line %05d\n" % number for number in range(2_000))
    left = data
    while left:
        assert target.place.has_room(LIMIT_S)
        written = target.place.write(left[: target.place.batch_bytes])
        assert 0 < written <= len(left)
        left = left[written:]
        assert target.arrived() == data[: len(data) - len(left)]
    target.place.tick()


def test_a_character_may_come_in_two_parts(target: Target) -> None:
    data = "naïve\n".encode()
    for part in (data[:3], data[3:]):
        assert target.place.write(part) == len(part)
    assert target.arrived() == data


def test_a_place_that_resumes_has_kept_nothing_of_what_it_refused(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.place.write(b"before\n")
    target.refuse(monkeypatch)
    with pytest.raises(OSError if target.place.resumes else ZeroDivisionError):
        target.place.write(b"refused\n")
    assert target.arrived() == b"before\n"
    if target.place.resumes:
        assert target.place.write(b"refused\n") == len(b"refused\n")
        assert target.arrived() == b"before\nrefused\n"


def test_a_sink_writes_there_and_counts(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(place=target.place, close_s=LIMIT_S)
    for number in range(100):
        assert writer.put(f"{number}\n")
    assert writer.flush(LIMIT_S)
    target.refuse(monkeypatch)
    writer.put("refused\n")
    assert writer.flush(LIMIT_S)
    monkeypatch.undo()
    writer.close()
    totals = writer.totals
    assert (totals.taken, totals.written + totals.dropped, totals.dropped) == (101, 101, int(not target.place.resumes))
    *lines, last = target.arrived().decode().splitlines()
    assert lines == [str(number) for number in range(100)]
    assert last == "refused" or last.startswith("outlast: 1 log lines (8 bytes) lost in 0.")
