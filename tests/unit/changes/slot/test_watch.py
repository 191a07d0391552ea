"""A slot's state from samples: warned once, before it is lost, and told when it is over."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import Kind
from outlast.changes._slot.monitor import describe, fault_of
from outlast.changes._slot.watch import (
    GIB,
    MIB,
    SAMPLES_MAX,
    Evidence,
    Report,
    Sample,
    SlotState,
    SlotWatch,
    Thresholds,
    next_state,
)
from outlast.postgres.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN, OK, LAGGING, ENDANGERED, LOST = SlotState
HOLDER = Session(7, "shop", "app")


def expected(state: SlotState, evidence: Evidence) -> SlotState:
    """The table again, in words."""
    if Evidence.GONE in evidence:
        return LOST
    if Evidence.NEAR_LOSS in evidence or (state is ENDANGERED and Evidence.NOT_YET_SAFE in evidence):
        return ENDANGERED
    was_behind = state in {LAGGING, ENDANGERED}
    if Evidence.BEHIND in evidence or (was_behind and Evidence.NOT_YET_CAUGHT_UP in evidence):
        return LAGGING
    return OK


def test_the_table() -> None:
    members = list(Evidence)
    for state in SlotState:
        for count in range(len(members) + 1):
            for chosen in itertools.combinations(members, count):
                evidence = Evidence.NOTHING
                for each in chosen:
                    evidence |= each
                assert next_state(state, evidence) is expected(state, evidence)


@pytest.mark.parametrize(
    "wrong",
    [{"lag_s": (1.0, 2.0)}, {"lag_bytes": (1, 2)}, {"share": (0.1, 0.5)}, {"share_max": (0.5, -0.1)}, {"loss_s": (2.0, 1.0)}],
)
def test_thresholds_that_would_flap_are_refused(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"is (left|entered) at"):
        Thresholds(**wrong)  # type: ignore[arg-type]


class Server:
    """A simple server: writes at a rate, keeps WAL for one slot up to a limit, and looks at the limit every so often."""

    def __init__(self, rate: float, limit: int | None, *, checkpoint_s: float = 5.0, step_s: float = 15.0) -> None:
        self.at, self.wal, self.rate, self.limit = 1000.0, 10.0 * GIB, rate, limit
        self.confirmed = self.restart = self.wal
        self.consuming, self.lost = True, False
        self.checkpoint_s, self.step_s = checkpoint_s, step_s
        self._checkpoint_at, self._step_at = self.at + checkpoint_s, self.at + step_s

    def advance(self, seconds: float) -> None:
        until = self.at + seconds
        while self.at < until:
            before, self.at = self.at, min(until, self._checkpoint_at, self._step_at)
            step_s = self.at - before
            self.wal += self.rate * step_s
            if self.consuming and not self.lost:
                self.confirmed = self.wal
            if self.at >= self._step_at:
                self._step_at += self.step_s
                self.restart = self.confirmed
            if self.at >= self._checkpoint_at:
                self._checkpoint_at += self.checkpoint_s
                self.lost = self.lost or (self.limit is not None and self.safe() < 0)

    def safe(self) -> int:
        assert self.limit is not None
        return int(self.restart + self.limit - self.wal)

    def sample(self) -> Sample:
        status = "reserved"
        if self.limit is not None and self.safe() < 0:
            status = "unreserved"
        if self.lost:
            return Sample(self.at, int(self.wal), int(self.confirmed), None, "lost", None, self.limit)
        safe = None if self.limit is None else self.safe()
        holder = HOLDER if self.consuming else None
        return Sample(self.at, int(self.wal), int(self.confirmed), int(self.restart), status, safe, self.limit, None, holder)


def watched(server: Server, watch: SlotWatch, seconds: float, every_s: float = 10.0) -> Iterator[Report]:
    until = server.at + seconds
    while server.at < until:
        report = watch.take(server.sample())
        yield report
        server.advance(report.look_again_s(every_s))


def news(reports: list[Report]) -> list[tuple[SlotState, SlotState]]:
    return [(report.announced, report.state) for report in reports if report.announced is not None]


@given(rate=st.floats(1e3, 100e6), lasts_s=st.floats(30.0, 7200.0), calm_s=st.floats(0, 200), checkpoint_s=st.floats(1, 300))
def test_a_slot_is_warned_about_once_before_it_is_lost(rate: float, lasts_s: float, calm_s: float, checkpoint_s: float) -> None:
    limit = int(rate * lasts_s)
    server = Server(rate, limit, checkpoint_s=checkpoint_s)
    watch = SlotWatch(Thresholds(lag_s=(1e9, 1e9), lag_bytes=(2**60, 2**60)))
    calm = list(watched(server, watch, calm_s))
    server.consuming = False
    reports = list(watched(server, watch, 2 * limit / rate + 3 * checkpoint_s))
    while watch.state is not LOST:
        reports += watched(server, watch, 60.0)
    told = news(calm + reports)
    assert told[-2:] == [(OK, ENDANGERED), (ENDANGERED, LOST)]
    # Only a limit of a few steps of the restart position can be in danger and out of it while the consumer keeps up.
    assert len(told) == 2 or lasts_s < 120.0
    warned = next(report for report in reversed(reports) if report.announced is OK)
    assert warned.loss_s is not None
    assert not server.lost or warned.sample.at < server.at


def test_the_time_to_loss_is_what_it_turns_out_to_be() -> None:
    """16 MiB kept and 5 MB/s written: the case of the promise."""
    server, watch = Server(5e6, 32 * MIB, checkpoint_s=0.1), SlotWatch()
    server.consuming = False
    reports = list(watched(server, watch, 20.0))
    lost_at = next(report.sample.at for report in reports if report.state is LOST)
    warned = [report for report in reports if report.state is ENDANGERED]
    assert warned
    for report in warned:
        assert report.loss_s == pytest.approx(lost_at - report.sample.at, abs=0.7)
    assert news(reports) == [(OK, ENDANGERED), (ENDANGERED, LOST)]
    assert reports[-1].loss_s == 0.0
    assert reports[-1].look_again_s(10.0) == 10.0, "nothing is to be saved any more"


def test_a_consumer_that_keeps_up_is_never_warned_about() -> None:
    server, watch = Server(5e6, 4 * GIB), SlotWatch()
    reports = list(watched(server, watch, 600.0))
    assert news(reports) == []
    assert {report.state for report in reports} == {OK}
    assert all(report.wal_rate == pytest.approx(5e6, rel=0.01) for report in reports[2:])


def test_a_slot_without_limit_lags_but_is_not_lost() -> None:
    server, watch = Server(1e6, None), SlotWatch()
    server.consuming = False
    reports = list(watched(server, watch, 300.0))
    assert news(reports) == [(OK, LAGGING)]
    assert reports[-1].loss_s is None
    assert reports[-1].lag_s == pytest.approx(290.0, abs=1.0)
    server.consuming = True
    server.advance(1.0)
    assert news(list(watched(server, watch, 60.0))) == [(LAGGING, OK)]


def sample(at: float, wal: int, confirmed: int | None = None, **more: object) -> Sample:
    given_ = {"wal_status": "reserved", "restart": confirmed, **more}
    return Sample(at, wal, wal if confirmed is None else confirmed, **given_)  # type: ignore[arg-type]


def test_the_lag_in_seconds_is_interpolated() -> None:
    watch = SlotWatch()
    assert watch.take(sample(0.0, 1000, 500)).lag_s_is_least
    watch.take(sample(10.0, 2000, 500))
    report = watch.take(sample(20.0, 4000, 3000))
    assert (report.lag_bytes, report.lag_s, report.lag_s_is_least) == (1000, 5.0, False)
    report = watch.take(sample(30.0, 4000, 800))
    assert (report.lag_s, report.lag_s_is_least) == (30.0, True)
    assert watch.take(sample(40.0, 4000, 4000)).lag_s == 0.0


def test_an_idle_stream_that_confirms_late_does_not_lag_but_one_that_nobody_reads_does() -> None:
    held, free = SlotWatch(), SlotWatch()
    for tick in range(20):
        held.take(sample(tick * 10.0, 1000 + tick, 1000, holder=HOLDER))
        free.take(sample(tick * 10.0, 1000 + tick, 1000))
    assert (held.state, free.state) == (OK, LAGGING)


def test_a_look_that_fails_neither_warns_again_nor_forgets() -> None:
    watch = SlotWatch()
    bad = {"wal_status": "unreserved", "safe_bytes": 0, "limit_bytes": GIB}
    assert watch.take(sample(0.0, 1000, **bad)).announced is OK
    watch.missed()
    assert watch.state is UNKNOWN
    report = watch.take(sample(1.0, 1000, **bad))
    assert (report.state, report.announced) == (ENDANGERED, None)
    watch.missed()
    assert watch.take(sample(2.0, 1000)).announced is ENDANGERED


def test_a_slot_that_may_not_lie_unused_for_long_is_warned_about_in_time() -> None:
    """`idle_replication_slot_timeout` of PostgreSQL 18: an hour."""
    watch = SlotWatch(Thresholds(lag_s=(1e9, 1e9)))
    reports = [watch.take(sample(at, 1000, idle_s=at, idle_limit_s=3600.0)) for at in map(float, range(0, 3600, 60))]
    assert news(reports) == [(OK, ENDANGERED)]
    (warned,) = (report for report in reports if report.announced is not None)
    assert (warned.loss_s, warned.lost_by_idleness) == (600.0, True)
    assert warned.look_again_s(120.0) == 75.0
    told = describe("slot", warned)
    assert "will be lost in about 600 s: the server invalidates it after 3600 s unused" in told
    assert "used by nobody for 3000 s" in told
    fault = fault_of("slot", warned)
    assert fault is not None
    assert "idle_replication_slot_timeout = 0" in fault.hint
    used = watch.take(sample(3600.0, 1000, idle_limit_s=3600.0, holder=HOLDER))
    assert (used.state, used.announced, used.loss_s) == (OK, ENDANGERED, None)


def test_a_slot_that_was_made_again_begins_anew() -> None:
    watch = SlotWatch()
    assert watch.take(sample(0.0, 1000, wal_status=None)).state is LOST
    nearly = {"safe_bytes": int(0.6 * GIB), "limit_bytes": GIB}
    assert watch.take(sample(1.0, 2000, **nearly)).state is OK


def test_after_a_failover_nothing_is_measured_against_the_other_server() -> None:
    watch = SlotWatch()
    watch.take(sample(0.0, 10 * GIB))
    report = watch.take(sample(1.0, 1 * GIB))
    assert (report.wal_rate, report.growth_rate, report.lag_s) == (0.0, 0.0, 0.0)


SAMPLES = st.builds(
    Sample,
    at=st.just(0.0),
    wal=st.integers(0, 2**50),
    confirmed=st.none() | st.integers(0, 2**50),
    restart=st.none() | st.integers(0, 2**50),
    wal_status=st.sampled_from([None, "reserved", "extended", "unreserved", "lost"]),
    safe_bytes=st.none() | st.integers(-(2**40), 2**40),
    limit_bytes=st.none() | st.integers(0, 2**40),
    invalidation=st.none() | st.just("idle_timeout"),
    holder=st.none() | st.just(HOLDER),
    idle_s=st.none() | st.floats(0.0, 1e9),
    idle_limit_s=st.none() | st.floats(1.0, 1e9),
)


@given(st.lists(st.tuples(st.floats(-5.0, 1e6), SAMPLES, st.booleans()), max_size=40))
def test_whatever_the_server_says(steps: list[tuple[float, Sample, bool]]) -> None:
    watch, told, at = SlotWatch(), OK, 0.0
    for gap_s, given_, missed in steps:
        if missed:
            watch.missed()
        at += gap_s
        current = Sample(at, *[getattr(given_, name) for name in Sample.__slots__[1:]])
        report = watch.take(current)
        if report.announced is None:
            assert report.state is told, "a change is told"
        else:
            assert (report.announced, report.announced is report.state) == (told, False), "once"
        told = report.state
        gone = current.wal_status in {None, "lost"} or current.invalidation is not None
        assert (report.state is LOST) == gone
        if current.wal_status == "unreserved" and not gone:
            assert report.state is ENDANGERED
        assert min(report.lag_s, report.lag_bytes, report.retained_bytes, report.wal_rate, report.growth_rate) >= 0
        assert 0 < report.look_again_s(10.0) <= 10.0
        assert describe("slot", report)
        assert (fault_of("slot", report) is None) == (report.state is OK)


def test_the_memory_is_bounded_and_reaches_far_back() -> None:
    watch = SlotWatch()
    for tick in range(10_000):
        watch.take(sample(float(tick), 1000 * (tick + 1), 1000))
        assert len(watch._samples) <= SAMPLES_MAX
    assert watch.take(sample(10_000.0, 20_000_000, 1000)).lag_s == 10_000.0


def test_what_people_are_told() -> None:
    watch = SlotWatch()
    watch.take(sample(0.0, 10 * GIB, restart=10 * GIB, safe_bytes=64 * MIB, limit_bytes=64 * MIB, holder=HOLDER))
    at_4 = sample(
        4.0, 10 * GIB + 40 * MIB, 10 * GIB, restart=10 * GIB, safe_bytes=24 * MIB, limit_bytes=64 * MIB, wal_status="extended"
    )
    report = watch.take(at_4)
    fault = fault_of("shop", report, "postgres")
    assert fault is not None
    assert (fault.kind, fault.code) == (Kind.EXHAUSTED, "wal")
    assert fault.reason == (
        "slot shop will be lost in about 2 s: 24.0 MiB of WAL left at 10.0 MiB/s, wal_status extended, "
        "40.0 MiB and 4 s behind, used by nobody"
    )
    assert "ALTER SYSTEM SET max_slot_wal_keep_size = '1024MB'; SELECT pg_reload_conf()" in fault.hint
    lost = fault_of("shop", watch.take(sample(5.0, 11 * GIB, 10 * GIB, wal_status="lost")))
    assert lost is not None
    assert lost.kind is Kind.PERMANENT
    assert lost.hint.startswith("SELECT pg_drop_replication_slot('shop'); SELECT pg_create_logical_replication_slot")
    gone = fault_of("shop", watch.take(sample(6.0, 11 * GIB, wal_status=None)))
    assert gone is not None
    assert gone.hint.startswith("SELECT pg_create_logical_replication_slot")
