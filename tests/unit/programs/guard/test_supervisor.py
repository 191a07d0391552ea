"""What the guard decides about its program, with times that are given."""

from __future__ import annotations

import random
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.backoff import Backoff, Jitter
from outlast._core.intensity import Restart
from outlast._programs.guard.supervisor import (
    GIVE_UP_S,
    Action,
    Forward,
    GuardPhase,
    Rules,
    Say,
    Start,
    Supervisor,
    Sweep,
    When,
)

EXACT = Backoff(base_s=1.0, cap_s=8.0, jitter=Jitter.NONE, sustained_s=30.0)


def guarding(when: When = When.NEVER, *, restarts: int | None = 100, period_s: float = 1000.0) -> Supervisor:
    rules = Rules(when, EXACT, Restart(restarts, period_s), stop_after_s=10.0)
    return Supervisor("shop", rules, random.Random(1))


def says(actions: list[Action]) -> list[str]:
    return [action.text for action in actions if isinstance(action, Say)]


def crash(guard: Supervisor, at: float, *, status: int = 1, ran_s: float = 0.0) -> list[Action]:
    """One run that begins at `at` and ends `ran_s` later."""
    assert guard.started(at) == []
    return guard.ended(status, at + ran_s, left=0)


def start_again(guard: Supervisor) -> float:
    """Go to the moment of the next start; gives it."""
    at = guard.next_due_at()
    assert at is not None
    assert guard.due(at - 0.001) == []
    assert guard.due(at) == [Start()]
    return at


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3, 3), (255, 255), (-9, 137), (-15, 143)])
def test_the_exit_code_is_the_programs(status: int, code: int) -> None:
    guard = guarding()
    assert crash(guard, 5.0, status=status) == []
    assert (guard.phase, guard.exit_code) == (GuardPhase.ENDED, code)


@pytest.mark.parametrize(
    ("when", "status", "phase"),
    [
        (When.NEVER, 1, GuardPhase.ENDED),
        (When.ON_FAILURE, 0, GuardPhase.ENDED),
        (When.ON_FAILURE, 1, GuardPhase.WAITING),
        (When.ON_FAILURE, -11, GuardPhase.WAITING),
        (When.ALWAYS, 0, GuardPhase.WAITING),
        (When.ALWAYS, 1, GuardPhase.WAITING),
    ],
)
def test_what_is_started_again(when: When, status: int, phase: GuardPhase) -> None:
    guard = guarding(when)
    crash(guard, 5.0, status=status)
    assert guard.phase is phase


def test_waits_grow_and_only_a_long_run_resets_them() -> None:
    guard = guarding(When.ON_FAILURE)
    now, waits = 100.0, []
    for ran_s in (0.0, 0.0, 29.9, 0.0, 30.0, 0.0):
        crash(guard, now, ran_s=ran_s)
        at = start_again(guard)
        waits.append(at - now - ran_s)
        now = at
    assert waits == pytest.approx([1, 2, 4, 8, 1, 2])
    assert (guard.restarts, guard.failures) == (6, 6)


def test_a_run_that_lasts_is_said_to_be_well_once() -> None:
    guard = guarding(When.ALWAYS)
    crash(guard, 0.0)
    crash(guard, start_again(guard))
    now = start_again(guard)
    guard.started(now)
    assert guard.next_due_at() == now + 30.0
    assert guard.due(now + 29.9) == []
    assert says(guard.due(now + 30.0)) == ["shop has run for 30 s after 2 ends in a row: it is well"]
    assert guard.next_due_at() is None
    assert guard.due(now + 300.0) == []


def test_a_storm_of_restarts_is_few_lines_and_a_new_end_is_one_of_them() -> None:
    guard = guarding(When.ALWAYS, restarts=None)
    now, told = 0.0, []
    for count in range(1, 101):
        told += [(count, text) for text in says(crash(guard, now, status=7 if count == 50 else 1))]
        now = start_again(guard)
    assert [count for count, _ in told] == [1, 2, 4, 8, 16, 32, 50, 64]
    assert told[0][1] == "shop ended with 1 after 0.0 s; it is started again in 1.0 s"
    assert told[6][1] == "shop ended with 7 after 0.0 s; it is started again in 8.0 s (50 ends in a row)"


