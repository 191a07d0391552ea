"""A TCP proxy that counts who dials, and fails on demand. It runs in a thread of its own, beside what it measures."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, Self

from outlast.testing._network.ports import free_port
from outlast.testing._network.proxied_link import Relay, reset_at_close

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

Mode = Literal["pass", "refuse", "blackhole", "mute"]
ATTEMPTS_MAX: Final = 1_000_000
"""Times of attempts that are kept; the total is exact beyond that."""
LINKS_MAX: Final = 5_000
"""Clients that are connected at a time; those beyond are counted and reset."""
DIAL_S_MAX: Final = 30.0
"""Seconds that the target may take to let a client in."""
BACKLOG: Final = 4_096
ACCEPTS_A_TURN: Final = 256
_DESCRIPTORS_OTHER: Final = 1_024
_CALL_S_MAX: Final = 10.0
_NO_DESCRIPTORS_S: Final = 0.05


class FaultProxy:
    """Forwards TCP to one target and counts every connection it is offered.

    `mode` may be set from any thread, and holds when the assignment is done. "pass" forwards. "refuse" resets each client as it
    comes, and leaves those that are connected alone. "blackhole" takes connections and bytes, and forwards nothing, not even
    that one side has gone; when it passes again, it forwards what it kept (at most 320 KiB a direction; the sender waits with
    the rest). "mute" forwards what clients send, and keeps what the target answers: the work is done, and the answer is late, or
    lost by a `cut()`. `cut()` resets all live connections. When the target refuses or resets, so does the proxy. `delay_s` is
    added to each piece, each way. Each client takes two file descriptors of this process. `watch(at, opening)` is called on the
    proxy's thread with the time of an attempt and the first bytes that its client sent, after each piece of them until there are
    64: it can tell one kind of client from another.
    """

    def __init__(self, target_host: str, target_port: int, *, watch: Callable[[float, bytes], None] | None = None) -> None:
        """Describe it; `start` or `with` starts it."""
        self.target = (target_host, target_port)
        self._watch = watch
        self.delay_s = 0.0
        self.attempts: deque[float] = deque(maxlen=ATTEMPTS_MAX)
        """`time.monotonic()` of each connection that a client opened."""
        self.attempt_count = 0
        """Their number, exact."""
        self.port = 0
        self._mode: Mode = "pass"
        self._running: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._links: set[Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop it."""
        self.stop()

    def start(self, port: int = 0) -> int:
        """Listen on a loopback port, a free one unless given; return the port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind(("127.0.0.1", port or free_port()))
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        _allow_descriptors(2 * LINKS_MAX + _DESCRIPTORS_OTHER)
        self._listener = listener
        self.port = int(listener.getsockname()[1])
        self._running = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._running.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self._call(self._listen)
        return self.port

    def stop(self) -> None:
        """Stop listening and reset every connection. A proxy that was stopped is not started again."""
        if self._running is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._running).result(_CALL_S_MAX)
        self._running.call_soon_threadsafe(self._running.stop)
        self._thread.join(_CALL_S_MAX)
        self._running.close()
        self._running = self._thread = None

    @property
    def mode(self) -> Mode:
        """The present treatment of connections."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._call(self._heal)

    @property
    def holding(self) -> bool:
        """Whether it forwards nothing now."""
        return self._mode == "blackhole"

    @property
    def is_mute(self) -> bool:
        """Whether it forwards nothing of what the target answers now."""
        return self._mode == "mute"

    def opened(self, link: Relay, opening: bytes) -> None:
        """Pass on what a client says first to whoever watches."""
        if self._watch is not None:
            self._watch(link.accepted_s, opening)

    @property
    def live(self) -> int:
        """The number of clients that are connected now."""
        return sum(1 for link in tuple(self._links) if link.live)

    def cut(self) -> None:
        """Reset all live connections, on both sides."""
        self._call(self._cut)

    def since(self, at: float) -> int:
        """Return how many connections were opened at or after that time, of those whose times are kept."""
        times = self.attempts.copy()
        return len(times) - bisect_left(times, at)

    def peak_in(self, window_s: float, since: float = 0.0) -> int:
        """Return the most connections that were opened within any `window_s` seconds, at or after `since`."""
        return peak((at for at in self.attempts.copy() if at >= since), window_s)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The proxy's event loop; only for functions that run on it."""
        assert self._running is not None  # noqa: S101  only functions that run on the loop ask
        return self._running

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function on the proxy's loop, and return when it is done."""
        done = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                done.set()

        if self._running is not None:
            self._running.call_soon_threadsafe(run)
            done.wait(_CALL_S_MAX)

    def _listen(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                raw, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors: those who wait stay in the backlog until some are free again.
                self._loop.remove_reader(listener)
                self._loop.call_later(_NO_DESCRIPTORS_S, self._listen)
                return
            now_s = time.monotonic()
            self.attempts.append(now_s)
            self.attempt_count += 1
            if self._mode == "refuse" or len(self._links) >= LINKS_MAX:
                reset_at_close(raw)
                raw.close()
            else:
                self._admit(raw, now_s)

    def _admit(self, raw: socket.socket, now_s: float) -> None:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Relay(self._loop, self, self._links.discard)
        link.accepted_s = now_s
        self._links.add(link)
        self._keep(self._loop.create_task(self._take_in(link, raw)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_in(self, link: Relay, raw: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: link.client, raw)
        if link.over:
            # Cut while it was being taken in.
            link.client.close(reset=True)
        elif not self.holding:
            self._dial(link)

    def _dial(self, link: Relay) -> None:
        if link.dialling is None and link.live:
            link.dialling = self._loop.create_task(self._connect(link))
            self._keep(link.dialling)

    async def _connect(self, link: Relay) -> None:
        try:
            async with asyncio.timeout(DIAL_S_MAX):
                await self._loop.create_connection(lambda: link.target, *self.target)
        except OSError:
            # TimeoutError is one too: a frozen target whose backlog is full answers nothing.
            link.close(reset=True)

    def _heal(self) -> None:
        """Forward what was kept, and dial for those that came meanwhile: after a change of mode."""
        if self.holding:
            return
        for link in tuple(self._links):
            self._dial(link)
            link.pump()

    def _cut(self) -> None:
        for link in tuple(self._links):
            link.close(reset=True)

    async def _close(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self._cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The connections are closed by callbacks of the loop's next turn.
        await asyncio.sleep(0)


def _allow_descriptors(wanted: int) -> None:
    """Raise this process's limit on open files as far as it may, for many systems begin with 256 or 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        # Some systems refuse a value below the hard limit they report.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def peak(times: Iterable[float], window_s: float) -> int:
    """Return how many of these times, in ascending order, lie within any `window_s` seconds, at most."""
    window: deque[float] = deque()
    most = 0
    for at in times:
        window.append(at)
        while window[0] <= at - window_s:
            window.popleft()
        most = max(most, len(window))
    return most
