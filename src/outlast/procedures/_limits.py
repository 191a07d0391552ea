"""The limits of settings and submissions, checked where a value comes in and named in the refusal."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError
from outlast.procedures._errors import InvalidProcedureError
from outlast.procedures._names import KEY_CHARS_MAX, check_name, seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast import Classifiers
    from outlast.procedures._model import Sweep

SECONDS_MAX: Final = 100 * 365.25 * 86_400
"""A hundred years."""
PAYLOAD_BYTES_MAX: Final = 64 * 1024
PAYLOAD_BYTES_LIMIT: Final = 1024 * 1024
"""The largest `payload_bytes_max`: etcd takes no larger value."""
SLOTS: Final = 128
SLOTS_MAX: Final = 10_000
LOCKS_MAX: Final = 8
LIST_MAX: Final = 1_000
RECORDS_LIMIT: Final = 10_000_000
BACKLOG_MAX: Final = 100_000
DONE_KEEP_S: Final = 86_400.0
DEAD_KEEP_S: Final = 7 * 86_400.0
DEAD_MAX: Final = 100_000
LEASE_S: Final = 30.0
POLL_S: Final = 1.0
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the running side. Raises `ConfigurationError`."""

    slots: int
    journal_path: Path
    lease_s: float
    poll_s: float
    sweep: Sweep
    result_bytes_max: int
    classifiers: Classifiers

    def __post_init__(self) -> None:
        """Check each against its limits."""
        number("slots", self.slots, 1, SLOTS_MAX)
        number("payload_bytes_max", self.result_bytes_max, 1, PAYLOAD_BYTES_LIMIT)
        number("dead_max", self.sweep.dead_max, 0, RECORDS_LIMIT)
        for name, value in (("lease_s", self.lease_s), ("poll_s", self.poll_s)):
            if seconds(name, value, error=ConfigurationError) == 0:
                msg = f"procedures: {name} must be above 0"
                raise ConfigurationError(msg)
        for name, kept in (("done_keep_s", self.sweep.done_keep_s), ("dead_keep_s", self.sweep.dead_keep_s)):
            if kept is not None:
                seconds(name, kept, error=ConfigurationError)


def number(name: str, value: object, least: int, most: int) -> int:
    """Return a whole number of a setting. Raises `ConfigurationError`."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    msg = f"procedures: {name} must be a whole number from {least} to {most}, not {seen(value)}"
    raise ConfigurationError(msg)


def seconds(
    name: str, value: object, *, error: type[InvalidProcedureError | ConfigurationError] = InvalidProcedureError
) -> float:
    """Return a duration. Raises `error` if it is out of the range."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= SECONDS_MAX:
        return float(value)
    msg = f"procedures: {name} must be from 0 to {SECONDS_MAX:g} seconds, not {seen(value)}"
    raise error(msg)


def lock_names(locks: Sequence[str]) -> tuple[str, ...]:
    """Return the names of locks, each once, in order. Raises `InvalidProcedureError`."""
    if not locks:
        return ()
    if isinstance(locks, str) or len(locks) > LOCKS_MAX:
        msg = f"locks must be a sequence of at most {LOCKS_MAX} names, not {seen(locks)}"
        raise InvalidProcedureError(msg)
    return tuple(sorted({check_name("a lock", lock, KEY_CHARS_MAX) for lock in locks}))


def is_id(record_id: object) -> bool:
    """Return whether a record can have this id."""
    return isinstance(record_id, str) and _ID.fullmatch(record_id) is not None


def default_journal(name: str) -> Path:
    """Return where a runner keeps its journal unless told: below the user's directory for state."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "outlast" / f"procedures-{re.sub('[^A-Za-z0-9._-]', '_', name)[:100]}.journal"
