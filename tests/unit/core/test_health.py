"""The state machine of one dependency, step by step and against a simple model."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outlast._core.backoff import INITIAL
from outlast._core.faults import Fault, Kind, Scope
from outlast._core.health import Action, Health, HealthPolicy, State

POLICY = HealthPolicy()
REFUSED = Fault(Kind.TRANSIENT, "ECONNREFUSED", "connection refused", "db")
DENIED = Fault(Kind.PERMANENT, "28P01", "password authentication failed", "db")
ENDED = Fault(Kind.FATAL, "EIO", "input/output error", "db", Scope.CHILD)


def down(fault: Fault = REFUSED, now: float = 0.0) -> Health:
    health, action = POLICY.fault(Health(), fault, now, random.Random(1))
    assert action is Action.OPEN
    return health


def test_the_first_fault_opens_and_is_kept() -> None:
    health = down()
    assert health.state is State.DOWN
    later, action = POLICY.fault(health, DENIED, 1.0, random.Random(1))
    assert action is None
    assert later.first is REFUSED
    assert later.last is DENIED


def test_probes_start_at_a_tenth_of_a_second_and_grow_to_one_and_a_half() -> None:
    rng, health = random.Random(5), down()
    assert health.probe_at is not None
    assert 0.1 <= health.probe_at <= 0.3
    now, waits = 0.0, []
    for _ in range(200):
        waits.append(health.probe_at - now)
        now = health.probe_at
        health = POLICY.probe_failed(health, REFUSED, now, rng)
        assert health.probe_at is not None
    assert max(waits) <= 1.5 + 1e-9
    assert max(waits) > 1.3
    assert min(waits) >= 0.1 - 1e-9
    assert 60 / (sum(waits[10:]) / len(waits[10:])) < 75, "about an attempt a second"


def test_a_probe_that_passes_resolves_nothing() -> None:
    health, action = POLICY.probe_passed(down(), 20.0)
    assert (health.state, action) == (State.RECOVERING, Action.RELEASE)
    assert health.first is REFUSED
    assert POLICY.tick(health, 1e6)[1] is None, "nothing has worked yet: unknown is not well"


def test_work_that_lasts_resolves() -> None:
    health, _ = POLICY.probe_passed(down(), 20.0)
    health, action = POLICY.worked(health, 20.1)
    assert action is None
    assert POLICY.tick(health, 49.9)[1] is None
    health, action = POLICY.tick(health, 50.0)
    assert (health.state, action) == (State.UP, Action.RESOLVE)
    assert (health.first, health.relapse, health.epoch) == (None, INITIAL, 1)


def test_flapping_is_one_incident_and_waits_longer_each_time() -> None:
    """Each session lives 50 ms: at most 12 of them in ten seconds, and one OPEN."""
    for seed in range(200):
        rng = random.Random(seed)
        health, actions, now, sessions = Health(), [], 0.0, 0
        while now < 10.0:
            health, action = POLICY.fault(health, REFUSED, now, rng)
            actions.append(action)
            assert health.probe_at is not None
            now = health.probe_at
            health, action = POLICY.probe_passed(health, now)
            sessions += 1
            health, _ = POLICY.worked(health, now + 0.01)
            now += 0.05
        assert sessions <= 8
        assert actions.count(Action.OPEN) == 1


def test_the_hold_after_a_relapse_grows_to_its_cap_however_well_the_probe_does() -> None:
    rng, health, now, holds = random.Random(2), down(), 0.0, []
    for _ in range(12):
        health, _ = POLICY.probe_passed(health, now)
        health, action = POLICY.fault(health, REFUSED, now, rng)
        assert action is Action.HOLD
        assert health.probe_at is not None
        holds.append(health.probe_at - now)
        now = health.probe_at
    assert holds[0] <= 0.5
    assert all(2.5 <= hold <= 5.0 for hold in holds[4:])


def test_a_permanent_fault_is_asked_about_slowly_and_a_transient_one_quickly_again() -> None:
    rng, health = random.Random(1), down(DENIED)
    assert health.probe_at is not None
    assert health.probe_at >= 2.5
    now = health.probe_at
    health = POLICY.probe_failed(health, DENIED, now, rng)
    assert health.probe_at is not None
    assert health.probe_at - now >= 5.0
    now = health.probe_at
    health = POLICY.probe_failed(health, REFUSED, now, rng)
    assert health.probe_at is not None
    assert health.probe_at - now <= 0.4


def test_what_the_peer_asks_for_is_obeyed() -> None:
    busy = Fault(Kind.OVERLOADED, "429", "slow down", "api", retry_after_s=7.0)
    assert (down(busy).probe_at or 0.0) >= 7.0


def test_the_refusal_never_says_at_once() -> None:
    health = down()
    assert POLICY.retry_after_s(health, 0.0) >= 0.1
    assert POLICY.retry_after_s(health, 1e6) == 0.1


def test_what_has_ended_is_not_probed_until_somebody_says_that_it_is_mended() -> None:
    health = down(ENDED)
    assert health.lost
    assert health.probe_at is None
    assert POLICY.retry_after_s(health, 1.0) == POLICY.permanent.cap_s
    assert POLICY.probe_passed(health, 1.0) == (health, None), "a probe that was under way proves nothing any more"
    health = POLICY.try_again(health, 5.0)
    assert (health.state, health.probe_at, health.first) == (State.DOWN, 5.0, ENDED)
    lost_again = POLICY.probe_failed(health, ENDED, 6.0, random.Random(1))
    assert lost_again.lost
    assert POLICY.probe_passed(health, 6.0)[0].state is State.RECOVERING


def test_an_end_within_an_outage_is_what_everyone_is_told_from_then_on() -> None:
    health, action = POLICY.fault(down(REFUSED), ENDED, 1.0, random.Random(1))
    assert (health.first, health.lost, action) == (ENDED, True, None)
    assert POLICY.fault(health, REFUSED, 2.0, random.Random(1))[0].first is ENDED
    back, _ = POLICY.probe_passed(down(REFUSED), 1.0)
    health, action = POLICY.fault(back, ENDED, 2.0, random.Random(1))
    assert (health.first, health.lost, action) == (ENDED, True, Action.HOLD)


def test_only_what_is_lost_can_be_tried_again() -> None:
    assert POLICY.try_again(down(REFUSED), 0.0) == down(REFUSED)


class HealthMachine(RuleBasedStateMachine):
    """Any order of inputs at any times: what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(0)
        self.now = 0.0
        self.health = Health()
        self.opened = self.resolved = 0
        self.last_fault_at = -1.0
        self.first: Fault | None = None

    def take(self, result: tuple[Health, Action | None]) -> None:
        self.health, action = result
        self.opened += action is Action.OPEN
        self.resolved += action is Action.RESOLVE
        if action is Action.RESOLVE:
            assert self.now - self.last_fault_at >= 30.0
            self.first = None

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(POLICY.tick(self.health, self.now))

    @rule(fault=st.sampled_from([REFUSED, DENIED, ENDED]))
    def fail(self, fault: Fault) -> None:
        self.first = fault if self.first is None or fault is ENDED else self.first
        self.last_fault_at = self.now
        self.take(POLICY.fault(self.health, fault, self.now, self.rng))

    @precondition(lambda self: self.health.state is State.DOWN)
    @rule()
    def probe_fails(self) -> None:
        self.health = POLICY.probe_failed(self.health, REFUSED, self.now, self.rng)

    @rule()
    def mend(self) -> None:
        self.health = POLICY.try_again(self.health, self.now)

    @rule()
    def probe_passes(self) -> None:
        self.take(POLICY.probe_passed(self.health, self.now))

    @rule()
    def work(self) -> None:
        self.take(POLICY.worked(self.health, self.now))

    @invariant()
    def holds(self) -> None:
        assert self.opened - self.resolved in {0, 1}
        is_open = self.opened > self.resolved
        assert (self.health.state is State.UP) is not is_open
        assert self.health.first is self.first
        assert (self.health.probe_at is not None) is (self.health.state is State.DOWN and not self.health.lost)
        assert not self.health.lost or self.health.first is ENDED


TestHealthMachine = HealthMachine.TestCase
TestHealthMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
