"""Adapters keep their promises in virtual time: one made of the two doors alone, before a peer in memory, and that of a disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
from typing import TYPE_CHECKING, Any

import pytest
from adapter_contract import AdapterContract, Failure, PlainContract, PlainRig, Rig
from guarded_disk import Inline, Writer, disk_of, files_of, threads

from outlast import Classifiers, Dependency, Fault, Kind, Scope, State
from outlast.extend import Pacer, attach
from outlast.testing import Episode, Script, ScriptedPeer, Trouble, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from outlast.disk import Disk

DEADLINE_S = 0.3
LOOK_S = 1.0


class AnswerError(Exception):
    """The peer's answer to one call."""


class Server(ScriptedPeer):
    """A peer that has sessions, and works on a call until it is done or cancelled."""

    def __init__(self) -> None:
        super().__init__("memory", latency_s=0.002)
        self.sessions: set[Session] = set()
        self.working: set[object] = set()

    def trouble(self, trouble: Trouble) -> None:
        self.script = Script(Episode(asyncio.get_running_loop().time(), math.inf, trouble))

    def heal(self) -> None:
        self.script.heal()
        self.script = Script()


class Session:
    def __init__(self, server: Server, epoch: int) -> None:
        self.server = server
        self.epoch = epoch
        server.sessions.add(self)

    def end(self) -> None:
        self.server.sessions.discard(self)

    async def ask(self, answer: Exception | None = None) -> None:
        if self not in self.server.sessions:
            raise ConnectionResetError(errno.ECONNRESET, "the session has ended")
        await self.server.call()
        if answer is not None:
            raise answer


class Memory(Dependency):
    """The adapter: what a session, a deadline and an end are is its own; the rest is the runtime's."""

    def __init__(self, server: Server, secret: str) -> None:
        super().__init__("memory", classifiers=Classifiers([rule]), probe_timeout_s=LOOK_S)
        self.dialled: list[float] = []
        self._server = server
        self._secret = secret
        self._pacer = Pacer()
        self._sessions: set[Session] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self.subscribe(self._on_change)

    async def probe(self) -> None:
        await self._pacer.turn()
        await self._server.probe()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        async with self.use("connect"):
            await self._pacer.turn()
            self.dialled.append(asyncio.get_running_loop().time())
            epoch = self.epoch
            async with asyncio.timeout(DEADLINE_S):
                session = await self._server.call(lambda: Session(self._server, epoch))
        self._sessions.add(session)
        try:
            yield session
        finally:
            self._let_go(session)

    async def work(self, seconds: float, answer: Exception | None = None) -> None:
        """Have the peer work for so long, within our deadline."""
        async with self.session() as session, self.use("call"):
            place = object()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    if seconds:
                        await self._server.call(lambda: self._server.working.add(place))
                        await asyncio.sleep(seconds)
                    await session.ask(answer)
            except TimeoutError as error:
                if await self.answers(LOOK_S):
                    attach(error, Fault(Kind.TRANSIENT, "timeout", "the call is slow", self.name, Scope.CALL))
                raise
            finally:
                if place in self._server.working:
                    self._end(place)

    async def close(self) -> None:
        for session in tuple(self._sessions):
            self._let_go(session)
        await super().close()
        if self._endings:
            await asyncio.wait(self._endings, timeout=0.3)
        for ending in self._endings:
            ending.cancel()

    def _let_go(self, session: Session) -> None:
        self._sessions.discard(session)
        session.end()

    def _end(self, place: object) -> None:
        """Ask the peer to end what was given up: in a task of its own, for nobody waits for it any more."""
        ending = asyncio.create_task(self._cancel(place))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _cancel(self, place: object) -> None:
        with contextlib.suppress(OSError):
            await self._server.call()
        self._server.working.discard(place)

    def _on_change(self, state: State, fault: Fault | None) -> None:
        if state is State.DOWN:
            for session in tuple(self._sessions):
                self._let_go(session)


