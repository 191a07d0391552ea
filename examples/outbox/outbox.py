"""A bounded outbox: a message that it has accepted is on disk, and is posted to an HTTP peer at least once."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError, Dependency, Fault, Kind, Service, State, Stop, Unavailable, progress
from outlast.extend import Act, Figure, Journal, JournalFullError, Lag, Levels, Once, OwnThread, SystemHealth, attached

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.http import HttpPeer

ROOM_AGAIN: Final = 5
"""A full outbox takes messages again when there is room for a fifth of them, so that it does not flap."""
TRIM_S: Final = 1.0
logger = logging.getLogger("outbox")


@dataclass(frozen=True, slots=True)
class Message:
    """A message: the key by which the peer recognises it, the time it was accepted (wall clock: it is stored), and its body."""

    key: str
    at: float
    body: bytes


def encode(message: Message) -> bytes:
    """Return a message as the journal keeps it."""
    return f"{message.key} {message.at:.3f} ".encode() + message.body


def decode(record: bytes) -> Message:
    """Return the message of a record. Raises `ValueError`."""
    key, at, body = record.split(b" ", 2)
    return Message(key.decode(), float(at), body)


class Outbox:
    """At most `messages_max` messages (2 or more), accepted and not yet delivered. Used on the event loop's thread only.

    `put` accepts one. What the peer refuses is set aside, until an operator has it tried again or dropped. What is left at a
    stop, or after a crash, is sent after the next start: some of it may have been delivered, which the peer sees by the key.
    """

    system = name = "outbox"

    def __init__(self, peer: HttpPeer, path: str | Path, *, messages_max: int = 1_000) -> None:
        self.peer, self.disk, self.messages_max = peer, Dependency("outbox disk"), messages_max
        self.counts = Counter(accepted=0, delivered=0, dropped=0, turned_away=0)
        self.open: dict[str, Message] = {}
        """Accepted and not finished, oldest first. The journal holds these, and what was finished since it was last trimmed."""
        self.refused: dict[str, Message] = {}
        """Those of them that the peer refused."""
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._journal = Journal(path, "outbox", encode=encode, decode=decode, records_max=2 * messages_max)
        self._thread = OwnThread("outbox disk")
        """The one thread that touches the journal."""
        self._turn = asyncio.Lock()
        """Held while the journal is changed: the places of its records are valid no longer than that."""
        self._said_refused = Once()
        self._levels = Levels(1, max(2, messages_max // ROOM_AGAIN))
        self._full_since: float | None = None

    def attach(self, service: Service, senders: int = 4) -> None:
        """Add it to a service, which then delivers what `put` accepts."""
        self._gate = service.gate
        service.on_start(self._start)
        service.on_stop(self._stop)
        service.loop(needs=self.peer, workers=senders, name="outbox sender")(self._send)
        service.loop(needs=self.disk, every_s=TRIM_S, name="outbox trim")(self._trim)
        service.show(self)

    async def put(self, body: bytes) -> str:
        """Accept a message and return its key: it is on disk then. Raises `Unavailable`, or `Stopping` at a stop."""
        async with self._gate.enter("outbox put"):
            # The disk does not stop for a caller that is cancelled, so this is brought to its end.
            return await asyncio.shield(asyncio.create_task(self._accept(Message(uuid.uuid4().hex, time.time(), body))))

    async def _accept(self, message: Message) -> str:
        try:
            async with self._turn:
                self._check_room()
                async with self.disk.use("append"):
                    await self._thread.run(self._journal.append, [message])
                self.open[message.key] = message
        except Unavailable:
            self.counts["turned_away"] += 1
            raise
        except (JournalFullError, OSError) as exc:
            self.counts["turned_away"] += 1
            raise self.disk.refusal(exc) from exc
        self.counts["accepted"] += 1
        self._queue.put_nowait(message)
        return message.key

    def _check_room(self) -> None:
        if not self._levels.is_low(self.messages_max - len(self.open), was_low=self._full_since is not None):
            if self._full_since is not None:
                logger.info("the outbox has room again: %d messages (limit %d)", len(self.open), self.messages_max)
            self._full_since = None
            return
        if self._full_since is None:
            self._full_since = asyncio.get_running_loop().time()
            logger.warning("the outbox is full: %d messages, of which the peer refused %d", len(self.open), len(self.refused))
        reason = f"it holds {len(self.open)} messages (limit {self.messages_max}), of which the peer refused {len(self.refused)}"
        since_s = asyncio.get_running_loop().time() - self._full_since
        retry_after_s = self.peer.unavailable().retry_after_s if self.peer.state is State.DOWN else TRIM_S
        raise Unavailable("outbox", Fault(Kind.EXHAUSTED, "outbox full", reason, "outbox"), since_s, retry_after_s)

    async def _send(self, stop: Stop) -> None:
        async with stop.timeout(None):
            message = await self._queue.get()
        try:
            await self.peer.post(content=message.body, headers={"idempotency-key": message.key})
        except BaseException as exc:
            fault = attached(exc)
            if fault is None or fault.kind is not Kind.REJECTED:
                self._queue.put_nowait(message)
                raise
            self._set_aside(message, fault)
        else:
            del self.open[message.key]
            self.counts["delivered"] += 1

    def _set_aside(self, message: Message, fault: Fault) -> None:
        self.refused[message.key] = message
        progress()
        if self._said_refused.news(subject=fault.code):
            logger.error("the peer refused message %s (%s): it is set aside", message.key, fault.code)

    async def _start(self) -> None:
        await self._thread.run(self._journal.open)
        if self._journal.damaged:
            msg = f"{self._journal.path} is damaged in {len(self._journal.damaged)} places: mend it, or move it away"
            raise ConfigurationError(msg)
        self.open, self.refused, self._queue = {message.key: message for message in self._journal.records}, {}, asyncio.Queue()
        for message in self._journal.records:
            self._queue.put_nowait(message)

    async def _stop(self) -> None:
        try:
            await self._trim()
        finally:
            await self._thread.run(self._journal.close)
            self._thread.close()
            logger.info("%d messages stay in the outbox until the next start", len(self.open))

    async def _trim(self, _stop: Stop | None = None) -> None:
        if len(self._journal.records) == len(self.open):
            return
        async with self.disk.use("trim"), self._turn:
            places = {place for place, message in enumerate(self._journal.records) if message.key in self.open}
            await self._thread.run(self._journal.keep_only, places)

    # What it shows. This is read from another thread, so collections are copied in one step.

    def figures(self) -> list[Figure]:
        """Return what has become of messages since the start, and what is here now."""
        return [
            Figure.counter("messages", "Messages by what became of them.", dict(self.counts), labels=("outcome",)),
            Figure.gauge("waiting_messages", "Messages that are to be delivered.", len(self.open) - len(self.refused)),
            Figure.gauge("refused_messages", "Messages that the peer refused.", len(self.refused)),
        ]

    def health(self) -> SystemHealth:
        """Return the first of what keeps it from accepting or sending."""
        is_full = self._full_since is not None
        working = SystemHealth(not is_full, "full" if is_full else "sending", since=self._full_since)
        return SystemHealth.waiting_for(self.disk, self.peer) or working

    def lag(self) -> Lag:
        """Return the age of the oldest message that is to be delivered."""
        waiting = [message.at for message in list(self.open.values()) if message.key not in self.refused]
        return Lag(seconds=max(0.0, time.time() - min(waiting)) if waiting else 0.0)

    def acts(self) -> list[Act]:
        """Return what an operator may do about messages that the peer refused."""
        count = len(self.refused)
        drop = Act("drop refused messages", "Forget what the peer refused.", self._drop, count, destructive=True)
        return [Act("try refused messages again", "Post again what the peer refused.", self._retry, count), drop]

    async def _retry(self) -> int:
        again, self.refused, self._said_refused = self.refused, {}, Once()
        for message in again.values():
            self._queue.put_nowait(message)
        return len(again)

    async def _drop(self) -> int:
        dropped, self.refused, self._said_refused = self.refused, {}, Once()
        self.open = {key: message for key, message in self.open.items() if key not in dropped}
        await self._trim()
        self.counts["dropped"] += len(dropped)
        return len(dropped)
