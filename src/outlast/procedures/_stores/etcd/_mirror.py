"""A mirror of what lies below `a/`: every change of it is seen, in order. On the event loop's thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Incident, Stopping
from outlast.etcd import Change, Etcd, KeyValue, Old, Range, WatchBatch
from outlast.extend import attach
from outlast.procedures._model import LIVE, KeyOf, Pause, ProcedureState, StoreEvent, StoreEventKind
from outlast.procedures._stores.etcd import _layout as layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.procedures._stores.etcd._layout import Head

EVENTS_MIN: Final = 1_000
"""With fewer events none was forgotten yet."""
TURN_S: Final = 0.2
"""The longest wait of one who reads, before it looks whether etcd is still there."""


class Mirror:
    """Heads, locks, runners, pauses and events, at `revision` or a little later: one's own changes are noted at once."""

    def __init__(self, etcd: Etcd, now: Callable[[], float], on_change: Callable[[KeyValue], None]) -> None:
        """`now` is the store's time; `on_change` is told what others put, as it happens."""
        self._etcd = etcd
        self._now = now
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._incident = Incident("procedures mirror", verb="cannot be kept")
        self._failed: BaseException | None = None
        self.is_loaded = False
        self.revision = 0
        self._ahead: dict[bytes, int] = {}
        """Keys that were changed by this process, at revisions that the watch has not come to."""
        self._reset()

    def _reset(self) -> None:
        self.heads: dict[str, Head] = {}
        self.keys: dict[KeyOf, str] = {}
        """Of the live and the dead: who has the key."""
        self.live: dict[str, None] = {}
        self.locks: dict[str, str] = {}
        self.runners: dict[str, KeyValue] = {}
        self.pauses: dict[Pause, None] = {}
        self.signals: dict[str, dict[bytes, tuple[int, str]]] = {}
        """By record: the keys of its signals, when each was made, and its name."""
        self.events: dict[bytes, StoreEvent] = {}
        self.forgotten_to = 0
        self.clock: KeyValue | None = None
        self.work_at = 0

    # Keeping it.

    def begin(self) -> None:
        """Keep it from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="procedures mirror")

    async def close(self) -> None:
        """Keep it no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        self._tell()

    async def _keep(self) -> None:
        try:
            async with self._etcd.follow(layout.MIRRORED) as following:
                async for seen in following:
                    self._see(seen)
        except Stopping:
            return
        except Exception as exc:  # noqa: BLE001 - whoever reads is told
            self._failed = exc
            self._incident.fault(self._etcd.classifiers.classify(exc, source=self._etcd.name))
            self._tell()

    def _see(self, seen: Range | WatchBatch | Old) -> None:
        match seen:
            case Range():
                self._load(seen)
            case WatchBatch():
                for event in seen.events:
                    kv, is_put = event.kv, event.change is Change.PUT
                    if kv.mod_revision > self._ahead.get(kv.key, 0):
                        self.apply(kv.key, kv if is_put else None, kv.mod_revision)
                        if is_put:
                            self._on_change(kv)
                self.revision = max(self.revision, seen.revision)
                self._ahead = {key: revision for key, revision in self._ahead.items() if revision > self.revision}
            case Old():
                return
        self._tell()

    def _load(self, found: Range) -> None:
        self._reset()
        for kv in found.kvs:
            self.apply(kv.key, kv, kv.mod_revision)
        self._ahead = {}
        self.revision, self.is_loaded = found.revision, True
        if len(self.events) >= EVENTS_MIN:
            # Two processes may have forgotten some at once, and the later of them noted the lower number.
            self.forgotten_to = max(self.forgotten_to, min(event.number for event in self.events.values()) - 1)
        # What became due meanwhile is not known: somebody has to look.
        self.work_at = found.revision

    def _tell(self) -> None:
        # Those who wait hold the old event, so none of them can miss this.
        self._changed.set()
        self._changed = asyncio.Event()

    # Reading it.

    async def wait(self, wait_s: float) -> None:
        """Wait for a change, at most for so many seconds."""
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await changed.wait()

    async def current(self) -> None:
        """Wait until it holds all that was changed before now. Raises what a read of etcd raises, and `TimeoutError`."""
        self.begin()
        fence = await self._etcd.get(layout.FENCE)
        revision = fence.mod_revision if fence is not None else 0
        loop = asyncio.get_running_loop()
        end = loop.time() + self._etcd.timeout_s
        while not self.is_loaded or self.revision < revision:
            if self._failed is not None:
                raise self._failed
            if not self._etcd.passable and not self._etcd.is_full:
                raise self._etcd.unavailable()
            if loop.time() > end:
                raise self._too_old()
            await self.wait(TURN_S)

    def _too_old(self) -> TimeoutError:
        error = TimeoutError(f"{self._etcd.name}: the mirror of the procedures is not current after {self._etcd.timeout_s:g} s")
        attach(error, Fault(self._etcd.classifiers.classify(error, source=self._etcd.name).kind, "mirror", str(error)))
        return error

    def head_of(self, of: KeyOf) -> Head | None:
        """Return the head of the record that has the key."""
        the_id = self.keys.get(of)
        return None if the_id is None else self.heads[the_id]

    def is_paused(self, of: KeyOf) -> bool:
        """Return whether nothing is claimed of this key."""
        return bool(self.pauses) and any(pause in self.pauses for pause in (Pause(), Pause(of.kind), Pause(of.kind, of.key)))

    # Changing it.

    def note(self, key: bytes, value: bytes | None, revision: int, *, lease: int) -> None:
        """Apply a change of one's own, before the watch comes to it."""
        if revision <= max(self.revision, self._ahead.get(key, 0)):
            return
        self._ahead[key] = revision
        self.apply(key, None if value is None else KeyValue(key, value, revision, revision, 1, lease), revision)

    def apply(self, key: bytes, kv: KeyValue | None, revision: int) -> None:
        """Put one key in its place, or take it out."""
        kind = key[: len(layout.HEADS)]
        end = key[len(layout.HEADS) :]
        if kind in {layout.HEADS, layout.ENDED}:
            self._apply_head(key, kv, revision)
        elif kind == layout.LOCKS:
            _put(self.locks, end.decode(), kv and kv.value.decode())
            if kv is None:
                self.work_at = revision
        elif kind == layout.RUNNERS:
            _put(self.runners, end.decode(), kv)
            if kv is None:
                self.work_at = revision
        elif kind == layout.PAUSES:
            _put(self.pauses, Pause(*layout.unpair(end)), kv and ())
            if kv is None:
                self.work_at = revision
        elif kind == layout.SIGNALS:
            signals = self.signals.setdefault(end.partition(b"/")[0].decode(), {})
            _put(signals, key, kv and (kv.create_revision, kv.value.decode()))
        elif kind == layout.EVENTS:
            _put(self.events, key, kv and _event(kv))
        elif key == layout.FORGOTTEN and kv is not None:
            self.forgotten_to = max(self.forgotten_to, int(kv.value))
        elif key == layout.CLOCK:
            self.clock = kv

    def _apply_head(self, key: bytes, kv: KeyValue | None, revision: int) -> None:
        if kv is None:
            self._drop(key)
            return
        head = layout.decode(kv)
        record = head.record
        old = self.heads.get(record.id)
        if old is not None and old.revision > head.revision:
            return
        if old is not None and old.key != key:
            self._drop(old.key)
        self.heads[record.id] = head
        if key.startswith(layout.HEADS):
            self.keys[record.of] = record.id
        if record.state not in LIVE:
            self.live.pop(record.id, None)
            return
        self.live[record.id] = None
        is_due = record.due_at is not None and record.due_at <= self._now() and record.state is not ProcedureState.RUNNING
        if is_due and (old is None or old.record.due_at != record.due_at or old.record.state is not record.state):
            self.work_at = revision

    def _drop(self, key: bytes) -> None:
        if key.startswith(layout.ENDED):
            the_id = key[len(layout.ENDED) :].decode()
        else:
            of = KeyOf(*layout.unpair(key[len(layout.HEADS) :]))
            the_id = self.keys.pop(of, "")
        head = self.heads.get(the_id)
        if head is not None and head.key == key:
            del self.heads[the_id]
            self.live.pop(the_id, None)
            self.signals.pop(the_id, None)


def _put(held: dict[Any, Any], key: object, value: object) -> None:
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value


def _event(kv: KeyValue) -> StoreEvent:
    what, kind, key, text = json.loads(kv.value)
    return StoreEvent(kv.mod_revision, StoreEventKind(what), kind, key, text)
