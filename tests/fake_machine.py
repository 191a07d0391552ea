"""A machine whose clocks a test sets, and the clock of a store on it."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.procedures._stores.clock import StoreClock


@dataclass
class Machine:
    """What a machine has that a clock looks at."""

    boot: str = "first"
    up_s: float = 1_000.0
    wall_s: float = 1_700_000_000.0

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.up_s += seconds

    def starts_again(self, wall_s: float) -> None:
        self.boot, self.up_s, self.wall_s = self.boot + " again", 10.0, wall_s


class MachineClock(StoreClock):
    """The clock of a process on it that has just started."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        super().__init__()

    def since_start(self) -> float:
        return self._machine.up_s

    def wall(self) -> float:
        return self._machine.wall_s

    def boot_id(self) -> str:
        return self._machine.boot
