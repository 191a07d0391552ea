"""The keys below a prefix, kept up with: read whole, watched from there on, and read again where a watch cannot go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from outlast import Backoff, Kind, Stopping, Unavailable
from outlast.etcd._errors import CompactedError
from outlast.etcd._values import Old, Range, WatchBatch
from outlast.extend import BackoffState, Jitter

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.etcd._etcd import Etcd
    from outlast.etcd._watching.watch import Watch

PAUSES: Final = Backoff(base_s=0.1, cap_s=1.5, jitter=Jitter.DECORRELATED)
"""As those of the prober: while etcd is up and watches fail all the same, it is asked about once a second."""
PERSON_S: Final = 5.0
"""The least wait where a person has to act: a right that is missing."""
GIVES_UP: Final = frozenset({Kind.BUG, Kind.FATAL, Kind.REJECTED})
"""The same again would lead to the same."""

Seen = Range | WatchBatch | Old


class Following:
    """The keys below a prefix as they are and become, inside the block of `Etcd.follow`.

        async for seen in following:
            match seen:
                case Range():       # Replace what you had by its keys.
                case WatchBatch():  # Apply its events. It may have none: what you have is current again.
                case Old():         # What you have may be old from now on: decide nothing by it.

    It goes on by itself, however long an outage lasts: after a cut or a silence by a watch from the last revision, after a
    compaction by reading everything again. No change is missed or handed out twice. It ends with what would be the same the
    next time (a range that is too large, a bug), and with `Stopping`. Cancelled, it may be asked again.
    """

    def __init__(self, etcd: Etcd, prefix: bytes) -> None:
        self.is_old = True
        """Whether what was handed out may not be current."""
        self._etcd = etcd
        self._prefix = prefix
        self._after: int | None = None
        self._watch: Watch | None = None
        self._began_at = 0.0
        self._backoff = BackoffState()
        self._told = False
        """Whether `Old` was handed out since it was last current."""
        self._compactions = 0
        """Compactions in a row that were met, without a change in between."""
        self._failure: Fault | None = None
        """The reason to wait before it is tried again."""

    def __aiter__(self) -> Following:
        """Iterate over what is seen."""
        return self

    async def __anext__(self) -> Seen:
        """Return the keys, their next changes, or that they may be old."""
        while True:
            try:
                await self._pause()
                return await self._seen()
            except CompactedError as exc:
                # Too far behind for a watch. What is handed out next replaces all.
                self._drop()
                self._after = None
                self._compactions += 1
                if self._compactions > 1:
                    # Somebody compacts faster than all is read: that must not become a hot loop.
                    self._failure = self._etcd.classifiers.classify(exc, source=self._etcd.name)
            except (Stopping, asyncio.CancelledError):
                raise
            except Exception as exc:
                fault = (
                    exc.fault if isinstance(exc, Unavailable) else self._etcd.classifiers.classify(exc, source=self._etcd.name)
                )
                if fault.kind in GIVES_UP:
                    raise
                self._drop()
                self._failure = fault
                self.is_old = True
                if not self._told:
                    self._told = True
                    return Old(fault)

    def end(self) -> None:
        """End the watch. May be called again."""
        self._drop()

    async def _seen(self) -> Seen:
        if self._after is None:
            found = await self._etcd.range(self._prefix)
            self._after = found.revision
            return found
        if self._watch is None:
            self._watch = await self._etcd.begin_watch(self._prefix, self._after)
            self._began_at = asyncio.get_running_loop().time()
            was_told, self.is_old, self._told = self._told, False, False
            if was_told:
                return WatchBatch((), self._after)
        batch = await anext(self._watch)
        self._after, self._compactions = batch.revision, 0
        return batch

    async def _pause(self) -> None:
        """Wait until it is worth trying again."""
        if self._failure is None:
            return
        etcd, loop = self._etcd, asyncio.get_running_loop()
        if not etcd.passable and not etcd.is_full:
            # One prober asks for all, and lets them in one after another.
            await etcd.ready()
        else:
            floor_s = self._failure.floor_s(PERSON_S)
            self._backoff, wait_s = PAUSES.next_always(self._backoff, loop.time(), etcd.rng, floor_s)
            await asyncio.sleep(wait_s)
        self._failure = None

    def _drop(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            self._etcd.end_watch(watch)
            healthy_s = asyncio.get_running_loop().time() - self._began_at
            self._backoff = PAUSES.after_health(self._backoff, healthy_s)
