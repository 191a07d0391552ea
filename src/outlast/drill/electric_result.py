"""What the electric drill found, and what it promises of the outlast arm: every limit in one place, with its reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast.drill.result import EXIT_BROKEN, EXIT_HELD, EXIT_NO_STORM, JsonValue, Promise, plain_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LINES_MAX = 5
"""One line says who holds it or what is away, one that it is over; the dependency's incident and the standby have theirs."""
ATTEMPTS_FIRST = 8
ATTEMPTS_PER_S = 0.08
"""Fifteen in 90 s: waits of 0.5 s growing to 30 s. Each attempt at the slot has one session for the lock, and one that looks."""
CPU_PERCENT_MAX = 1.0
CPU_S_MIN = 0.2
"""What a short fault may use in all beyond what the other loops use anyway; from 20 s on the 1 % holds."""
SLOWER_PERCENT_MAX = 5.0
RELEASE_S_MAX = 1.0
KILLED_S_MAX = 0.25
STORM_LINES_PER_S = 20.0
STORM_FAULTS = frozenset({"slot-taken", "lock-bypassed", "slot-lost"})


@dataclass(frozen=True, slots=True)
class ElectricArm:
    """What one arm did, measured from outside its processes, all of them together.

    Attempts, lines and processor time are those of the fault. A figure nobody could measure, or that means nothing, is None.
    """

    arm: str
    attempts: int
    log_lines: int
    log_bytes: int
    cpu_percent: float
    cpu_before_percent: float
    """Of the healthy service: its other loops, and the stream."""
    throughput_percent: float
    """What the other loops did during the fault, of what they did before it."""
    recovery_s: float | None
    """From the release of the slot, or from the loss of the owner, to the next change."""
    changes: int
    lost: int | None
    twice: int
    outage_s: float
    exit_codes: tuple[int | None, ...]
    log_first: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ElectricResult:
    """All arms, the promises checked on one of them, and whether the fault was a storm at all."""

    fault: str
    seed: int
    outage_s: float
    loops: int
    started_at: str
    command: str
    machine: Mapping[str, str]
    arms: tuple[ElectricArm, ...]
    promises: tuple[Promise, ...] = ()
    stormed: bool | None = None
    drill: str = "electric"

    @property
    def exit_code(self) -> int:
        """0 all held; 1 a promise was broken; 2 the naive arm did not storm, so the drill proves nothing."""
        if not all(promise.held for promise in self.promises):
            return EXIT_BROKEN
        return EXIT_NO_STORM if self.stormed is False else EXIT_HELD

    def as_json(self) -> dict[str, JsonValue]:
        """The result as plain JSON values; every drill has these keys."""
        plain = plain_values(self)
        if not isinstance(plain, dict):
            msg = f"a drill result became {type(plain).__name__}, expected a JSON object"
            raise TypeError(msg)
        return plain | {"exit_code": self.exit_code}

    def dumps(self) -> str:
        """The result as one JSON text, with a newline at its end."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n"


def check(arm: ElectricArm, fault: str) -> tuple[Promise, ...]:
    """Hold one arm against the promises of that fault."""
    return tuple(_promises(arm, fault))


def stormed(arm: ElectricArm, fault: str) -> bool | None:
    """Whether the naive arm stormed; None under a fault that need not make it storm."""
    return arm.log_lines >= STORM_LINES_PER_S * arm.outage_s if fault in STORM_FAULTS else None


def _promises(arm: ElectricArm, fault: str) -> Iterator[Promise]:
    attempts_max = ATTEMPTS_FIRST + round(ATTEMPTS_PER_S * arm.outage_s)
    yield _at_most("log lines", LINES_MAX, arm.log_lines, "", "do not grow with retries or the outage")
    yield _at_most("connection attempts", attempts_max, arm.attempts, "", "contention is stood by for, not fought")
    if fault in STORM_FAULTS:
        percent_max = max(CPU_PERCENT_MAX, 100.0 * CPU_S_MIN / arm.outage_s)
        more = max(0.0, arm.cpu_percent - arm.cpu_before_percent)
        yield _at_most("CPU beyond that of before", round(percent_max, 2), more, "% of a core", "standing by is free")
    slower = max(0.0, 100.0 - arm.throughput_percent)
    reason = "one stream's trouble never stops another loop"
    yield _at_most("other loops slower by", SLOWER_PERCENT_MAX, round(slower, 2), "%", reason)
    if fault != "slot-lost":
        # A proxy cannot show when TCP would give up an owner that was cut off: see the fault.
        if fault != "owner-cut-off":
            limit_s = KILLED_S_MAX if fault == "owner-killed" else RELEASE_S_MAX
            yield _at_most("streams again", limit_s, arm.recovery_s, "s", "the next change after the slot is free")
        yield _at_most("changes lost", 0, arm.lost, "", "the position moves only behind what is durable")
    yield _at_most(
        "exit code after SIGTERM", 0, max((code or 0 for code in arm.exit_codes), default=None), "", "a stop is no failure"
    )


def _at_most(name: str, limit: float, value: float | None, unit: str, reason: str) -> Promise:
    return Promise(name, limit, value, value is not None and 0 <= value <= limit, unit, reason)
