"""The memory of failure: the keys whose work failed, why, and until when nobody tries again."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from outlast import Backoff, Kind
from outlast.extend import BackoffState, Jitter

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from outlast import Fault
    from outlast.procedures._model import KeyOf

KEYS_MAX: Final = 50_000
BYTES_MAX: Final = 32 << 20

_PASSING: Final = Backoff(base_s=1.0, cap_s=60.0, factor=2.0, jitter=Jitter.EQUAL)
_BUG: Final = Backoff(base_s=5.0, cap_s=300.0, factor=2.0, jitter=Jitter.EQUAL)
_LASTING: Final = Backoff(base_s=10.0, cap_s=900.0, factor=3.0, jitter=Jitter.EQUAL)
BACKOFFS: Final = {
    Kind.TRANSIENT: _PASSING,
    Kind.CONTENDED: _PASSING,
    Kind.EXHAUSTED: _PASSING,
    Kind.OVERLOADED: _PASSING,
    Kind.STOPPING: _PASSING,
    Kind.BUG: _BUG,
    Kind.REJECTED: _LASTING,
    Kind.PERMANENT: _LASTING,
    Kind.FATAL: _LASTING,
}
"""The waits of a key after its first, second ... failure in a row: what may pass by itself is tried again sooner than what the
request itself or a person has to change."""

ASKED_S_MAX: Final = 3_600.0
"""A peer that asks for a longer wait is asked again after an hour."""

ENTRY_BYTES: Final = 450
"""The size of an entry without its texts: the object, its four floats, its identity, its places in two tables."""
FAULT_BYTES: Final = 120
"""The size of a fault without its texts."""


def wait_s(fault: Fault, failures: int, rng: random.Random) -> float:
    """Return the seconds for which a key is refused after its `failures`-th failure in a row, the first being 1.

    The wait that the peer asked for (`retry_after_s`, at most an hour) is a floor. Half of the time is drawn, so that keys which
    fail together are not tried together.
    """
    state = BackoffState(attempt=max(0, failures - 1))
    _, seconds = BACKOFFS[fault.kind].next_always(state, 0.0, rng, asked_s(fault))
    return seconds


def asked_s(fault: Fault) -> float | None:
    """Return the seconds that the peer asked for, bounded; None if it did not."""
    return None if fault.retry_after_s is None else min(fault.retry_after_s, ASKED_S_MAX)


class Failing:
    """A key that failed: what a refusal says of it. Times are on the caller's clock."""

    __slots__ = ("failures", "first", "id", "last", "since", "size_bytes", "until")

    def __init__(self, id: str, first: Fault, last: Fault, failures: int, since: float, until: float) -> None:  # noqa: A002
        self.id = id
        self.first = first
        """The first cause: everyone who is refused is told this one."""
        self.last = last
        """The fault of the newest attempt: by it the key belongs to a cause."""
        self.failures = failures
        self.since = since
        self.until = until
        """No attempt before this time."""
        self.size_bytes = 0


class Memory:
    """At most so many keys, in at most so many bytes. Beyond either the one that failed longest ago is forgotten, and counted.

    A key that is forgotten is not lost: the store has its record, and says that it is failing when it is submitted again.
    """

    def __init__(self, keys_max: int = KEYS_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Raise `ValueError` for bounds that leave no room for one key."""
        if keys_max < 1 or bytes_max < 1:
            raise ValueError(
                f"a memory of failures needs room for at least 1 key, not keys_max={keys_max}, bytes_max={bytes_max}"
            )
        self.keys_max = keys_max
        self.bytes_max = bytes_max
        self.entries: OrderedDict[KeyOf, Failing] = OrderedDict()
        """By key, the one that failed longest ago first."""
        self.size_bytes = 0
        """An upper estimate of what the entries take: a text that two of them share is counted twice."""
        self.forgotten = 0
        """The keys that made room for others."""

    def put(self, of: KeyOf, entry: Failing) -> None:
        """Remember the newest failure of a key; forget the oldest ones beyond the bounds."""
        self.forget(of)
        known = next(reversed(self.entries.values())) if self.entries else None
        if known is not None:
            # Where many keys fail in the same way, one after the other, they share what is said of them.
            entry.first = known.first if entry.first == known.first else entry.first
            entry.last = known.last if entry.last == known.last else entry.last
        entry.last = entry.first if entry.last == entry.first else entry.last
        entry.size_bytes = _size_of(of, entry)
        self.entries[of] = entry
        self.size_bytes += entry.size_bytes
        while len(self.entries) > self.keys_max or (self.size_bytes > self.bytes_max and len(self.entries) > 1):
            _, oldest = self.entries.popitem(last=False)
            self.size_bytes -= oldest.size_bytes
            self.forgotten += 1

    def forget(self, of: KeyOf) -> bool:
        """Take a key out: it succeeded, or somebody says that it may be tried. Return whether it was there."""
        entry = self.entries.pop(of, None)
        if entry is None:
            return False
        self.size_bytes -= entry.size_bytes
        return True

    def forget_where(self, holds: Callable[[KeyOf, Failing], bool]) -> list[KeyOf]:
        """Take out every key of which that holds, and return them."""
        found = [of for of, entry in self.entries.items() if holds(of, entry)]
        for of in found:
            self.forget(of)
        return found


def _size_of(of: KeyOf, entry: Failing) -> int:
    size = ENTRY_BYTES + of.kind.__sizeof__() + of.key.__sizeof__() + entry.id.__sizeof__() + _fault_size(entry.first)
    return size if entry.last is entry.first else size + _fault_size(entry.last)


def _fault_size(fault: Fault) -> int:
    texts = (fault.code, fault.reason, fault.source, fault.hint)
    return FAULT_BYTES + sum(text.__sizeof__() for text in texts)