def test_too_many_restarts_end_it_with_the_last_code() -> None:
    guard = guarding(When.ON_FAILURE, restarts=3, period_s=60.0)
    now = 0.0
    for _ in range(3):
        crash(guard, now, status=1)
        now = start_again(guard)
    said = says(crash(guard, now, status=-11))
    assert said == [
        "shop ended with 139 (SIGSEGV) after 0.0 s; 3 restarts within 60 s did not help: the guard gives up with exit code 139"
    ]
    assert (guard.phase, guard.exit_code) == (GuardPhase.ENDED, 139)


def test_clean_ends_count_as_well_when_it_is_always_restarted() -> None:
    guard = guarding(When.ALWAYS, restarts=1)
    crash(guard, 0.0, status=0)
    crash(guard, start_again(guard), status=0)
    assert (guard.phase, guard.exit_code, guard.failures) == (GuardPhase.ENDED, 0, 0)


def test_a_program_that_never_was_there_ends_it_at_once() -> None:
    guard = guarding(When.ALWAYS)
    assert guard.not_started(127, "cannot run 'shop': no such file", 0.0) == [Say("cannot run 'shop': no such file")]
    assert (guard.phase, guard.exit_code) == (GuardPhase.ENDED, 127)


def test_a_program_that_vanishes_is_waited_for() -> None:
    guard = guarding(When.ON_FAILURE)
    crash(guard, 0.0)
    now = start_again(guard)
    assert says(guard.not_started(127, "cannot run 'shop'", now)) == [
        "shop could not be started: cannot run 'shop'; it is started again in 2.0 s (2 ends in a row)"
    ]
    assert (guard.phase, guard.exit_code) == (GuardPhase.WAITING, 127)


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGTERM, False),
        (signal.SIGHUP, False),
        (signal.SIGUSR1, False),
        (signal.SIGINT, True),
        (signal.SIGQUIT, True),
        (signal.SIGWINCH, True),
    ],
)
def test_signals_are_forwarded(number: int, group: bool) -> None:  # noqa: FBT001 - a case
    guard = guarding()
    guard.started(0.0)
    assert guard.asked(number, 1.0) == [Forward(number, group)]


def test_only_sigterm_starts_the_clock_and_a_second_one_does_not_move_it() -> None:
    guard = guarding()
    guard.started(0.0)
    guard.asked(signal.SIGINT, 1.0)
    assert guard.next_due_at() is None
    guard.asked(signal.SIGTERM, 2.0)
    guard.asked(signal.SIGTERM, 7.0)
    assert (guard.phase, guard.next_due_at()) == (GuardPhase.STOPPING, 12.0)
    assert guard.due(11.9) == []
    assert guard.due(12.0) == [Say("shop did not end within 10 s of SIGTERM and is killed"), Sweep(signal.SIGKILL)]
    assert guard.due(12.1) == []
    assert guard.ended(-9, 12.2, left=0) == []
    assert (guard.phase, guard.exit_code) == (GuardPhase.ENDED, 137)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_nothing_is_started_after_it_was_asked_to_end(number: int) -> None:
    guard = guarding(When.ALWAYS)
    guard.started(0.0)
    guard.asked(number, 1.0)
    guard.ended(1, 2.0, left=0)
    assert (guard.phase, guard.exit_code) == (GuardPhase.ENDED, 1)


@pytest.mark.parametrize(("status", "phase"), [(-signal.SIGHUP, GuardPhase.ENDED), (1, GuardPhase.WAITING)])
def test_a_program_that_a_hang_up_ended_stays_ended(status: int, phase: GuardPhase) -> None:
    guard = guarding(When.ALWAYS)
    guard.started(0.0)
    guard.asked(signal.SIGHUP, 1.0)
    guard.ended(status, 2.0, left=0)
    assert guard.phase is phase


