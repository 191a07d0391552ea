"""The report about a service that has ended: one line for people, the same as JSON for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMED_MAX: Final = 10
"""The most of a kind that the line names; the others are counted."""
KEPT_MAX: Final = 100
"""The most of a kind that the report keeps, of the service and all its children together; the others are counted."""


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """The time that a phase took, and the time it might have taken, in seconds."""

    phase: str
    took_s: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Somebody who held a phase until its deadline."""

    what: str
    """The worker, the holder of the gate, or the hook."""
    service: str
    """The path of the service it belongs to: `shop/mailer`."""
    phase: str
    held_s: float
    """For how long it had been at it, in seconds."""
    stack: tuple[str, ...]
    """The frames in which it stood, outermost first: `function (file.py:12)`."""

    def __str__(self) -> str:
        """Name it as the line does."""
        where = f" at {self.stack[-1]}" if self.stack else ""
        return f"{self.what} ({self.phase}, since {self.held_s:.1f} s{where})"


@dataclass(frozen=True, slots=True)
class StopReport:
    """The end of one service, its children included."""

    service: str
    reason: str
    exit_code: int
    took_s: float
    deadline_s: float
    hurried: bool = False
    """A second signal ended the drain early."""
    phases: tuple[PhaseTime, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    unfinished_count: int = 0
    """All of them, also those beyond the first 100 that `unfinished` keeps."""
    not_flushed: tuple[str, ...] = ()
    """Hooks of the flush that failed or did not finish."""
    not_flushed_count: int = 0
    failed: tuple[str, ...] = ()
    """Hooks of the other phases, and closings, that failed."""
    killed: tuple[str, ...] = ()
    """Child processes that were still there at the end and had to be killed."""
    refused: int = 0
    """The number of times that the gate turned somebody away."""
    open_incidents: tuple[str, ...] = ()
    children: int = 0
    """Child services, all levels together."""
    left: str = field(default="")
    """The reason why the service left by itself, if it did."""

    def line(self) -> str:
        """Return everything in one line; the numbers are exact, the names are the first ten."""
        text = f"{self.service} stopped in {self.took_s:.2f} s ({self.reason})"
        parts: list[str] = []
        if self.hurried:
            parts.append("the drain was cut short by a second signal")
        if self.open_incidents:
            parts.append(listed(self.open_incidents, len(self.open_incidents), NAMED_MAX // 2))
        if self.failed:
            parts.append(f"failed: {listed(self.failed, len(self.failed))}")
        if self.not_flushed:
            parts.append(f"not flushed: {listed(self.not_flushed, self.not_flushed_count)}")
        if self.killed:
            parts.append(f"killed child processes: {listed(self.killed, len(self.killed))}")
        if self.unfinished:
            names = listed(map(str, self.unfinished), self.unfinished_count)
            parts.append(f"not finished within {self.deadline_s:g} s: {names}")
        if self.exit_code:
            parts.append(f"exit code {self.exit_code}")
        return "; ".join([text, *parts])

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report in JSON's types. Keys are only added in later versions, never renamed."""
        return asdict(self)


def listed(names: Iterable[str], count: int, named_max: int = NAMED_MAX) -> str:
    """Name the first `named_max` of `count` things, and count the others."""
    shown = list(names)[:named_max]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
