"""Which segments retention gives up: by age, by size, and for a disk that is low."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from outlast.streams import Retention
from outlast.streams._retention import LATE_S, ClosedSegment, Drop, Freed, Held, Reason, plan

NOW = 1_000_000.0
MIB = 1 << 20


def held(name: str, *ages_s: float, size: int = MIB, active: int = 0, **options: object) -> Held:
    """A stream of one closed segment for each age, oldest first."""
    retention = replace(Retention(floor_s=0.0), **options)
    return Held(name, retention, [ClosedSegment(size, NOW - age) for age in ages_s], size * len(ages_s) + active)


def test_nothing_goes_by_default() -> None:
    assert plan([held("a", 1e9, 1e8), held("b")], NOW, missing_bytes=1 << 40) == []


def test_a_segment_goes_when_all_its_records_are_too_old() -> None:
    assert plan([held("a", 101.0, 100.0, 50.0, age_s=100.0)], NOW) == [Drop("a", 1, MIB, (Reason.AGE,))]


def test_the_oldest_go_until_the_stream_fits_its_size_with_the_segment_that_is_written() -> None:
    stream = held("a", 3.0, 2.0, 1.0, active=MIB // 2, size_bytes=2 * MIB)
    assert plan([stream], NOW) == [Drop("a", 2, 2 * MIB, (Reason.SIZE,))]
    assert plan([held("a", active=9 * MIB, size_bytes=MIB)], NOW) == [], "the segment that is written stays"


def test_no_reason_reaches_data_younger_than_the_floor() -> None:
    stream = held("a", 4000.0, 3599.0, 4000.0, age_s=10.0, size_bytes=0, when_low=True, floor_s=3600.0)
    assert plan([stream], NOW, missing_bytes=1 << 40) == [Drop("a", 1, MIB, (Reason.AGE,))], "nor what stands behind it"


def test_a_record_from_the_future_is_young() -> None:
    assert plan([held("a", -50.0, age_s=1.0)], NOW) == []


def test_for_a_low_disk_the_oldest_data_over_all_streams_goes_and_only_what_is_needed() -> None:
    streams = [
        held("a", 50.0, 20.0, 10.0, when_low=True),
        held("b", 40.0, 30.0, when_low=True),
        held("kept", 9000.0),
    ]
    assert plan(streams, NOW, missing_bytes=2 * MIB + 1) == [
        Drop("a", 1, MIB, (Reason.LOW,)),
        Drop("b", 2, 2 * MIB, (Reason.LOW,)),
    ]
    assert plan(streams, NOW, missing_bytes=None) == plan(streams, NOW, missing_bytes=0) == []


def test_what_goes_by_age_counts_for_a_low_disk() -> None:
    streams = [held("old", 500.0, 400.0, age_s=100.0), held("a", 50.0, 20.0, when_low=True)]
    assert plan(streams, NOW, missing_bytes=2 * MIB) == [Drop("old", 2, 2 * MIB, (Reason.AGE,))]
    both = held("both", 500.0, 50.0, age_s=100.0, when_low=True)
    assert plan([both], NOW, missing_bytes=2 * MIB) == [Drop("both", 2, 2 * MIB, (Reason.AGE, Reason.LOW))]


def looks(returns_after_s: float | None, *, other_writers: int = 0) -> list[tuple[int, int]]:
    """A low disk, looked at once a second for 40 s, which shows deleted segments late. Returns when how many went."""
    stream = held("a", *range(100, 0, -1), when_low=True)
    missing, freed, gone, due = 3 * MIB, Freed(), list[tuple[int, int]](), list[tuple[float, int]]()
    for second in range(40):
        now = NOW + second
        missing += other_writers
        missing -= sum(size for at, size in due if at <= now)
        due = [(at, size) for at, size in due if at > now]
        lacks = missing if missing > 0 else None
        freed = freed.looked(now, lacks)
        for drop in plan([stream], now, missing_bytes=lacks, freed=freed):
            gone.append((second, drop.segments))
            stream = replace(stream, segments=stream.segments[drop.segments :])
            freed = freed.deleted(now, drop.size_bytes)
            if returns_after_s is not None:
                due.append((now + returns_after_s, drop.size_bytes))
    return gone


def test_room_that_returns_late_costs_no_segment_more() -> None:
    assert looks(returns_after_s=0.5) == looks(returns_after_s=3.0) == looks(returns_after_s=20.0) == [(0, 3)]


def test_room_that_never_returns_is_waited_for_and_then_found_elsewhere() -> None:
    assert looks(returns_after_s=None) == [(0, 3), (int(LATE_S), 3)]


def test_what_others_write_meanwhile_is_made_room_for() -> None:
    gone = looks(returns_after_s=3.0, other_writers=MIB // 4)
    written = 3 + 40 / 4
    assert written - 1 <= sum(segments for _, segments in gone) <= written + 4
    assert max(segments for second, segments in gone if second) == 1, "a segment at a time, as it is needed"


def test_a_clock_that_is_set_back_makes_no_debt_that_never_ends() -> None:
    freed = Freed(10).deleted(NOW, 5)
    assert freed.looked(NOW - 1000.0, 10).owed_bytes == 0
    assert freed.looked(NOW + 1.0, 8).owed_bytes == 3


Drawn = tuple[list[tuple[int, float]], bool, float | None, int | None]
SEGMENTS = st.lists(st.tuples(st.integers(1, 100), st.floats(-100.0, 5000.0)), max_size=6)
STREAMS = st.lists(
    st.tuples(SEGMENTS, st.booleans(), st.none() | st.floats(0, 3000), st.none() | st.integers(0, 300)), max_size=4
)


@given(STREAMS, st.integers(0, 500))
def test_the_floor_holds_and_no_segment_goes_without_need(drawn: list[Drawn], missing: int) -> None:
    streams = {
        str(place): Held(
            str(place),
            Retention(age_s, size, when_low, floor_s=1000.0),
            [ClosedSegment(size, NOW - age) for size, age in sorted(segments, key=lambda each: -each[1])],
            sum(size for size, _ in segments),
        )
        for place, (segments, when_low, age_s, size) in enumerate(drawn)
    }
    drops = plan(streams.values(), NOW, missing_bytes=missing)
    gone = {drop.stream: streams[drop.stream].segments[: drop.segments] for drop in drops}
    for drop in drops:
        assert sum(segment.size_bytes for segment in gone[drop.stream]) == drop.size_bytes
        assert all(segment.youngest_s <= NOW - 1000.0 for segment in gone[drop.stream])
        assert streams[drop.stream].retention.when_low or Reason.LOW not in drop.reasons
    for_the_disk = [gone[drop.stream][-1].size_bytes for drop in drops if Reason.LOW in drop.reasons]
    total = sum(drop.size_bytes for drop in drops)
    assert not for_the_disk or any(total - last < missing for last in for_the_disk), "the last one was needed"