def rule(exc: BaseException, phase: str) -> Fault | None:
    if isinstance(exc, AnswerError):
        code = str(exc)
        kind = {"taken": Kind.CONTENDED, "full": Kind.EXHAUSTED, "wrong": Kind.REJECTED, "slow down": Kind.OVERLOADED}[code]
        return Fault(kind, code, f"the peer says: {code}", scope=Scope.CALL)
    return None


def answering(code: str, kind: Kind) -> Failure:
    return Failure(lambda adapter: adapter.work(0.0, AnswerError(code)), kind, Scope.CALL)


class MemoryRig(Rig):
    secret = "hunter2-in-memory"

    def __init__(self) -> None:
        self.server = Server()
        self.adapters: list[Memory] = []

    @property
    def dialled(self) -> list[float]:  # type: ignore[override] # asked for when it is complete
        return [at for adapter in self.adapters for at in adapter.dialled]

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        run_virtual(main)

    def adapter(self) -> Memory:
        self.adapters.append(Memory(self.server, self.secret))
        return self.adapters[-1]

    def session(self, adapter: Memory) -> contextlib.AbstractAsyncContextManager[Session]:
        return adapter.session()

    async def use(self, session: Session) -> None:
        await session.ask()

    async def call(self, adapter: Memory) -> None:
        await adapter.work(0.0)

    async def slow(self, adapter: Memory) -> None:
        await adapter.work(60.0)

    def failures(self) -> dict[str, Failure]:
        return {
            "somebody holds it": answering("taken", Kind.CONTENDED),
            "no room": answering("full", Kind.EXHAUSTED),
            "a wrong call": answering("wrong", Kind.REJECTED),
            "too many calls": answering("slow down", Kind.OVERLOADED),
        }

    def refuse(self) -> None:
        self.server.trouble(Trouble.REFUSE)
        self.server.sessions.clear()

    def freeze(self) -> None:
        self.server.trouble(Trouble.HANG)

    def heal(self) -> None:
        self.server.heal()

    def held(self) -> int:
        return len(self.server.sessions)

    def working(self) -> int:
        return len(self.server.working)


class TestAPeerInMemory(AdapterContract):
    @pytest.fixture
    def rig(self) -> MemoryRig:
        return MemoryRig()


class DiskRig(PlainRig):
    """A disk in memory. It has no sessions: whoever writes has a file open, which outlives every outage."""

    secret = "hunter2 in a record"
    frozen = "hangs"

    def __init__(self) -> None:
        self.files = files_of()
        self.disks: list[Disk] = []

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        run_virtual(main)

    def adapter(self) -> Disk:
        self.disks.append(disk_of(self.files))
        return self.disks[-1]

    async def call(self, adapter: Disk) -> None:
        async with adapter.use("append"):
            Writer(adapter, data=self.secret.encode()).write_once()

    def failures(self) -> dict[str, Failure]:
        async def without_descriptors(disk: Disk) -> None:
            self.files.fail("open", errno.EMFILE)
            await self.call(disk)

        async def too_large(disk: Disk) -> None:
            async with disk.use("append"):
                disk.admit(1 << 40)

        return {
            "no descriptor": Failure(without_descriptors, Kind.TRANSIENT, Scope.CALL),
            "too large for the disk": Failure(too_large, Kind.EXHAUSTED, Scope.CALL),
        }

    def refuse(self) -> None:
        for call in ("room", "open"):
            self.files.fail(call, errno.ESTALE, times=math.inf)

    def freeze(self) -> None:
        for disk in self.disks:
            for thread in threads(disk):
                thread.hanging = True

    def heal(self) -> None:
        self.files.heal()
        for disk in self.disks:
            for thread in threads(disk):
                thread.heal()


class TestDisk(PlainContract):
    @pytest.fixture
    def rig(self, monkeypatch: pytest.MonkeyPatch) -> DiskRig:
        monkeypatch.setattr("outlast.disk._disk.OwnThread", Inline)
        return DiskRig()
