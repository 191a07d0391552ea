"""The drill's arithmetic: bins, recovery, accounts, durations, the work log, the counter of output."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.duration import format_duration, parse_duration
from outlast._drill.coder.cancels import CANCEL_CODE, is_cancel_request
from outlast._drill.coder.payments import ANSWER, Payments
from outlast._drill.lab.arm.process import KEPT_LINE_CHARS, KEPT_LINES, OutputCounter
from outlast._drill.lab.measure import account, count_between, fill_bins, in_vain, peak_in_window, recovery, value_at
from outlast._drill.lab.worklog import Step, WorkLog, WorkLogReader, WorkRecord, parse_line

if TYPE_CHECKING:
    from pathlib import Path

S = 1_000_000_000


def did(loop: int, job: int, start_s: float, end_s: float | None) -> list[WorkRecord]:
    records = [WorkRecord("arm", loop, job, Step.START, int(start_s * S))]
    if end_s is not None:
        records.append(WorkRecord("arm", loop, job, Step.END, int(end_s * S)))
    return records


@given(st.lists(st.floats(0, 10), max_size=40), st.floats(0.01, 3))
def test_the_peak_is_what_counting_every_window_gives(times: list[float], window_s: float) -> None:
    windows = [sum(1 for other in times if start <= other and other - start < window_s) for start in times]
    assert peak_in_window(times, window_s) == max(windows, default=0)


def test_an_event_one_window_later_is_outside() -> None:
    assert peak_in_window([0.0, 0.1, 0.2], 0.1) == 1
    assert peak_in_window([0.0, 0.05, 0.1], 0.1) == 2


def test_counting_between_includes_the_start_and_not_the_end() -> None:
    assert count_between([1.0, 2.0, 3.0], 1.0, 3.0) == 2
    assert count_between([], 0.0, 9.0) == 0


def test_bins_take_what_lies_in_them_and_drop_the_rest() -> None:
    events = [(9.9, 1), (10.0, 2), (10.24, 3), (10.25, 4), (10.6, 5), (99.0, 6)]
    assert fill_bins(events, 10.0, (0.0, 0.25, 0.5), 0.25) == [5, 4, 5]
    assert fill_bins(events, 10.0, (-0.25, 0.0), 0.25) == [1, 5]
    assert fill_bins(events, 10.0, (), 0.25) == []


def test_a_rising_count_lies_on_straight_lines_between_its_points() -> None:
    curve = [(1.0, 0.0), (2.0, 10.0), (4.0, 14.0)]
    assert [value_at(curve, time_s) for time_s in (0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 9.0)] == [0.0, 0.0, 5.0, 10.0, 12.0, 14.0, 14.0]
    assert value_at([], 1.0) == 0.0


def test_a_job_begun_before_the_server_accepted_is_no_recovery() -> None:
    records = [*did(0, 1, 9.9, 10.2), *did(0, 2, 10.5, 10.6), *did(1, 3, 10.1, 10.3)]
    recovered = recovery(records, 10 * S, loops=2)
    assert recovered.loops_recovered == 2
    assert recovered.max_s == pytest.approx(0.6)
    assert recovered.p50_s == pytest.approx(0.45)


def test_without_the_last_loop_there_is_no_maximum() -> None:
    records = [*did(0, 1, 10.0, 10.1), *did(1, 2, 10.0, 10.2), *did(2, 3, 10.0, None)]
    recovered = recovery(records, 10 * S, loops=3)
    assert (recovered.loops_recovered, recovered.max_s) == (2, None)
    assert recovered.p50_s == pytest.approx(0.2)


def test_without_most_loops_there_is_no_median_either() -> None:
    recovered = recovery(did(0, 1, 10.0, 10.1), 10 * S, loops=3)
    assert (recovered.p50_s, recovered.max_s) == (None, None)
    assert recovery([], 0, loops=1).p50_s is None


def test_a_job_run_again_by_another_loop_counts_for_that_loop_from_its_own_start() -> None:
    records = [*did(0, 1, 9.0, None), *did(1, 1, 10.5, 10.6)]
    assert recovery(records, 10 * S, loops=1).max_s == pytest.approx(0.6)


def test_accounts() -> None:
    records = [
        *did(0, 1, 1, 2),  # done
        *did(0, 2, 1, 2),  # its result was not recorded
        *did(0, 3, 1, None),  # began and vanished
        *did(0, 4, 1, 2),
        *did(1, 4, 3, 4),  # done twice
        *did(0, 5, 1, None),  # began, and waits again
    ]
    found = account(7, records, done={1, 4, 6}, waiting={5, 7})
    assert found.lost == 3  # 2, 3, and 6, which is recorded as done and never ran
    assert found.lost_results == 1
    assert found.twice == 1
    assert (found.enqueued, found.done, found.waiting) == (7, 3, 2)


@given(st.sets(st.integers(1, 50)), st.integers(0, 50))
def test_what_is_done_once_or_waits_is_not_lost(done: set[int], enqueued: int) -> None:
    done = {job for job in done if job <= enqueued}
    records = [record for job in done for record in did(0, job, 1, 2)]
    found = account(enqueued, records, done, waiting=set(range(1, enqueued + 1)) - done)
    assert (found.lost, found.twice) == (0, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20s", 20.0),
        ("1m", 60.0),
        ("20", 20.0),
        ("500ms", 0.5),
        (" 1.5H ", 5400.0),
        ("30d", 2_592_000.0),
        (".5", 0.5),
        ("2 s", 2.0),
    ],
)
def test_durations_as_people_type_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1e3", "nan", "inf", "1s2", "10,5s", "9" * 400])
def test_what_is_no_duration_is_refused_with_the_spellings(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(text)


def test_durations_are_written_short() -> None:
    written = [format_duration(value) for value in (0.3456, 20.0, 60.0, 200.0)]
    assert written == ["0.35 s", "20 s", "1 min", "3 min 20 s"]


def test_the_work_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "work.log"
    reader = WorkLogReader(path)
    assert list(reader.read_new()) == []
    with WorkLog(path, "naive") as log:
        log.start(3, 17)
        log.end(3, 17)
        first = list(reader.read_new())
        log.start(4, 18)
    assert [(record.arm, record.loop, record.job, record.step) for record in first] == [
        ("naive", 3, 17, Step.START),
        ("naive", 3, 17, Step.END),
    ]
    assert first[0].at_ns <= first[1].at_ns
    assert [record.job for record in reader.read_new()] == [18]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "work.log"
    path.write_text("naive 1 2 start 5\nnaive 1 2 en")
    reader = WorkLogReader(path)
    assert len(list(reader.read_new())) == 1
    with path.open("a") as file:
        file.write("d 9\n")
    assert [(record.step, record.at_ns) for record in reader.read_new()] == [(Step.END, 9)]


@pytest.mark.parametrize("line", ["", "naive 1 2 start", "naive x 2 start 5", "naive 1 2 middle 5", "a b c d e f"])
def test_a_line_of_another_shape_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="work log line"):
        parse_line(line)


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_every_line_and_byte_is_counted_however_the_pipe_cuts_them(chunks: list[bytes]) -> None:
    counter = OutputCounter()
    for index, chunk in enumerate(chunks):
        counter.feed(chunk, index * 0.015)
    data = b"".join(chunks)
    assert counter.lines_total == data.count(b"\n")
    assert counter.between(0.0, 1e9) == (data.count(b"\n"), len(data))
    whole = [line.decode(errors="replace") for line in data.split(b"\n")[:-1]]
    assert counter.first == whole


def test_lines_are_counted_when_they_came() -> None:
    counter = OutputCounter()
    for at_s, data in ((1.0, b"a\n"), (2.0, b"b\nc\n"), (3.0, b"d\n")):
        counter.feed(data, at_s)
    assert counter.between(2.0, 3.0) == (2, 4)


def test_a_storm_is_counted_and_not_kept() -> None:
    counter = OutputCounter()
    for number in range(50):
        counter.feed(b"".join(b"%d-%d\n" % (number, line) for line in range(1000)), number * 1e-4)
    counter.feed(b"x" * 10_000, 1.0)
    counter.feed(b"\n", 2.0)
    assert counter.lines_total == 50_001
    assert len(counter.counts) == 3
    assert counter.first[0] == "0-0"
    assert len(counter.first) == len(counter.last) == KEPT_LINES
    assert counter.last[-2] == "49-999"
    assert len(counter.last[-1]) == KEPT_LINE_CHARS


def test_numbers_from_elsewhere_are_not_counted_among_others() -> None:
    records = [*did(0, 1, 0.0, 1.0), *did(0, 100, 1.0, 2.0), *did(1, 101, 1.0, None), *did(1, 101, 2.0, 3.0)]
    assert account(1, records, done={1, 100, 101}, waiting=set()).done == 1
    found = account(2, records, done={1, 100, 101}, waiting=set(), first=100)
    assert (found.done, found.lost, found.twice) == (2, 0, 0)
    assert in_vain(records, 100) == 1


def test_a_cancel_request_is_known_by_its_bytes_also_after_a_question_for_encryption() -> None:
    cancel = struct.pack("!iiii", 16, CANCEL_CODE, 4711, 815)
    encryption = struct.pack("!ii", 8, 80877103)
    assert is_cancel_request(cancel)
    assert is_cancel_request(encryption + cancel)
    assert is_cancel_request(struct.pack("!iii32s", 44, CANCEL_CODE, 4711, bytes(32)))
    assert not any(is_cancel_request(cancel[:length]) for length in range(16))
    assert not is_cancel_request(encryption)
    assert not is_cancel_request(struct.pack("!ii", 40, 196608) + b"user\0postgres\0".ljust(32, b"\0"))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_cancel_request_or_none(opening: bytes) -> None:
    assert is_cancel_request(opening) in {True, False}


def test_payments_leave_and_come_back_on_the_same_port() -> None:
    def pay() -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", payments.port), timeout=30.0) as conn:
                return conn.recv(16)
        except ConnectionError:
            return b""

    with Payments(run_s=1.0) as payments:
        for step, answer in ((payments.come_back, ANSWER), (payments.leave, b""), (payments.come_back, ANSWER)):
            step()
            while pay() != answer:
                pass
