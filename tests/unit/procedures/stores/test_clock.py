"""The clock of a store whose server tells no time."""

from __future__ import annotations

from fake_machine import Machine, MachineClock

WALL = 1_800_000_000.0


def machine_of(boot: str, skew_s: float = 0.0) -> Machine:
    """A machine whose wall clock is wrong by `skew_s`."""
    return Machine(boot, 100.0, WALL + skew_s)


def test_a_step_of_the_wall_clock_changes_nothing_while_the_machine_is_up() -> None:
    machine = machine_of("one")
    first = MachineClock(machine)
    first.adopt(None)
    for step_s in (600.0, -1_200.0):
        machine.wall_s += step_s
        machine.passes(5.0)
    assert first.now() == WALL + 10.0
    second = MachineClock(machine)
    second.adopt(first.kept())
    assert second.now() == first.now(), "a process that starts after the step goes on with the others"


def test_a_machine_that_comes_to_live_runners_takes_their_time() -> None:
    for skew_s in (600.0, -600.0):
        there, comes = MachineClock(machine_of("there")), MachineClock(machine_of("comes", skew_s=skew_s))
        there.adopt(None)
        comes.adopt(there.kept(), [there.now()])
        assert comes.now() == there.now()


def test_a_machine_that_comes_alone_goes_on_from_the_time_last_seen_or_from_its_own() -> None:
    last = MachineClock(machine_of("last"))
    last.adopt(None)
    behind, ahead = MachineClock(machine_of("behind", skew_s=-600.0)), MachineClock(machine_of("ahead", skew_s=600.0))
    behind.adopt(last.kept())
    assert behind.now() == last.now(), "it does not go back"
    ahead.adopt(last.kept())
    assert ahead.now() == WALL + 600.0


def test_who_is_behind_follows_and_nobody_goes_back() -> None:
    clock = MachineClock(machine_of("one"))
    clock.adopt(None)
    clock.follow(WALL + 3.0)
    assert clock.now() == WALL + 3.0
    clock.follow(WALL + 1.0)
    assert clock.now() == WALL + 3.0
