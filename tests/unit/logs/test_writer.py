"""The writer: it never waits for its stream, and tells exactly what it lost."""

from __future__ import annotations

import io
import logging
import os
import re
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outlast.logs._backlog import Backlog
from outlast.logs._gaps import Gap
from outlast.logs._writer import LogWriter, QueuedHandler


class Stuck(io.StringIO):
    """A stream that blocks until it is let go, and fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.failures = 0

    def write(self, text: str) -> int:
        self.entered.set()
        self.go_on.wait()
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_lines_arrive_in_order() -> None:
    stream = Stuck()
    stream.go_on.set()
    writer = LogWriter(stream)
    assert all(writer.put(f"{number}\n") for number in range(1_000))
    assert writer.flush(60.0)
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(1_000))
    assert (writer.totals.taken, writer.totals.written, writer.totals.dropped, writer.totals.waiting) == (1_000, 1_000, 0, 0)
    writer.close()


def test_a_stream_that_stands_still_stops_nobody_and_what_is_lost_is_told_where_it_was_lost() -> None:
    stream = Stuck()
    now = 10.0
    writer = LogWriter(stream, lines_max=3, clock=lambda: now)
    writer.put("first\n")
    stream.entered.wait()
    assert [writer.put(f"{number}\n") for number in range(5)] == [True, True, True, False, False]
    totals = writer.totals
    assert (totals.taken, totals.written, totals.dropped, totals.waiting) == (6, 0, 2, 4)
    now = 12.5
    stream.go_on.set()
    writer.flush(60.0)
    # The notice stands before the next line, or alone if none comes.
    writer.put("later\n")
    writer.flush(60.0)
    writer.close()
    assert stream.getvalue() == (
        "first\n0\n1\n2\noutlast: 2 log lines (4 bytes) lost in 2.5 s: the log was not read quickly enough\nlater\n"
    )


def test_a_line_that_is_larger_than_the_queue_is_lost_and_told() -> None:
    stream = Stuck()
    stream.go_on.set()
    writer = LogWriter(stream, bytes_max=10)
    assert not writer.put("x" * 11)
    writer.put("small\n")
    assert writer.flush(60.0)
    writer.close()
    assert stream.getvalue().startswith("outlast: 1 log lines (11 bytes) lost in ")
    assert stream.getvalue().endswith("small\n")


def test_a_stream_that_raises_loses_what_it_was_given_and_says_why() -> None:
    stream = Stuck()
    stream.failures = 1
    stream.go_on.set()
    writer = LogWriter(stream)
    writer.put("lost\n")
    assert writer.flush(60.0)
    writer.put("kept\n")
    assert writer.flush(60.0)
    writer.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("outlast: 1 log lines (5 bytes) lost in ")
    assert lines[0].endswith("OSError: [Errno 28] No space left on device")
    assert lines[1] == "kept"
    assert (writer.totals.taken, writer.totals.written, writer.totals.dropped) == (2, 1, 1)


def test_a_closed_sink_takes_nothing_and_counts_it() -> None:
    stream = Stuck()
    stream.go_on.set()
    writer = LogWriter(stream)
    writer.close()
    writer.close()
    assert not writer.put("late\n")
    assert writer.flush()
    assert (writer.totals.taken, writer.totals.dropped) == (1, 1)


def test_closing_waits_only_as_long_as_it_was_told() -> None:
    stream = Stuck()
    writer = LogWriter(stream, close_s=0.01)
    writer.put("stuck\n")
    stream.entered.wait()
    writer.close()
    assert not writer.flush()
    stream.go_on.set()


@pytest.mark.parametrize("wrong", [{"lines_max": 0}, {"bytes_max": 0}])
def test_a_queue_without_room_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        LogWriter(io.StringIO(), **wrong)


def test_a_handler_formats_and_hands_over() -> None:
    stream = Stuck()
    stream.go_on.set()
    handler = QueuedHandler(stream, lines_max=10)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.emit(logging.makeLogRecord({"levelname": "ERROR", "msg": "no %s", "args": ("room",)}))
    handler.flush()
    handler.close()
    assert stream.getvalue() == "ERROR no room\n"


def test_a_record_that_cannot_be_formatted_is_loggings_business(capsys: pytest.CaptureFixture[str]) -> None:
    handler = QueuedHandler(io.StringIO())
    handler.emit(logging.makeLogRecord({"levelname": "ERROR", "msg": "%d", "args": ("none",)}))
    handler.close()
    assert "--- Logging error ---" in capsys.readouterr().err


def test_progress_is_dropped_before_warnings_and_both_are_told() -> None:
    stream = Stuck()
    handler = QueuedHandler(stream, lines_max=4)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    log = logging.Logger("shop")  # noqa: LOG001  # a logger of the test's own
    log.addHandler(handler)
    log.info("first")
    stream.entered.wait()
    for number in range(3):
        log.info("served %d", number)
    log.critical("corrupt")
    for number in range(5):
        log.warning("slow %d", number)
    log.info("served 3")
    log.error("away")
    stream.go_on.set()
    assert handler.writer.flush(60.0)
    log.info("later")
    handler.close()
    first, *kept, told, last = stream.getvalue().splitlines()
    assert (first, last) == ("INFO shop: first", "INFO shop: later")
    assert kept == ["CRITICAL shop: corrupt", "WARNING shop: slow 0", "WARNING shop: slow 1", "ERROR shop: away"]
    assert re.fullmatch(
        r"WARNING outlast: 7 log lines \(\d+ bytes; 4 INFO, 3 WARNING\) lost in \S+ s: the log was not read quickly enough", told
    )


def test_a_formatter_that_raises_for_the_line_of_a_gap_costs_no_count() -> None:
    stream = Stuck()
    handler = QueuedHandler(stream, lines_max=1)
    handler.setFormatter(logging.Formatter("%(order)s %(message)s"))
    log = logging.Logger("shop")  # noqa: LOG001  # a logger of the test's own
    log.addHandler(handler)
    log.info("one", extra={"order": 1})
    stream.entered.wait()
    log.info("two", extra={"order": 2})
    log.info("three", extra={"order": 3})
    stream.go_on.set()
    handler.close()
    one, two, told = stream.getvalue().splitlines()
    assert (one, two) == ("1 one", "2 two")
    assert told.startswith("outlast: 1 log lines (8 bytes; 1 INFO) lost in ")


def test_a_gap_whose_line_is_lost_is_part_of_the_next_one() -> None:
    stream = Stuck()
    writer = LogWriter(stream, lines_max=1)
    writer.put("first\n")
    stream.entered.wait()
    for number in range(3):
        writer.put(f"{number}\n")
    stream.failures = 2  # "first" with what had room, then the line of the gap.
    stream.go_on.set()
    writer.close()
    (told,) = stream.getvalue().splitlines()
    assert told.startswith("outlast: 4 log lines (12 bytes) lost in ")
    assert writer.totals.dropped == 4


def test_a_pipe_without_room_holds_nothing_that_could_still_make_room() -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    filled = 0
    while True:
        try:
            filled += os.write(writes, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writes, True)
    with os.fdopen(writes, "w") as stream:
        writer = LogWriter(stream, lines_max=2, close_s=60.0)
        for number in range(3):
            writer.put(f"served {number}\n", logging.INFO)
        writer.put("corrupt\n", logging.CRITICAL)
        assert writer.totals == writer.totals.__class__(taken=4, written=0, dropped=2, waiting=2)
        assert not writer.flush(0.0)
        left = filled
        while left:
            left -= len(os.read(reads, left))
        writer.close()
    with os.fdopen(reads) as received:
        served, corrupt, told = received.read().splitlines()
    assert (served, corrupt) == ("served 0", "corrupt")
    assert told.startswith("outlast: 2 log lines (18 bytes; 2 INFO) lost in ")


def test_a_write_that_hangs_is_known_to_nobody_when_the_sink_is_closed_and_counts_as_lost() -> None:
    stream = Stuck()
    writer = LogWriter(stream, close_s=0.0)
    writer.put("stuck\n")
    stream.entered.wait()
    writer.put("waits\n")
    writer.close()
    assert (writer.totals.dropped, writer.totals.waiting) == (2, 0)
    assert not writer.flush()
    stream.go_on.set()


@pytest.mark.parametrize("written", [0, 2, 4, 6, 9, 12, 14])
def test_what_is_lost_of_a_stream_is_counted_beside_a_line_about_a_gap(written: int) -> None:
    backlog = Backlog(100)
    backlog.put(b"one\ntwo\n", 0.0)
    backlog.insert(b"gap\n", Gap(3, 12, 0.0))
    backlog.put(b"six\n", 0.0)
    backlog.peek(100)
    backlog.done(written, 0.0)
    backlog.lose(0.0, "")
    # The line about the gap, from byte 8 to 12, is no line of the program's: what it told is part of the next gap.
    assert backlog.dropped_lines == sum(end > written for end in (4, 8, 16))
    assert backlog._gap_lines == backlog.dropped_lines + (3 if written < 12 else 0)
    assert backlog.taken + backlog.added == written + backlog.size + backlog.dropped_bytes
    assert backlog._notice_bytes == 0


@given(
    st.lists(st.one_of(st.tuples(st.integers(0, 5), st.integers(1, 12)), st.integers(1, 40)), max_size=60),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(1, 6)),
)
# Of the line about the gap three of four bytes are written: the one that is left gives room to nobody.
@example([(0, 1), 3, (0, 1), 1], 3, None)
def test_every_line_is_written_in_order_or_counted_by_its_rank(
    steps: list[tuple[int, int] | int], bytes_max: int, lines_max: int | None
) -> None:
    """Lines of any rank and length come, and some bytes are written, in any order."""
    backlog = Backlog(bytes_max, lines_max)
    out, gaps, lengths = b"", list[Gap](), dict[bytes, int]()

    def told(gap: Gap | None) -> None:
        if gap is not None:
            backlog.insert(b"gap\n", gap)
            gaps.append(gap)

    for number, step in enumerate(steps):
        told(backlog.settle(0.0))
        if isinstance(step, int):
            piece = backlog.peek(step)
            out += piece
            told(backlog.done(len(piece), 0.0))
        else:
            rank, length = step
            line = b"%d:%d:%s\n" % (number, rank, b"x" * length)
            lengths[line[:-1]] = len(line)
            before = [len(queue) for queue in backlog._queues[:rank]]
            kept = backlog.put_line(line, rank, 0.0)
            if not kept and any(before):
                # Not even all lower lines would have made room for it, or one that matters as much was lost before.
                assert len(line) + backlog.size - backlog._notice_bytes > bytes_max or any(backlog._gap_ranks[rank:])
        assert backlog.size - backlog._notice_bytes <= bytes_max
        assert backlog.taken + backlog.added == len(out) + backlog.size + backlog.dropped_bytes
        assert backlog.taken_lines >= backlog.written_lines + backlog.dropped_lines
    while backlog.size or backlog.is_over:
        told(backlog.settle(0.0))
        piece = backlog.peek(7)
        out += piece
        told(backlog.done(len(piece), 0.0))
    written = [line for line in out.splitlines() if line != b"gap"]
    assert [line for line in lengths if line in written] == written
    assert out.count(b"gap\n") == len(gaps)
    assert backlog.written_lines == len(written)
    assert len(written) + sum(gap.lines for gap in gaps) == len(lengths) == backlog.taken_lines
    missing = [line for line in lengths if line not in written]
    assert sum(gap.size for gap in gaps) == sum(lengths[line] for line in missing)
    for rank in range(1, 6):
        lost = sum(lines for gap in gaps for of, lines in gap.by_rank if of == rank)
        assert lost == sum(line.split(b":")[1] == b"%d" % rank for line in missing)


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=40))
def test_a_line_is_never_lost_while_one_of_a_lower_rank_waits(steps: list[tuple[int, bool]]) -> None:
    """All of one length: here any lower line makes the room."""
    backlog = Backlog(1000, 4)
    for rank, writes in steps:
        waiting = [len(queue) for queue in backlog._queues]
        kept = backlog.put_line(b"%d\n" % rank, rank, 0.0)
        assert kept or not any(waiting[:rank])
        if writes:
            backlog.done(len(backlog.peek(2)), 0.0)
