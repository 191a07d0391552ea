"""The judgement of a disk, without one: levels, conditions, speeds, and when to look again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import ConfigurationError
from outlast.disk import Thresholds
from outlast.disk._watch import (
    BYTES_LOW,
    INODES_LOW,
    LOOK_S_MAX,
    LOOK_S_MAX_LOW,
    LOOK_S_MIN,
    MIB,
    Allowance,
    Condition,
    Rules,
    Sample,
    Watch,
)
from outlast.extend import Levels, Room

if TYPE_CHECKING:
    from collections.abc import Iterable

GIB = 1024 * MIB
TOTAL = 64 * MIB


def room(available: float, total: int = TOTAL, inodes: int | None = None, total_inodes: int | None = None) -> Room:
    return Room(int(available), inodes, total, total_inodes)


def seen(levels: Iterable[float], total: int = TOTAL, *, every_s: float = 0.05, watch: Watch | None = None) -> list[Watch]:
    """All that was known after each sample."""
    watches: list[Watch] = []
    watch = watch or Watch()
    at = watch.read_at or 0.0
    for available in levels:
        at += every_s
        watch = watch.after(Sample(at, room(available, total)))
        watches.append(watch)
    return watches


@pytest.mark.parametrize(
    ("total", "enter", "leave"),
    [
        (1000 * GIB, 1024.0, 1536.0),
        (10 * GIB, 512.0, 768.0),
        (100 * MIB, 5.0, 9.0),
        (64 * MIB, 4.0, 8.0),
        (16 * MIB, 2.0, 4.5),
        (4 * MIB, 0.5, 2.0),
    ],
)
def test_levels_fit_the_size_of_the_disk(total: int, enter: float, leave: float) -> None:
    levels = BYTES_LOW.levels(total)
    assert (levels.enter / MIB, levels.leave / MIB) == pytest.approx((enter, leave))


@pytest.mark.parametrize(
    ("total", "enter", "leave"),
    [(20, 2, 10), (1000, 16, 32), (1_000_000, 10_000, 20_000), (10**9, 100_000, 200_000), (None, 16, 32)],
)
def test_levels_of_inodes_fit_their_number(total: int | None, enter: int, leave: int) -> None:
    assert INODES_LOW.levels(total) == Levels(enter, leave)


@given(total=st.integers(0, 1 << 50))
def test_there_are_two_levels_on_every_disk(total: int) -> None:
    for thresholds in (BYTES_LOW, INODES_LOW):
        levels = thresholds.levels(total)
        assert 0 <= levels.enter < levels.leave
        assert levels.enter <= total // 8


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"share": -0.1}, {"least": 5, "most": 4}, {"band": 0}, {"band_share": -1.0}])
def test_thresholds_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"thresholds of a disk need .* not share="):
        Thresholds(**wrong)  # type: ignore[arg-type] # floats in place of whole numbers, on purpose


@settings(deadline=None)
@given(
    total=st.integers(6 * MIB, 1 << 45),
    centre=st.integers(0, 1 << 45),
    swings=st.lists(st.integers(-MIB, MIB), min_size=2, max_size=60),
)
def test_a_swing_of_one_mebibyte_around_any_level_never_flaps(total: int, centre: int, swings: list[int]) -> None:
    levels = BYTES_LOW.levels(total)
    for at in (centre % total, levels.enter, levels.leave):
        assert seen([max(0, at + swing) for swing in swings], total)[-1].transitions <= 1


def test_between_the_levels_a_disk_stays_what_it_was() -> None:
    conditions = [watch.condition for watch in seen([x * MIB for x in (6, 4, 3.9, 7.9, 4, 8, 7, 4, 3)])]
    well, low = Condition.WELL, Condition.LOW_SPACE
    assert conditions == [well, well, low, low, low, well, well, well, low]


def test_hysteresis_hangs_on_no_edge_that_a_restart_could_miss() -> None:
    # Out at 10 %, in at 15 %: stopped at 9 %, freed to 12 %, started again there, freed to 20 %. There is no state file.
    rules = Rules(space=Levels(10, 15))
    stopped = Watch(rules).after(Sample(0, room(9)))
    lived_on = stopped.after(Sample(1, room(12)))
    assert lived_on.condition is Condition.LOW_SPACE
    started = Watch(rules).after(Sample(1, room(12)))
    for watch in (lived_on, started):
        assert watch.after(Sample(2, room(20))).condition is Condition.WELL


def test_a_disk_that_does_not_count_inodes_is_not_out_of_them() -> None:
    assert Watch().after(Sample(0, room(TOTAL, inodes=None))).condition is Condition.WELL
    assert Watch().after(Sample(0, room(TOTAL, inodes=0, total_inodes=20))).condition is Condition.LOW_INODES


def test_inodes_run_low_while_there_are_bytes_enough_and_come_back_at_the_upper_level() -> None:
    conditions, watch = [], Watch()
    for at, inodes in enumerate((100, 15, 16, 31, 32)):
        watch = watch.after(Sample(at, room(TOTAL, inodes=inodes, total_inodes=1000)))
        conditions.append(watch.condition)
    well, low = Condition.WELL, Condition.LOW_INODES
    assert conditions == [well, low, low, low, well]


def test_what_does_not_answer_is_unknown_and_nothing_else() -> None:
    watch = Watch().after(Sample(0, room(60 * MIB)))
    unknown = watch.after(Sample(1, None, "it hangs", hangs=True))
    assert (unknown.condition, unknown.reason, unknown.hangs) == (Condition.UNKNOWN, "it hangs", True)
    assert unknown.read_at == 0, "the last room that was seen is an old one"
    assert unknown.full_in_s is None
    assert unknown.next_look_s == LOOK_S_MAX_LOW
    back = unknown.after(Sample(2, room(60 * MIB)))
    assert (back.condition, back.hangs, back.transitions) == (Condition.WELL, False, 2)


def test_a_disk_that_was_low_before_it_did_not_answer_goes_on_at_the_upper_level() -> None:
    low = Watch().after(Sample(0, room(3 * MIB)))
    answers = low.after(Sample(1, None, "it hangs")).after(Sample(2, room(6 * MIB)))
    assert answers.condition is Condition.LOW_SPACE


def test_a_write_that_came_too_near_makes_the_disk_low() -> None:
    full = Watch().after(Sample(0, room(5 * MIB))).full(1)
    assert full.condition is Condition.LOW_SPACE
    assert full.after(Sample(2, room(7 * MIB))).condition is Condition.LOW_SPACE
    assert full.after(Sample(2, room(8 * MIB))).condition is Condition.WELL


def test_the_next_look_comes_sooner_the_nearer_the_level() -> None:
    total = 100 * GIB
    waits = [seen([level * MIB], total)[0].next_look_s for level in (99_000, 1800, 1300, 1024 + 100, 1024 + 20, 1024)]
    assert waits[0] == waits[1] == LOOK_S_MAX
    assert waits[-2] == waits[-1] == LOOK_S_MIN
    assert waits == sorted(waits, reverse=True)
    assert seen([0], total)[0].next_look_s == LOOK_S_MAX_LOW, "from below it is the upper level that may come"
    assert seen([1000 * MIB, 1530 * MIB], total)[1].next_look_s == LOOK_S_MIN


def test_the_next_look_comes_sooner_the_nearer_the_last_inode() -> None:
    def wait(inodes: int) -> float:
        return Watch().after(Sample(0, room(100 * GIB, 100 * GIB, inodes, 1_000_000))).next_look_s

    assert [wait(1_000_000), wait(10_000)] == [LOOK_S_MAX, LOOK_S_MIN]
    assert LOOK_S_MIN < wait(30_000) < LOOK_S_MAX


def test_a_disk_that_fills_faster_than_was_thought_is_looked_at_more_often() -> None:
    total = 100 * GIB
    slow = seen([10_000 * MIB, 9_999 * MIB], total)[-1]
    fast = seen([12_000 * MIB, 1_600 * MIB + 1024 * MIB], total, every_s=1.0)[-1]
    assert slow.next_look_s == LOOK_S_MAX
    assert fast.next_look_s < LOOK_S_MAX / 2


@pytest.mark.parametrize("speed", [1, 20, 60])
def test_a_neighbour_that_fills_the_disk_is_noticed_before_it_is_full(speed: int) -> None:
    watch, at = Watch(), 0.0
    while (available := TOTAL - at * speed * MIB) > 0 and watch.condition is not Condition.LOW_SPACE:
        watch = watch.after(Sample(at, room(available)))
        at += watch.next_look_s
    assert watch.condition is Condition.LOW_SPACE
    assert watch.room is not None
    assert watch.room.available_bytes > 4 * MIB - (speed * LOOK_S_MIN + 0.1) * MIB


def test_the_speed_is_that_of_some_seconds_and_the_time_until_full_follows() -> None:
    filling = seen([1000 * MIB - step * MIB for step in range(400)], GIB)[-1]
    assert filling.filling_bytes_s == pytest.approx(20 * MIB, rel=0.01)
    assert filling.full_in_s == pytest.approx(601 / 20, rel=0.01)
    still = seen([601 * MIB] * 400, GIB, watch=filling)[-1]
    assert abs(still.filling_bytes_s) < MIB / 10
    assert seen([500 * MIB, 600 * MIB], GIB)[-1].full_in_s is None, "what empties does not fill"


def test_looks_that_come_close_together_measure_no_speed() -> None:
    watch = seen([60 * MIB, 60 * MIB])[-1]
    again = watch.after(Sample((watch.read_at or 0) + 0.001, room(50 * MIB)))
    assert again.filling_bytes_s == watch.filling_bytes_s
    assert again.left_bytes == 46 * MIB


def test_what_may_be_written_without_a_look_is_more_the_farther_the_level() -> None:
    watch = Watch().after(Sample(10, room(60 * MIB)))
    allowance = watch.allowance()
    assert allowance == Allowance(56 * MIB, 4 * MIB, 10 + LOOK_S_MIN, 10 + 2 * watch.next_look_s)
    assert allowance.covers(52 * MIB, 10.1)
    assert not allowance.covers(52 * MIB + 1, 10.1), "near the level a look is soon an old one"
    assert allowance.covers(56 * MIB, 10.01)
    assert not allowance.covers(56 * MIB + 1, 10.01)
    assert not allowance.covers(1, 20)


def test_on_a_disk_that_is_not_well_nothing_may_be_written_without_a_look() -> None:
    assert Watch().allowance() is None
    assert Watch().after(Sample(0, room(MIB))).allowance() is None
    assert Watch().after(Sample(0, None, "it hangs")).allowance() is None
