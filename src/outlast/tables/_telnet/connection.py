"""One connection of the telnet door: lines come in, and an error goes out for each that was not stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from outlast import OutlastError, Stopping, Unavailable
from outlast.tables._telnet.lines import COMMANDS, HTTP, LAST, NO_HTTP, error_line, throttled, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.tables._model import PointRefusal
    from outlast.tables._telnet.door import Door


class PutConnection(asyncio.BufferedProtocol):
    """Reads lines, writes them in batches, and answers what was not stored. On the event loop's thread only.

    One batch is written at a time, and what comes meanwhile is the next one: a lone line waits for nothing, and a stream of
    them is written by the thousand.
    """

    def __init__(self, door: Door, client: str) -> None:
        self._door: Final = door
        self._client: Final = client
        self._transport: asyncio.Transport | None = None
        self.made = False
        self._lines = bytearray()
        """Whole lines that wait, with their newlines."""
        self._half = bytearray()
        """The begin of a line."""
        self._skips = False
        """Whether the rest of a line that is too long is thrown away."""
        self._ended = False
        """Whether no more lines are taken: the client has sent its last one, or left, or the service stops."""
        self._work: asyncio.Task[None] | None = None
        self._has_room: Final = asyncio.Event()
        """Set while the client reads what it is told."""
        self._has_room.set()
        self.heard_at = door.now()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self.made = True
        self._transport.set_write_buffer_limits(high=self._door.limits.unread_bytes_max)
        self._door.connections.add(self)
        if self._door.is_stopping:
            self.refuse()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - as asyncio calls it
        """Return the buffer that all connections share: what is in it is taken out before another one reads."""
        return self._door.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come."""
        self.heard_at = self._door.now()
        if self._ended:
            return
        came = bytes(self._door.buffer[:nbytes])
        end = came.rfind(b"\n") + 1
        if end:
            begin = 0
            if self._skips:
                begin, self._skips = came.find(b"\n") + 1, False
            self._lines += self._half
            self._lines += came[begin:end]
            self._half.clear()
        if not self._skips:
            self._half += came[end:]
            self._check_half()
        if self._lines and self._work is None:
            self._begin()
        if len(self._lines) > self._door.limits.ahead_bytes_max and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Forget half a line, and end after the answers to the whole ones."""
        self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        """Forget half a line; whole ones are written all the same."""
        self._transport = None
        self._has_room.set()
        self._end()
        self._door.left(self, self._client)

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """Note that it has read."""
        self._has_room.set()

    # Ends.

    def refuse(self) -> None:
        """Take no more lines: the service stops. Those that have come are written."""
        if self._transport is not None:
            self._transport.pause_reading()
        self._end()

    def cut(self, code: str) -> None:
        """End it now, and count why."""
        self._door.count(code)
        if self._transport is not None:
            self._transport.abort()

    def give_up(self) -> None:
        """End it, when what was said has left."""
        if self._transport is not None:
            self._transport.close()

    def _end(self) -> None:
        self._ended = True
        if self._half or self._skips:
            self._door.halves += 1
        self._half.clear()
        if self._work is None and self._transport is not None:
            self._transport.close()

    # Lines.

    def _check_half(self) -> None:
        most = self._door.limits.line_bytes_max
        if len(self._half) > most:
            self._door.tell_refused("never", 1)
            self._say(f"put: illegal argument: a line of more than {most} bytes; it has at most {most}\n")
            self._half.clear()
            self._skips = True

    def _begin(self) -> None:
        self._work = asyncio.get_running_loop().create_task(self._worked_on())
        # It goes on without its connection: what was read is written.
        self._door.workers.add(self._work)
        self._work.add_done_callback(self._door.workers.discard)

    async def _worked_on(self) -> None:
        try:
            async with self._door.gate.enter(f"put {self._client}"):
                while self._lines:
                    await self._write(self._next())
                    # Bad lines alone wait for nothing: others have their turn between two batches.
                    await asyncio.sleep(0)
                    if not self._has_room.is_set():
                        await self._until_read()
        except (Stopping, Unavailable) as error:
            # The gate is closed, or full: what has come is not stored, and told so.
            count = self._lines.count(b"\n")
            self._lines.clear()
            self._door.tell_refused("later", count)
            self._say(throttled(str(error)))
        except Exception as error:  # noqa: BLE001 - one connection ends, and the others go on
            self._door.broke(error)
            self.cut("bug")
        finally:
            self._work = None
            if self._ended and self._transport is not None:
                self._transport.close()

    def _next(self) -> list[bytes]:
        """Return the lines that are written next, and read on if there is room for more."""
        *lines, rest = bytes(self._lines).split(b"\n", self._door.limits.batch_max)
        self._lines = bytearray(rest)
        if not self._ended and self._transport is not None and len(rest) <= self._door.limits.ahead_bytes_max:
            self._transport.resume_reading()
        return lines

    async def _write(self, lines: list[bytes]) -> None:
        """Write a batch, and answer it: first the errors and answers of its lines, in their order."""
        door = self._door
        batch = door.lines.read(lines, door.limits.line_bytes_max)
        points = batch.parsed.points
        door.points += points
        answers: list[tuple[int, str]] = []
        if points:
            places = sorted(place for rows in batch.parsed.rows for place in rows.places)
            refused: Sequence[PointRefusal] = batch.parsed.refused
            # A write may change what was read of the lines: each try reads them again.
            outcome = await door.written(batch, lambda: door.lines.read(lines, door.limits.line_bytes_max))
            if isinstance(outcome, OutlastError):
                line = throttled(_cause(outcome))
                answers = [(place, line) for place in places]
                door.tell_refused("later", len(places))
                door.tell_refused("never", len(refused))
            else:
                refused = outcome.refused
                for each, count in outcome.counts.items():
                    door.tell_refused(each.name.lower(), count)
            answers += [(refusal.place, error_line(refusal)) for refusal in refused]
        for place, name in batch.asked:
            if name in LAST:
                self._lines.clear()
                self._half.clear()
                self._ended = True
            if name != "exit":
                answers.append((place, NO_HTTP if name == HTTP else door.answer(name) if name in COMMANDS else unknown(name)))
        answers.sort(key=lambda answer: answer[0])
        self._say("".join(text for _, text in answers))

    def _say(self, text: str) -> None:
        if not text or self._transport is None or self._transport.is_closing():
            return
        self._transport.write(text.encode())

    async def _until_read(self) -> None:
        """Wait until the client has read what it was told, and end it if it does not. During a stop nobody waits."""
        if self._door.is_stopping:
            return
        try:
            async with asyncio.timeout(self._door.limits.unread_s):
                await self._has_room.wait()
        except TimeoutError:
            self.cut("reader too slow")


def _cause(error: OutlastError) -> str:
    return f"{error.fault.code} {error.fault.reason}" if isinstance(error, Unavailable) else str(error)