@pytest.mark.parametrize(
    ("number", "phase"),
    [(signal.SIGTERM, GuardPhase.ENDED), (signal.SIGHUP, GuardPhase.ENDED), (signal.SIGUSR1, GuardPhase.WAITING)],
)
def test_a_wait_ends_when_it_is_asked_to(number: int, phase: GuardPhase) -> None:
    guard = guarding(When.ALWAYS)
    crash(guard, 0.0, status=4)
    assert guard.asked(number, 0.5) == []
    assert (guard.phase, guard.exit_code) == (phase, 4)
    assert (guard.next_due_at() is None) == (phase is GuardPhase.ENDED)


def test_a_program_that_starts_while_it_should_end_is_told() -> None:
    guard = guarding()
    assert guard.asked(signal.SIGINT, 0.0) == []
    assert guard.started(0.1) == [Forward(signal.SIGTERM)]
    assert guard.next_due_at() == 10.1


def test_what_is_left_behind_gets_the_time_for_stopping_and_no_more() -> None:
    guard = guarding(When.ALWAYS)
    guard.started(0.0)
    assert guard.ended(0, 5.0, left=2) == [Sweep(signal.SIGTERM)]
    assert (guard.phase, guard.next_due_at()) == (GuardPhase.CLEARING, 15.0)
    assert guard.due(15.0)[-1] == Sweep(signal.SIGKILL)
    assert guard.is_killing
    guard.cleared(15.1)
    assert guard.phase is GuardPhase.WAITING
    assert not guard.is_killing


def test_stopping_and_clearing_share_one_clock() -> None:
    guard = guarding()
    guard.started(0.0)
    guard.asked(signal.SIGTERM, 1.0)
    assert guard.ended(0, 9.0, left=1) == [Sweep(signal.SIGTERM)]
    assert guard.next_due_at() == 11.0


def test_what_cannot_be_killed_is_named_and_left() -> None:
    guard = guarding()
    guard.started(0.0)
    guard.asked(signal.SIGTERM, 0.0)
    guard.due(10.0)
    assert not guard.is_overdue(10.0 + GIVE_UP_S - 0.1)
    assert guard.next_due_at() == 10.0 + GIVE_UP_S
    assert guard.is_overdue(10.0 + GIVE_UP_S)
    assert says(guard.given_up([12, 7], 10.0 + GIVE_UP_S)) == [
        "2 of the processes of shop cannot be killed and are left behind: 7, 12"
    ]
    assert (guard.phase, guard.exit_code) == (GuardPhase.ENDED, 137)


@given(
    st.lists(
        st.tuples(st.sampled_from(["end", "fail", "left", "term", "int", "hup", "usr1", "wait"]), st.floats(0.0, 50.0)),
        max_size=60,
    )
)
def test_it_is_never_stuck_and_never_starts_what_should_end(steps: list[tuple[str, float]]) -> None:
    """Whatever comes: there is always a program, a wait or an end; once asked to end, nothing is started."""
    guard = guarding(When.ALWAYS, restarts=None)
    now, asked = 0.0, False
    guard.started(now)
    signals = {"term": signal.SIGTERM, "int": signal.SIGINT, "hup": signal.SIGHUP, "usr1": signal.SIGUSR1}
    for step, gap_s in steps:
        now += gap_s
        actions = guard.due(now)
        if Start() in actions:
            assert not asked
            actions += guard.started(now)
        if step in signals:
            actions += guard.asked(signals[step], now)
            asked = asked or step in {"term", "int"}
        running = guard.phase in {GuardPhase.RUNNING, GuardPhase.STOPPING}
        if running and step in {"end", "fail", "left"}:
            guard.ended(step == "fail", now, left=step == "left")
        elif guard.phase is GuardPhase.CLEARING and step == "wait":
            guard.cleared(now)
        match guard.phase:
            case GuardPhase.WAITING | GuardPhase.CLEARING | GuardPhase.STOPPING:
                assert guard.next_due_at() is not None
            case GuardPhase.ENDED:
                assert guard.next_due_at() is None
                return
            case GuardPhase.RUNNING | GuardPhase.STARTING:
                pass
