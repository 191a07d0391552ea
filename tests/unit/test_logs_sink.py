"""The sink: it never waits for its stream, and tells exactly what it lost."""

from __future__ import annotations

import io
import logging
import threading

import pytest

from outlast.logs.sink import Sink, SinkHandler


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
    sink = Sink(stream)
    assert all(sink.put(f"{number}\n") for number in range(1_000))
    assert sink.flush(60.0)
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(1_000))
    assert (sink.totals.taken, sink.totals.written, sink.totals.dropped, sink.totals.waiting) == (1_000, 1_000, 0, 0)
    sink.close()


def test_a_stream_that_stands_still_stops_nobody_and_what_is_lost_is_told_where_it_was_lost() -> None:
    stream = Stuck()
    times = iter([10.0, 12.5])
    sink = Sink(stream, lines_max=3, clock=lambda: next(times))
    sink.put("first\n")
    stream.entered.wait()
    assert [sink.put(f"{number}\n") for number in range(5)] == [True, True, True, False, False]
    totals = sink.totals
    assert (totals.taken, totals.written, totals.dropped, totals.waiting) == (6, 0, 2, 4)
    stream.go_on.set()
    sink.flush(60.0)
    # The notice stands before the next line, or alone if none comes.
    sink.put("later\n")
    sink.flush(60.0)
    sink.close()
    assert stream.getvalue() == (
        "first\n0\n1\n2\noutlast: 2 log lines (4 characters) lost in 2.5 s: the log was not read quickly enough\nlater\n"
    )


def test_a_line_that_is_larger_than_the_queue_is_lost_and_told() -> None:
    stream = Stuck()
    stream.go_on.set()
    sink = Sink(stream, chars_max=10)
    assert not sink.put("x" * 11)
    sink.put("small\n")
    assert sink.flush(60.0)
    sink.close()
    assert stream.getvalue().startswith("outlast: 1 log lines (11 characters) lost in ")
    assert stream.getvalue().endswith("small\n")


def test_a_stream_that_raises_loses_what_it_was_given_and_says_why() -> None:
    stream = Stuck()
    stream.failures = 1
    stream.go_on.set()
    sink = Sink(stream)
    sink.put("lost\n")
    assert sink.flush(60.0)
    sink.put("kept\n")
    assert sink.flush(60.0)
    sink.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("outlast: 1 log lines (5 characters) lost in ")
    assert lines[0].endswith("OSError: [Errno 28] No space left on device")
    assert lines[1] == "kept"
    assert (sink.totals.taken, sink.totals.written, sink.totals.dropped) == (2, 1, 1)


def test_a_closed_sink_takes_nothing_and_counts_it() -> None:
    stream = Stuck()
    stream.go_on.set()
    sink = Sink(stream)
    sink.close()
    sink.close()
    assert not sink.put("late\n")
    assert sink.flush()
    assert (sink.totals.taken, sink.totals.dropped) == (1, 1)


def test_closing_waits_only_as_long_as_it_was_told() -> None:
    stream = Stuck()
    sink = Sink(stream, close_s=0.01)
    sink.put("stuck\n")
    stream.entered.wait()
    sink.close()
    assert not sink.flush()
    stream.go_on.set()


@pytest.mark.parametrize("wrong", [{"lines_max": 0}, {"chars_max": 0}])
def test_a_queue_without_room_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sink(io.StringIO(), **wrong)


def test_a_handler_formats_and_hands_over() -> None:
    stream = Stuck()
    stream.go_on.set()
    handler = SinkHandler(stream, lines_max=10)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.emit(logging.makeLogRecord({"levelname": "ERROR", "msg": "no %s", "args": ("room",)}))
    handler.flush()
    handler.close()
    assert stream.getvalue() == "ERROR no room\n"


def test_a_record_that_cannot_be_formatted_is_loggings_business(capsys: pytest.CaptureFixture[str]) -> None:
    handler = SinkHandler(io.StringIO())
    handler.emit(logging.makeLogRecord({"levelname": "ERROR", "msg": "%d", "args": ("none",)}))
    handler.close()
    assert "--- Logging error ---" in capsys.readouterr().err
