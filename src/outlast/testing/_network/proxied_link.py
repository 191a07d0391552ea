"""One client's connection through the fault proxy: two ends, and what was received from each and not yet passed on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

HELD_BYTES_MAX: Final = 262_144
"""Bytes of one direction that are held before the sender has to wait: four of the loop's reads of 64 KiB."""
OPENING_BYTES_MAX: Final = 64
"""The first bytes of a client that the proxy's conditions are shown: enough to tell one protocol message from another."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST, as a machine without the port would."""


class Conditions(Protocol):
    """The state of a proxy that its links follow."""

    @property
    def holding(self) -> bool:
        """Whether nothing may pass now."""
        ...

    @property
    def is_mute(self) -> bool:
        """Whether what the target answers may not pass now."""
        ...

    @property
    def delay_s(self) -> float:
        """Seconds by which everything arrives later."""
        ...

    def opened(self, link: Relay, opening: bytes) -> None:
        """Take what the client has sent so far, after each piece until there are 64 bytes of it."""
        ...


class End(asyncio.Protocol):
    """One end of a link: a connection with the client or with the target."""

    def __init__(self, link: Relay) -> None:
        """An end that is not connected yet."""
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.held: deque[tuple[float, bytes]] = deque()
        """What came from here, each piece with the time from which it may be passed on."""
        self.held_bytes = 0
        self.writable = True
        self.finished = False
        """Its peer will send nothing more."""
        self.lost = False
        """The connection is gone."""
        self.end_passed_on = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part in the link."""
        self.transport = cast("asyncio.Transport", transport)
        self._link.pump()

    def data_received(self, data: bytes) -> None:
        """Hold a piece and pass on what may pass."""
        self.held.append((self._link.due(), data))
        self.held_bytes += len(data)
        self._link.received(self, data)
        self._link.pump()
        if self.held_bytes > HELD_BYTES_MAX and self.transport is not None and not self.lost:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Remember the end; the other direction goes on."""
        self.finished = True
        return self._link.end_finished(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that it is gone. A reset is passed on as a reset."""
        self.finished = self.lost = True
        self._link.end_lost(self, reset=exc is not None)

    def pause_writing(self) -> None:
        """Let what is for here wait."""
        self.writable = False

    def resume_writing(self) -> None:
        """Let it go on."""
        self.writable = True
        self._link.pump()

    def write(self, data: bytes) -> None:
        """Send a piece, unless the connection is gone: then it is lost, as on the wire."""
        if self.transport is not None and not self.lost and not self.transport.is_closing():
            self.transport.write(data)

    def write_end(self) -> None:
        """Say that nothing more comes."""
        if self.transport is not None and not self.lost and not self.transport.is_closing():
            with contextlib.suppress(OSError):
                self.transport.write_eof()

    def close(self, *, reset: bool) -> None:
        """Close in good order, or at once with RST."""
        if self.transport is None or self.lost:
            return
        if not reset:
            self.transport.close()
            return
        reset_at_close(self.transport.get_extra_info("socket"))
        self.transport.abort()


class Relay:
    """Both ends of one client's connection; passes on what the proxy's conditions let pass."""

    def __init__(self, loop: asyncio.AbstractEventLoop, conditions: Conditions, forget: Callable[[Relay], None]) -> None:
        """A link without connections; `forget` is called when it is given up or both ends are gone."""
        self._loop = loop
        self._conditions = conditions
        self._forget = forget
        self.over = False
        """Given up."""
        self._closing: bool | None = None
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.client = End(self)
        self.target = End(self)
        self.dialling: asyncio.Task[None] | None = None
        self.accepted_s = 0.0
        """When the client was taken in, on the monotonic clock."""
        self._opening = b""

    @property
    def live(self) -> bool:
        """Whether the client is there."""
        return not self.client.finished

    def due(self) -> float:
        """Return the time from which a piece that came now may pass; never before that of an earlier one."""
        self._due_s = max(self._due_s, self._loop.time() + self._conditions.delay_s)
        return self._due_s

    def received(self, end: End, data: bytes) -> None:
        """Show the conditions what the client says first."""
        if end is self.client and len(self._opening) < OPENING_BYTES_MAX:
            self._opening = (self._opening + data)[:OPENING_BYTES_MAX]
            self._conditions.opened(self, self._opening)

    def pump(self) -> None:
        """Pass on, in both directions, what may pass now."""
        if self._conditions.holding or self.target.transport is None:
            return
        self._pass_on(self.client, self.target)
        if not self._conditions.is_mute:
            self._pass_on(self.target, self.client)
        drained = not (self.client.held or self.target.held)
        if self.client.end_passed_on and self.target.end_passed_on:
            self.close(reset=False)
        elif self._closing is not None and drained:
            self.close(reset=self._closing)

    def end_finished(self, end: End) -> bool:
        """Record that one side sends nothing more; return whether its connection stays open for what the other side sends."""
        if end is self.client and self.dialling is None:
            # It left before anything was begun for it. Nothing is kept of those, for in an outage there may be many.
            self.close(reset=False)
            return False
        self.pump()
        return True

    def end_lost(self, end: End, *, reset: bool) -> None:
        """Close the other connection of one that is gone, after what was received before has been passed on."""
        if end is self.client and self.target.transport is None:
            self.close(reset=reset)
            return
        self._closing = reset or bool(self._closing)
        self.pump()
        if self.client.lost and self.target.lost:
            self._finish()

    def close(self, *, reset: bool) -> None:
        """Close both connections, by RST if `reset`."""
        self.over = True
        if self.dialling is not None:
            self.dialling.cancel()
        self.client.close(reset=reset)
        self.target.close(reset=reset)
        self._finish()

    def _pass_on(self, source: End, sink: End) -> None:
        now_s = self._loop.time()
        while source.held and sink.writable:
            due_s, data = source.held[0]
            if due_s > now_s:
                self._pump_at(due_s)
                return
            source.held.popleft()
            source.held_bytes -= len(data)
            sink.write(data)
        if source.held:
            return
        if source.transport is not None and not source.finished and not source.transport.is_reading():
            source.transport.resume_reading()
        if source.finished and not source.end_passed_on:
            source.end_passed_on = True
            sink.write_end()

    def _pump_at(self, due_s: float) -> None:
        if self._timer is None or self._timer.when() > due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.pump()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._forget(self)


def reset_at_close(raw: socket.socket | None) -> None:
    """Make closing this socket send RST."""
    if raw is not None:
        # The connection may be gone already.
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
