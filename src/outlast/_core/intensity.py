"""Restart intensity as in OTP's supervisor: so many bugs within so many seconds, and the service gives up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Restart:
    """The limits of restarts after a bug of a loop or a task.

    More than `bugs_max` bugs of one worker within `period_s` seconds end the service with exit code 70.
    Only faults of kind `BUG` count: a dependency that is away never ends a process. With the default
    backoff a body that fails every time reaches the limit after about twenty seconds
    (0.1 + 0.2 + … + 12.8 s, three quarters of it on average). `bugs_max=None` restarts forever.
    """

    bugs_max: int | None = 8
    period_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse an intensity that means nothing."""
        if self.bugs_max is not None and self.bugs_max < 0:
            msg = f"bugs_max must be at least 0, not {self.bugs_max}; None restarts forever"
            raise ValueError(msg)
        if self.period_s <= 0:
            msg = f"period_s must be above 0, not {self.period_s}"
            raise ValueError(msg)

    def after_bug(self, times: tuple[float, ...], now: float) -> tuple[tuple[float, ...], bool]:
        """Add a bug at `now` to those before it; True means that there were too many.

        The tuple holds at most `bugs_max + 1` times: older ones cannot matter any more.
        """
        if self.bugs_max is None:
            return (), False
        recent = (*(at for at in times if now - at < self.period_s), now)
        return recent[-(self.bugs_max + 1) :], len(recent) > self.bugs_max
