"""The findings of a drill: one shape for every drill, as values and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

PROVEN_ARM = "outlast"
EXIT_HELD = 0
EXIT_BROKEN = 1
EXIT_NO_STORM = 2


@dataclass(frozen=True, slots=True)
class Timeline:
    """Counts per bin of time; second 0 is the moment the fault began, so earlier bins are negative.

    `t_s` holds the start of each bin. The other sequences are as long as `t_s`.
    """

    bin_s: float
    t_s: tuple[float, ...]
    lines: tuple[int, ...]
    attempts: tuple[int, ...]
    cpu_s: tuple[float, ...]
    jobs: tuple[int, ...]
    changes: tuple[int, ...]
    """Changes that a stream received; 0 where there is no stream."""


EMPTY_TIMELINE = Timeline(bin_s=0.25, t_s=(), lines=(), attempts=(), cpu_s=(), jobs=(), changes=())


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """The figures of one arm in any drill, measured from outside its processes, all of them together.

    Lines and bytes are those of the outage and what follows it, up to the request to stop: starting and stopping are
    counted apart, in `lines_total` and `attempts_total`. A figure nobody could measure, or that means nothing, is None.
    """

    arm: str
    summary: str
    """The kind of service, in words."""
    log_lines: int
    log_bytes: int
    attempts: int
    """From the fault until clients can work again."""
    cpu_s: float
    cpu_before_percent: float
    cpu_outage_percent: float
    rss_peak_mib: float
    connects_100ms_max: int
    connects_100ms_max_recovery: int
    lost: int | None
    twice: int
    loops: int
    lines_outage: int
    """From the fault until its repair begins."""
    lines_total: int
    attempts_total: int
    outage_s: float
    work_s: float
    exit_code: int | None
    stop_s: float | None
    fed_until_s: float
    """Seconds after the fault began at which no more work was handed out: later there is little to do."""

    timeline: Timeline = EMPTY_TIMELINE
    log_first: tuple[str, ...] = ()
    log_last: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


A = TypeVar("A", bound=ArmResult)


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise of the drill: what was allowed, what was seen, and why the limit is where it is."""

    name: str
    limit: float
    value: float | None
    held: bool
    unit: str = ""
    reason: str = ""
    arm: str = PROVEN_ARM
    """The arm that is held to it."""

    @classmethod
    def at_most(cls, name: str, limit: float, value: float | None, unit: str, reason: str) -> Promise:
        """Return a promise that is held if `value` was measured, is not below 0 and not above `limit`."""
        return cls(name, limit, value, value is not None and 0 <= value <= limit, unit, reason)


@dataclass(frozen=True, slots=True)
class DrillResult(Generic[A]):
    """All arms of one drill, the promises checked on those that are proven, and whether the fault was a storm at all."""

    drill: str
    fault: str
    summary: str
    """The fault, in words."""
    seed: int
    outage_s: float
    loops: int
    started_at: str
    command: str
    machine: Mapping[str, str]
    arms: tuple[A, ...]
    promises: tuple[Promise, ...] = ()
    stormed: bool | None = None

    @property
    def exit_code(self) -> int:
        """The exit code: 0 all held; 1 a promise was broken; 2 the naive arm did not storm, so the drill proves nothing."""
        if not all(promise.held for promise in self.promises):
            return EXIT_BROKEN
        if self.stormed is False:
            return EXIT_NO_STORM
        return EXIT_HELD

    @property
    def proven(self) -> tuple[str, ...]:
        """The names of the arms that were held to promises."""
        return tuple(dict.fromkeys(promise.arm for promise in self.promises))

    def arm(self, name: str) -> A | None:
        """Return the result of the arm of that name, or None when it did not run."""
        return next((arm for arm in self.arms if arm.arm == name), None)

    def as_json(self) -> dict[str, JsonValue]:
        """Return the result as plain JSON values; every drill has these keys."""
        plain = plain_values(self)
        if not isinstance(plain, dict):
            msg = f"a drill result became {type(plain).__name__}, expected a JSON object"
            raise TypeError(msg)
        return plain | {"exit_code": self.exit_code}

    def dumps(self) -> str:
        """Return the result as one JSON text, with a newline at its end."""
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n"


def plain_values(value: object) -> JsonValue:
    """Return a value of a drill as JSON has it: dataclasses become objects, floats are cut to a millionth."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): plain_values(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in cast("Sequence[object]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain_values(getattr(value, item.name)) for item in dataclasses.fields(value)}
    msg = f"a drill result holds a {type(value).__name__}, which JSON cannot"
    raise TypeError(msg)
