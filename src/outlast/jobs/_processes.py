"""Child processes, for handlers that hold the interpreter, crash, or must be killed when their time is over."""

from __future__ import annotations

import asyncio
import errno
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from outlast import Classifiers, Dependency, Fault, Kind, OutlastError, Scope, Unavailable
from outlast.extend import JsonTooLargeError, NotJsonError
from outlast.jobs._child_process import NAME, ChildDiedError, ChildProcess
from outlast.jobs._importable import MAIN, main_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.jobs._importable import Home
    from outlast.jobs._model import Job

JOBS_MAX: Final = 1_000
"""Jobs that one child does before another takes its place: what leaks in it is bounded."""
IDLE_S: Final = 60.0
"""A child that had nothing to do for so long ends."""
START_S: Final = 60.0
"""A child that is not ready by then is killed: it imports the program, on a machine that may be busy."""
STARTS_MAX: Final = 4
"""Children that start at the same time: each takes a processor for some tenths of a second."""
BEGINS_MAX: Final = 3
"""Children that are given the same job, because those before did not begin with it."""
AGAIN_S: Final = 1.0
"""The `retry_after_s` of a refusal when children did not serve: there is no better estimate."""
ENVELOPE_BYTES: Final = 64 * 1024
"""The size of an answer beside the result, at most: names, and the text of a traceback."""


class ChildError(OutlastError):
    """An error that a handler raised in a child process, as text; its fault was found there."""


@dataclass(frozen=True, slots=True)
class ChildResult:
    """The value that a handler returned in a child process: its JSON text, made there, or the reason why it is no JSON."""

    json: str | None = None
    error: NotJsonError | None = None


class ChildProcesses:
    """The children of one worker process: started when needed, used again, and no more than there are jobs under way.

    `dependency` is up while children can be started. While they cannot, one prober tries to start one, no jobs for them are
    acquired, and those that were acquired already are given back.
    """

    def __init__(self, handlers: Callable[[], dict[str, Home]], *, result_bytes_max: int) -> None:
        """`handlers` returns where the handler of each kind is found."""
        self.dependency = Dependency(NAME, probe=self._probe, probe_timeout_s=START_S, classifiers=Classifiers([_no_python]))
        self._handlers = handlers
        self._result_bytes_max = result_bytes_max
        self._idle: list[ChildProcess] = []
        self._all: dict[ChildProcess, None] = {}
        self._starts = asyncio.Semaphore(STARTS_MAX)
        self._closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of those that live."""
        return tuple(child.pid for child in self._all)

    async def run(self, job: Job, timeout_s: float | None) -> ChildResult:
        """Run the handler of the job in a child, and return its result.

        Raises `TimeoutError` when it has run for `timeout_s` seconds: the child is killed then, as it is when this is
        cancelled. Raises `ChildError` for what the handler raised, `ChildDiedError`, and `Unavailable` if none can be started.
        """
        for _ in range(BEGINS_MAX):
            child = await self._take()
            try:
                if not await child.begins(job):
                    continue
                answer = await child.answer(job, timeout_s)
            except BaseException:
                child.kill()
                raise
            if answer is None:
                raise await child.died(job)
            self._put_back(child)
            return _result(answer, job)
        fault = Fault(Kind.TRANSIENT, "not begun", f"{BEGINS_MAX} child processes did not begin with a job", NAME)
        raise Unavailable(NAME, fault, 0.0, AGAIN_S)

    def open(self) -> None:
        """Take jobs from now on, on the event loop that runs now."""
        self._closed = False
        self._starts = asyncio.Semaphore(STARTS_MAX)

    async def close(self, grace_s: float) -> None:
        """End them all: those that are idle may end by themselves within `grace_s` seconds, then they are killed."""
        self._closed = True
        for child in self._idle:
            child.close()
        for child in [child for child in self._all if child not in self._idle]:
            child.kill()
        self._idle.clear()
        if self._all:
            await asyncio.wait({child.ended for child in self._all}, timeout=grace_s)
        for child in self._all:
            child.kill()
        if self._all:
            await asyncio.wait({child.ended for child in self._all}, timeout=grace_s)

    async def _take(self) -> ChildProcess:
        """Return a child that is idle, or a new one."""
        while self._idle:
            child = self._idle.pop()
            if child.expiry is not None:
                child.expiry.cancel()
            if not child.ended.done():
                return child
        starting = asyncio.ensure_future(self._started())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # It is started all the same, for the next job.
            starting.add_done_callback(self._keep)
            raise

    async def _started(self) -> ChildProcess:
        """Start one, or raise `Unavailable`: that it cannot be started is the fault of no job."""
        try:
            async with self._starts, self.dependency.use("start"), asyncio.timeout(START_S):
                return await self._start()
        except (OSError, ChildDiedError) as exc:
            raise self.dependency.refusal(exc, retry_after_s=AGAIN_S) from exc

    async def _start(self) -> ChildProcess:
        handlers = self._handlers()
        # A result is sent as a JSON text within JSON: at worst each of its characters is escaped.
        answer_bytes_max = 2 * self._result_bytes_max + ENVELOPE_BYTES
        greeting = {
            "handlers": {kind: [place.module, place.name] for kind, place in handlers.items()},
            "main": main_source() if any(place.module == MAIN for place in handlers.values()) else None,
            "argv": sys.argv,
            "result_bytes_max": self._result_bytes_max,
        }
        child = await ChildProcess.start(greeting, answer_bytes_max)
        self._all[child] = None
        child.ended.add_done_callback(lambda _: self._all.pop(child, None))
        return child

    async def _probe(self) -> None:
        async with self._starts:
            self._put_back(await self._start())

    def _keep(self, starting: asyncio.Task[ChildProcess]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self._put_back(starting.result())

    def _put_back(self, child: ChildProcess) -> None:
        if self._closed or child.jobs >= JOBS_MAX:
            child.close()
        else:
            child.expiry = asyncio.get_running_loop().call_later(IDLE_S, self._expire, child)
            self._idle.append(child)

    def _expire(self, child: ChildProcess) -> None:
        if child in self._idle:
            self._idle.remove(child)
            child.close()


def _result(answer: dict[str, Any], job: Job) -> ChildResult:
    """Return the result, or raise what the handler raised."""
    if "no_json" in answer:
        return ChildResult(error=(JsonTooLargeError if answer["too_large"] else NotJsonError)(answer["no_json"]))
    error = answer.get("error")
    if error is None:
        return ChildResult(answer["result"])
    said: dict[str, Any] = error["fault"]
    said.update(kind=Kind(said["kind"]), scope=Scope(said["scope"]))
    fault = Fault(**said)
    if "unavailable" in error:
        dependency, since_s, retry_after_s = error["unavailable"]
        raise Unavailable(dependency, fault, since_s, retry_after_s)
    raised = ChildError(error["text"], fault)
    raised.add_note(f"in the child process of job {job.id}:\n{error['traceback']}")
    raise raised


def _no_python(exc: BaseException, phase: str) -> Fault | None:
    """Return the fault of a Python that cannot be started: it was there when this process began."""
    if phase in {"start", "probe"} and isinstance(exc, OSError) and exc.errno in {errno.ENOENT, errno.ENOEXEC}:
        return Fault(Kind.PERMANENT, "no python", f"cannot start {sys.executable}: {exc.strerror}", NAME, hint="install it again")
    return None
