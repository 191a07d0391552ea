"""The bounded parts of the guard: what waits, what is kept on the disk, who spins, what is told about it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._programs.guard.rotation import KEPT_BYTES_MIN, Files, Limits, plan
from outlast._programs.guard.spin import SpinLimits, SpinWatch
from outlast._programs.guard.streams import LINE_BYTES_MAX, WholeLines
from outlast.logs._backlog import Backlog
from outlast.logs._gaps import Gap, GapBook, Patience
from outlast.logs.text._safely import Safely
from outlast.logs.text._stream import TextFold

MIB = 1 << 20

# What waits


def written(backlog: Backlog, now: float, *, step: int = 1 << 16) -> tuple[bytes, list[Gap]]:
    """Write all that waits."""
    data, gaps = b"", []
    while piece := backlog.peek(step):
        data += piece
        gap = backlog.done(len(piece), now)
        gaps += [gap] if gap else []
    return data, gaps


def test_what_fits_comes_out_as_it_went_in() -> None:
    backlog = Backlog(100)
    backlog.put(b"one\ntw", 0.0)
    backlog.put(b"o\n", 0.0)
    assert written(backlog, 1.0, step=5) == (b"one\ntwo\n", [])


def test_one_slow_spell_is_one_gap_between_whole_lines() -> None:
    backlog = Backlog(10)
    backlog.put(b"aaa\nbbb\nccc\nddd\n", 1.0)
    backlog.put(b"eee\n", 2.0)
    assert backlog.is_dropping
    assert backlog.done(len(backlog.peek(4)), 3.0) == Gap(lines=3, size=12, lasted_s=2.0)
    backlog.put(b"fff\n", 4.0)
    assert written(backlog, 4.0) == (b"bbb\nfff\n", [])
    assert (backlog.dropped_lines, backlog.dropped_bytes, backlog.gaps) == (3, 12, 1)


def test_dropping_goes_on_until_half_is_free() -> None:
    backlog = Backlog(8)
    backlog.put(b"a\nb\nc\nd\ne\n", 0.0)
    assert backlog.done(2, 0.0) is None
    backlog.put(b"f\n", 0.0)
    assert backlog.done(2, 0.0) == Gap(2, 4, 0.0)
    backlog.put(b"g\n", 0.0)
    assert written(backlog, 0.0)[0] == b"c\nd\ng\n"


def test_the_rest_of_a_dropped_line_is_dropped_too() -> None:
    backlog = Backlog(8)
    backlog.put(b"12345678", 0.0)
    backlog.put(b"9012", 0.0)
    assert written(backlog, 1.0) == (b"12345678", [])
    assert backlog.put(b"34\nnext\n", 2.0) == Gap(1, 7, 2.0)
    assert written(backlog, 2.0) == (b"\nnext\n", [])


def test_a_line_of_the_guard_stands_alone() -> None:
    backlog = Backlog(100)
    backlog.put(b"prompt> ", 0.0)
    backlog.insert(b"outlast guard: hello\n")
    assert written(backlog, 0.0)[0] == b"prompt> \noutlast guard: hello\n"


def test_at_the_end_what_waits_is_counted() -> None:
    backlog = Backlog(8)
    backlog.put(b"aaa\nbbb\nccc\n", 1.0)
    assert backlog.end(4.0) == Gap(3, 12, 3.0)
    assert backlog.end(5.0) is None


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=12).map(lambda data: data.replace(b"x", b"\n")),
            st.text("ab\n", max_size=12).map(str.encode),
            st.integers(1, 9),
        ),
        max_size=60,
    ),
    st.integers(1, 16),
)
def test_every_byte_is_written_or_waits_or_is_counted(steps: list[bytes | int], bytes_max: int) -> None:
    backlog = Backlog(bytes_max)
    taken, out, gaps = b"", b"", []
    for step in steps:
        if isinstance(step, bytes):
            taken += step
            gaps.append(backlog.put(step, 0.0))
        else:
            piece = backlog.peek(step)
            out += piece
            gaps.append(backlog.done(len(piece), 0.0))
        assert backlog.size <= bytes_max + backlog.added
        assert len(taken) == backlog.taken
        assert backlog.taken + backlog.added == len(out) + backlog.size + backlog.dropped_bytes
    gaps.append(backlog.end(0.0))
    closed = [gap for gap in gaps if gap]
    assert sum(gap.size for gap in closed) == backlog.dropped_bytes
    assert len(closed) == backlog.gaps


@given(st.lists(st.text("ab", min_size=1, max_size=6), max_size=40), st.integers(1, 20), st.data())
def test_only_whole_lines_come_out_when_whole_lines_go_in(lines: list[str], bytes_max: int, data: st.DataObject) -> None:
    backlog = Backlog(bytes_max)
    sent = [f"{index}{line}\n".encode() for index, line in enumerate(lines)]
    out = b""
    for line in sent:
        backlog.put(line, 0.0)
        if data.draw(st.booleans()):
            piece = backlog.peek(4)
            out += piece
            backlog.done(len(piece), 0.0)
    rest, _ = written(backlog, 0.0)
    came = (out + rest).splitlines(keepends=True)
    assert [line for line in sent if line in came] == came
    assert len(came) + backlog.dropped_lines == len(sent)


def test_gaps_are_told_in_few_lines_with_exact_sums() -> None:
    book = GapBook(first_s=5.0, cap_s=900.0)
    told = []
    for second in range(1000):
        book.add(Gap(2, 10, 0.5))
        text = book.tell(float(second))
        told += [(second, text)] if text else []
    assert [second for second, _ in told] == [0, 5, 15, 35, 75, 155, 315, 635]
    assert told[1][1] == "10 lines (50 bytes) dropped within 2.5 s, at 5 places"
    rest = book.tell(1000.0, last=True)
    assert rest is not None
    assert sum(int(re.match(r"[\d,]+", text)[0].replace(",", "")) for text in [text for _, text in told] + [rest]) == 2000  # type: ignore[index]


def test_after_a_long_quiet_time_a_gap_is_told_at_once_again() -> None:
    book = GapBook(first_s=5.0, cap_s=900.0)
    book.add(Gap(1, 2, 0.0))
    assert book.tell(0.0)
    assert book.tell(900.0) is None
    book.add(Gap(1, 2, 0.0))
    assert book.tell(901.0) == "1 line (2 bytes) dropped within 0.0 s"


def test_a_quick_place_is_waited_for_and_a_slow_one_hardly() -> None:
    quick = Patience(hold_s=0.25, rest_s=10.0)
    assert [quick.holds(size, 100, at) for size, at in [(50, 0.0), (51, 0.1), (26, 0.2), (25, 0.3), (51, 0.4)]] == [
        False,
        True,
        True,
        False,
        True,
    ]
    slow = Patience(hold_s=0.25, rest_s=10.0)
    held = [at for at in range(10_000) if slow.holds(60, 100, at / 100)]
    assert len(held) == pytest.approx(0.25 / 10.25 * 10_000, rel=0.1)


# The log file


def files(current: int, *rotated: int, age_s: float = 0.0, available: int = 1000 * MIB) -> Files:
    return Files(current, age_s, tuple((f"log.{index:06d}", held) for index, held in enumerate(rotated, 1)), available)


def test_a_young_and_small_file_is_left_alone() -> None:
    due = plan(files(MIB, MIB), Limits(), paused=False)
    assert (due.rotate, due.remove, due.pause) == (False, (), False)


@pytest.mark.parametrize(
    ("there", "rotate"),
    [
        (files(64 * MIB - 1), False),
        (files(64 * MIB), True),
        (files(1, age_s=86_400.0), True),
        (files(0, age_s=86_400.0), False),
    ],
)
def test_rotation_by_size_and_age(there: Files, rotate: bool) -> None:  # noqa: FBT001 - a case
    assert plan(there, Limits(), paused=False).rotate is rotate


def test_the_oldest_beyond_the_number_are_removed() -> None:
    assert plan(files(MIB, 1, 1, 1), Limits(files_max=2), paused=False).remove == ("log.000001",)
    assert plan(files(64 * MIB, 1, 1), Limits(files_max=2), paused=False).remove == ("log.000001",)


def test_the_cap_is_a_share_of_what_is_available_to_the_log() -> None:
    assert plan(files(10 * MIB, 10 * MIB, available=80 * MIB), Limits(share=0.2), paused=False).cap_bytes == 20 * MIB


def test_removing_for_room_goes_on_below_the_cap() -> None:
    """Own 24, cap 20.8: down to 80 % of it, so that not every line removes a file."""
    due = plan(files(4 * MIB, *[2 * MIB] * 10, available=80 * MIB), Limits(share=0.2, files_max=99), paused=False)
    assert due.cap_bytes == int(0.2 * 104 * MIB)
    assert len(due.remove) == 4


def test_a_disk_that_fills_up_keeps_the_last_lines() -> None:
    """Everything was written when there was room; now others have it all."""
    due = plan(files(60 * MIB, 64 * MIB, 64 * MIB, available=0), Limits(), paused=False)
    assert due.rotate
    assert due.remove == ("log.000001", "log.000002")
    after = plan(files(0, 60 * MIB, available=0), Limits(), paused=False)
    assert after.remove == ()
    later = plan(files(KEPT_BYTES_MIN, 60 * MIB, available=0), Limits(), paused=False)
    assert later.remove == ("log.000001",)


def test_writing_pauses_and_goes_on_at_two_thresholds() -> None:
    low, between, high = (int(cap / 0.2) + 5 for cap in (1.9 * KEPT_BYTES_MIN, 3 * KEPT_BYTES_MIN, 4 * KEPT_BYTES_MIN))
    assert plan(files(0, available=low), Limits(), paused=False).pause
    assert not plan(files(0, available=between), Limits(), paused=False).pause
    assert plan(files(0, available=between), Limits(), paused=True).pause
    assert not plan(files(0, available=high), Limits(), paused=True).pause


@given(st.integers(1, 40), st.integers(0, 64), st.integers(0, 20))
def test_what_a_log_holds_is_bounded(megabytes: int, disk: int, files_max: int) -> None:
    """Written to without end, it stays within its share, plus the one file that is kept for its last lines."""
    limits = Limits(size_bytes_max=2 * MIB, files_max=files_max)
    rotated: list[tuple[str, int]] = []
    current, number, paused = 0, 0, False
    for _ in range(megabytes * 8):
        own = current + sum(held for _, held in rotated)
        due = plan(Files(current, 0.0, tuple(rotated), disk * MIB - own), limits, paused=paused)
        paused = due.pause
        rotated = [kept for kept in rotated if kept[0] not in due.remove]
        if due.rotate:
            number += 1
            rotated.append((str(number), current))
            current = 0
        if not paused:
            current += MIB // 8
        assert len(rotated) <= max(1, files_max)
        assert current + sum(held for _, held in rotated) <= max(0.2 * disk * MIB, 0) + 2 * MIB


@pytest.mark.parametrize(
    "wrong", [{"size_bytes_max": 0}, {"age_s_max": 0}, {"files_max": -1}, {"share": 0}, {"share": 1.1}, {"leave": 0}]
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        Limits(**wrong)


# Who spins


def test_a_spell_of_spinning_is_told_once_and_its_end_once() -> None:
    watch = SpinWatch(SpinLimits(enter=0.9, leave=0.5, enter_s=30.0))
    cpu_s, told = 0.0, []
    for step in range(40):
        busy = 10 <= step < 30
        cpu_s += 5.0 if busy else 0.1
        told += [(step, change.began, round(change.share, 2)) for change in watch.sample({7: cpu_s}, 5.0 * step)]
        assert watch.spins == (15 <= step < 30)
    assert told == [(15, True, 1.0), (30, False, pytest.approx(0.95, abs=0.02))]
    assert watch.spells == 1


@pytest.mark.parametrize(("share", "spins"), [(0.89, False), (0.92, True), (3.0, True)])
def test_the_threshold(share: float, spins: bool) -> None:  # noqa: FBT001 - a case
    watch = SpinWatch()
    for step in range(20):
        watch.sample({1: share * 5 * step}, 5.0 * step)
    assert watch.spins is spins
    assert watch.share == pytest.approx(share)


def test_one_slow_sample_is_no_end_but_many_are_no_beginning() -> None:
    watch = SpinWatch()
    cpu_s, begins = 0.0, 0
    for step in range(100):
        # 95 % of a core on average at first, then 80 %: between the thresholds the spell goes on.
        cpu_s += (5.0 if step % 2 else 4.5) if step < 20 else 4.0
        begins += sum(change.began for change in watch.sample({1: cpu_s}, 5.0 * step))
    assert begins == 1
    assert watch.spins


def test_a_new_process_under_an_old_number_starts_anew() -> None:
    watch = SpinWatch()
    for step in range(6):
        watch.sample({1: 5.0 * step}, 5.0 * step)
    for step in range(6, 12):
        assert watch.sample({1: 5.0 * (step - 6)}, 5.0 * step) == []
    assert watch.sample({}, 100.0) == []
    assert not watch.spins


def test_only_so_many_processes_are_watched() -> None:
    watch = SpinWatch(processes_max=3)
    for step in range(20):
        watch.sample(dict.fromkeys(range(10), 5.0 * step), 5.0 * step)
    assert watch.spells == 3


# What is told


def test_whole_lines_only_and_none_without_end() -> None:
    lines = WholeLines()
    assert [lines.feed(piece) for piece in (b"a\nb", b"c", b"\nd")] == [b"a\n", b"", b"bc\n"]
    assert lines.end() == b"d\n"
    assert lines.end() == b""
    broken = lines.feed(b"x" * LINE_BYTES_MAX)
    assert broken == b"x" * LINE_BYTES_MAX + b"\n"


def test_a_fold_that_fails_lets_every_line_through_and_says_so_once() -> None:
    class Broken(TextFold):
        def due(self, now: float) -> bytes:
            raise KeyError(now)

    said: list[str] = []
    folding = Safely(Broken(), said.append)
    assert folding.feed(b"one\n", 0.0) + folding.feed(b"  its rest\n", 0.0) == b""
    assert folding.next_due_at() is not None
    assert folding.due(1.0) == b"one\n  its rest\n"
    assert folding.next_due_at() is None
    assert folding.feed(b"two\n", 2.0) + folding.due(3.0) + folding.end(3.0) == b"two\n"
    assert said == ["folding failed, everything is passed on as it comes: KeyError: 1.0"]
