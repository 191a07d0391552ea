"""Decides whether a process spins on a processor, from samples of the processor time it has used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Spinning:
    """One process that began or ceased to spin."""

    pid: int
    share: float
    """Of one core, since it crossed the threshold; above 1 with several threads."""
    lasted_s: float
    began: bool


@dataclass(frozen=True, slots=True)
class SpinLimits:
    """A process spins that uses more than `enter` of one core, on average over `enter_s` or more and never less than
    `leave`; it has ceased once it uses less than `leave` between two samples. Two thresholds, so that it does not flap.
    """

    enter: float = 0.9
    leave: float = 0.5
    enter_s: float = 30.0


@dataclass(slots=True)
class _Watched:
    at: float
    cpu_s: float
    busy_at: float | None = None
    """The time at which it was first above `enter`."""
    busy_cpu_s: float = 0.0
    spins: bool = False


@dataclass(slots=True)
class SpinWatch:
    """Watches up to `processes_max` processes; each spell of spinning is told once, and its end once."""

    limits: SpinLimits = field(default_factory=SpinLimits)
    processes_max: int = 64
    share: float = 0.0
    """Of one core, by the busiest process between the last two samples."""
    spells: int = 0
    _watched: dict[int, _Watched] = field(default_factory=dict[int, _Watched])

    @property
    def spins(self) -> bool:
        """Whether any process spins now."""
        return any(watched.spins for watched in self._watched.values())

    def sample(self, cpu_s_of: Mapping[int, float], now: float) -> list[Spinning]:
        """Take the processor seconds used so far by each process id, and return what has changed."""
        for pid in [pid for pid in self._watched if pid not in cpu_s_of]:
            del self._watched[pid]
        self.share = 0.0
        changes: list[Spinning] = []
        for pid, cpu_s in cpu_s_of.items():
            known = self._watched.get(pid)
            if known is None or cpu_s < known.cpu_s:
                # Less time than before is another process under the same number.
                if known is not None or len(self._watched) < self.processes_max:
                    self._watched[pid] = _Watched(now, cpu_s)
            elif now > known.at:
                change = self._look(pid, known, cpu_s, now)
                changes += [change] if change else []
        return changes

    def _look(self, pid: int, known: _Watched, cpu_s: float, now: float) -> Spinning | None:
        share = (cpu_s - known.cpu_s) / (now - known.at)
        self.share = max(self.share, share)
        if known.busy_at is None and share > self.limits.enter:
            known.busy_at, known.busy_cpu_s = known.at, known.cpu_s
        change = None
        if known.busy_at is not None:
            lasted_s = now - known.busy_at
            mean = (cpu_s - known.busy_cpu_s) / lasted_s
            if known.spins and share < self.limits.leave:
                change = Spinning(pid, mean, lasted_s, began=False)
                known.spins, known.busy_at = False, None
            elif not known.spins and (share < self.limits.leave or mean <= self.limits.enter):
                known.busy_at = None
            elif not known.spins and lasted_s >= self.limits.enter_s:
                known.spins = True
                self.spells += 1
                change = Spinning(pid, mean, lasted_s, began=True)
        known.at, known.cpu_s = now, cpu_s
        return change
