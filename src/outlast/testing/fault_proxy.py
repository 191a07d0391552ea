"""A TCP proxy that counts who dials, and fails on demand. It runs in a thread of its own, beside what it measures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

Mode = Literal["pass", "refuse", "blackhole"]
ATTEMPTS_MAX: Final = 1_000_000
"""Times of attempts that are kept; the total is exact beyond that."""
CHUNK_BYTES: Final = 65_536
BACKLOG: Final = 4_096
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST, as a machine without the port would."""


class FaultProxy:
    """Forwards TCP to one target and counts every connection it is offered.

    `mode` may be set from any thread: "pass" forwards; "refuse" resets each client as it comes; "blackhole" takes connections and
    bytes and forwards nothing until it passes again. `cut()` resets all live connections. When the target refuses, so does the
    proxy. `delay_s` is added to each chunk, each way.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        """Describe it; `start` or `with` starts it."""
        self.target = (target_host, target_port)
        self.delay_s = 0.0
        self.attempts: deque[float] = deque(maxlen=ATTEMPTS_MAX)
        """`time.monotonic()` of each connection that a client opened."""
        self.attempt_count = 0
        """How many there were, exactly."""
        self.port = 0
        self._mode: Mode = "pass"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop it."""
        self.stop()

    def start(self, port: int = 0) -> int:
        """Listen on a loopback port, a free one unless given; gives the port."""
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result(10)
        return self.port

    def stop(self) -> None:
        """Reset every connection and stop listening."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    @property
    def mode(self) -> Mode:
        """What happens to connections now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._call(self._passing.clear if mode == "blackhole" else self._passing.set)

    @property
    def live(self) -> int:
        """How many clients are connected through it now."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset all live connections, on both sides."""
        self._call(self._cut)

    def since(self, at: float) -> int:
        """How many connections were opened at or after that time."""
        times = list(self.attempts)
        return len(times) - bisect_left(times, at)

    def peak_in(self, window_s: float, since: float = 0.0) -> int:
        """The most connections that were opened within any `window_s` seconds, at or after `since`."""
        return peak((at for at in list(self.attempts) if at >= since), window_s)

    def _call(self, function: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(run)
            done.wait(10)
        else:
            function()

    async def _listen(self, port: int) -> int:
        if self._mode != "blackhole":
            self._passing.set()
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port, backlog=BACKLOG)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> None:
        for writer in tuple(self._writers):
            _reset(writer)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts.append(time.monotonic())
        self.attempt_count += 1
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a stream callback runs in a task
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "refuse":
            return
        await self._passing.wait()
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            ways = [
                asyncio.ensure_future(self._pipe(reader, far_writer)),
                asyncio.ensure_future(self._pipe(far_reader, writer)),
            ]
            _, pending = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            # The other way may still have bytes to deliver, the reason of a refusal for one.
            if pending:
                await asyncio.wait(pending, timeout=1.0)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._writers -= pair
            far_writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()


def peak(times: Iterable[float], window_s: float) -> int:
    """The most of these times, in ascending order, that lie within any `window_s` seconds."""
    window: deque[float] = deque()
    most = 0
    for at in times:
        window.append(at)
        while window[0] <= at - window_s:
            window.popleft()
        most = max(most, len(window))
    return most


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
