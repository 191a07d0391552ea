"""The clock of a store whose server tells no time."""

from __future__ import annotations

from outlast.procedures._stores.clock import StoreClock

WALL = 1_800_000_000.0


class Machine:
    """A machine whose wall clock is wrong by `skew_s`."""

    def __init__(self, boot: str, up_s: float = 100.0, skew_s: float = 0.0) -> None:
        self.boot = boot
        self.up_s = up_s
        self.wall = WALL + skew_s

    def passes(self, seconds: float) -> None:
        self.up_s += seconds
        self.wall += seconds

    def process(self) -> StoreClock:
        return MachineClock(self)


class MachineClock(StoreClock):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        super().__init__()

    def since_start(self) -> float:
        return self._machine.up_s

    def wall(self) -> float:
        return self._machine.wall

    def boot_id(self) -> str:
        return self._machine.boot


def test_a_step_of_the_wall_clock_changes_nothing_while_the_machine_is_up() -> None:
    machine = Machine("one")
    first = machine.process()
    first.adopt(None)
    for step_s in (600.0, -1_200.0):
        machine.wall += step_s
        machine.passes(5.0)
    assert first.now() == WALL + 10.0
    second = machine.process()
    second.adopt(first.kept())
    assert second.now() == first.now(), "a process that starts after the step goes on with the others"


def test_a_machine_that_comes_to_live_runners_takes_their_time() -> None:
    for skew_s in (600.0, -600.0):
        there, comes = Machine("there").process(), Machine("comes", skew_s=skew_s).process()
        there.adopt(None)
        comes.adopt(there.kept(), [there.now()])
        assert comes.now() == there.now()


def test_a_machine_that_comes_alone_goes_on_from_the_time_last_seen_or_from_its_own() -> None:
    last = Machine("last").process()
    last.adopt(None)
    behind, ahead = Machine("behind", skew_s=-600.0).process(), Machine("ahead", skew_s=600.0).process()
    behind.adopt(last.kept())
    assert behind.now() == last.now(), "it does not go back"
    ahead.adopt(last.kept())
    assert ahead.now() == WALL + 600.0


def test_who_is_behind_follows_and_nobody_goes_back() -> None:
    clock = Machine("one").process()
    clock.adopt(None)
    clock.follow(WALL + 3.0)
    assert clock.now() == WALL + 3.0
    clock.follow(WALL + 1.0)
    assert clock.now() == WALL + 3.0
