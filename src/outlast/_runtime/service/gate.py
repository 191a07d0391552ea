"""A gate that must be empty before a stop goes on: it refuses newcomers once closed, and names who is still inside."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from outlast._core.faults import Fault, Kind, Unavailable
from outlast._runtime.dependency.callers import Callers
from outlast._runtime.dependency.incident import clock
from outlast._runtime.process.stacks import task_stack, thread_stack
from outlast._runtime.service.stop import Stopping, finish

if TYPE_CHECKING:
    from types import TracebackType

HOLDERS_MAX: Final = 10_000
FULL_RETRY_S: Final = 1.0
"""The seconds after which it is worth coming back to a gate that is full: there is no better estimate."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody inside a gate."""

    name: str
    since: float
    """On the event loop's clock."""
    task: asyncio.Task[Any] | None
    """The task that entered; None for a thread."""
    thread_id: int

    def stack(self) -> tuple[str, ...]:
        """Return the frames in which it stands, outermost first."""
        return thread_stack(self.thread_id) if self.task is None else task_stack(self.task)


class Gate:
    """Counts who is inside. Every service has one, `service.gate`; the drain ends when it is empty.

        async with service.gate.enter("GET /orders"):
            ...

    Once closed, `enter` raises `Stopping` at once; who is inside may finish. `holders_max` bounds who may be inside at a
    time: those beyond get `Unavailable`, kind `OVERLOADED`. None is no bound. Safe for threads. A task or thread that comes
    back within 10 ms of a refusal waits before the next one, so that those inside get their turn.
    """

    def __init__(self, name: str, *, holders_max: int | None = HOLDERS_MAX) -> None:
        self.name = name
        self.holders_max = holders_max
        self.closed: str | None = None
        """The reason why it is closed; None while it is open."""
        self.refused = 0
        """The number of those who were turned away."""
        self._holders: dict[Pass, Holder] = {}
        self.callers = Callers()
        """The memory of who was refused last."""
        # Protects the holders, the reason of being closed, the count of the refused and those who wait for it to be empty.
        # Who waits is woken when it is free: a future belongs to the thread of its event loop.
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        """Show the state, for logs."""
        return f"<Gate {self.name} {'open' if self.closed is None else 'closed'}, {len(self._holders)} inside>"

    def __len__(self) -> int:
        """Return how many are inside."""
        return len(self._holders)

    def enter(self, name: str) -> Pass:
        """Return what to hold, with `async with` or `with`, while inside; `name` says who that is."""
        return Pass(self, name)

    @property
    def refuses(self) -> bool:
        """Whether it would turn a newcomer away now. Read without the lock: `take` decides."""
        full = self.holders_max is not None and len(self._holders) >= self.holders_max
        return full or self.closed is not None

    @property
    def holders(self) -> tuple[Holder, ...]:
        """The holders that are inside now, the longest first."""
        with self._lock:
            return tuple(self._holders.values())

    def close(self, reason: str) -> None:
        """Refuse newcomers from now on. Closing twice is the same as closing once."""
        with self._lock:
            self.closed = self.closed or reason

    def open(self) -> None:
        """Let newcomers in again: the service is started once more."""
        with self._lock:
            self.closed = None

    async def empty(self) -> None:
        """Return when nobody is inside; at once if that is so."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if not self._holders:
                return
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append((loop, future))
        await future

    def take(self, holding: Pass, name: str) -> None:
        """Let somebody in, or raise."""
        task = _current_task()
        with self._lock:
            if self.closed is not None:
                self.refused += 1
                raise Stopping(self.closed)
            if self.holders_max is not None and len(self._holders) >= self.holders_max:
                self.refused += 1
                reason = f"{len(self._holders)} are inside already (limit {self.holders_max})"
                raise Unavailable(self.name, Fault(Kind.OVERLOADED, "gate full", reason, self.name), 0.0, FULL_RETRY_S)
            self._holders[holding] = Holder(name, clock(), task, threading.get_ident())

    def give_back(self, holding: Pass) -> None:
        """Let somebody out."""
        with self._lock:
            self._holders.pop(holding, None)
            if self._holders or not self._waiting:
                return
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, future)


class Pass:
    """The right to be inside a gate, once."""

    __slots__ = ("_gate", "_name")

    def __init__(self, gate: Gate, name: str) -> None:
        """Belong to `gate`; nothing happens until it is entered."""
        self._gate = gate
        self._name = name

    def __enter__(self) -> None:
        """Go in, or raise `Stopping` or `Unavailable`."""
        if self._gate.refuses:
            self._gate.callers.take_turn_in_thread(FULL_RETRY_S)
        self._gate.take(self, self._name)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._gate.give_back(self)

    async def __aenter__(self) -> None:
        """Go in, or raise `Stopping` or `Unavailable`."""
        if self._gate.refuses:
            await self._gate.callers.take_turn(FULL_RETRY_S)
        self._gate.take(self, self._name)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.give_back(self)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
