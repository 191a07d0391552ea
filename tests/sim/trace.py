"""What happened in one schedule: every event with its virtual time, and what was broken."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

TAIL: Final = 40
VIOLATIONS_MAX: Final = 5


class Trace:
    """The events of a schedule in their order, and the violations among them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.violations: list[str] = []
        self.lines: list[tuple[float, int, str]] = []
        """Log lines at INFO or above: when, level, text."""
        self.loop: AbstractEventLoop | None = None
        self.at: dict[int, Callable[[], None]] = {}
        """What to do right after the event of a number: stops that meet whatever is going on."""

    @property
    def now(self) -> float:
        return 0.0 if self.loop is None else self.loop.time()

    def __call__(self, text: str) -> None:
        self.events.append(f"{self.now:.6f} {text}")
        if self.at and self.loop is not None and (action := self.at.pop(len(self.events), None)) is not None:
            self.loop.call_soon(action)

    def violation(self, invariant: str, text: str) -> None:
        """Take note that an invariant is broken; only the first few are kept."""
        self(f"VIOLATION ({invariant}) {text}")
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"({invariant}) at {self.now:.3f} s: {text}")

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.events).encode()).hexdigest()

    def tail(self) -> list[str]:
        """The end of it, and what led to the first violation."""
        first = next((number for number, event in enumerate(self.events) if "VIOLATION" in event), None)
        if first is None or first >= len(self.events) - TAIL:
            return self.events[-TAIL:]
        return [*self.events[max(0, first - TAIL) : first + 3], "...", *self.events[-5:]]


class Lines(logging.Handler):
    """Puts what `outlast` logs into a trace, and nowhere else. Used as a context."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.INFO)
        self.trace = trace
        self.logger = logging.getLogger("outlast")

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.trace.lines.append((self.trace.now, record.levelno, text))
        self.trace(f"log {record.levelname} {text}")

    def __enter__(self) -> None:
        self.before = (self.logger.handlers, self.logger.propagate, self.logger.level)
        self.logger.handlers, self.logger.propagate = [self], False
        self.logger.setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        self.logger.handlers, self.logger.propagate = self.before[:2]
        self.logger.setLevel(self.before[2])
