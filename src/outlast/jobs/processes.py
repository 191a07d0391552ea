"""Child processes in which handlers run that hold the interpreter, crash, or must be killed when their time is over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast import Classifiers, Dependency, Fault, Kind, OutlastError, Scope, Unavailable
from outlast.core.faults import attach
from outlast.jobs.importable import MAIN, main_source
from outlast.jobs.process_child import LENGTH, frame, of_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.jobs.importable import Place
    from outlast.jobs.model import Job

E = TypeVar("E", bound=OutlastError)
JOBS_MAX: Final = 1_000
"""Jobs that one child does before another takes its place: what leaks in it is bounded."""
IDLE_S: Final = 60.0
"""A child that had nothing to do for so long ends."""
START_S: Final = 60.0
"""A child that is not ready by then is killed: it imports the program, on a machine that may be busy."""
STARTS_MAX: Final = 4
"""Children that start at the same time: each takes a processor for some tenths of a second."""
BEGIN_S: Final = 30.0
"""An idle child that has not begun by then is killed, and the job given to another."""
BEGINS_MAX: Final = 3
AGAIN_S: Final = 1.0
"""When it is worth coming back to children that did not serve: there is no better estimate."""
KILL_S: Final = 5.0
"""How long to wait for the kernel to end a child that was killed; it takes longer only for one that waits for a disk."""
ENVELOPE_BYTES: Final = 64 * 1024
"""What an answer may have beside the result: names, and the text of a traceback."""
NAME: Final = "child process pool"
_START: Final = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from outlast.jobs.process_child import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


class ChildError(OutlastError):
    """What a handler raised in a child process, as text; the fault attached to it was found there."""


class ChildDiedError(OutlastError):
    """A child process ended in the middle of a job. The fault attached to it says by which signal or exit code."""


class _NotBegunError(OutlastError):
    """A child did not begin with the job that it was given."""


class ChildProcess:
    """One child and the stream to it. It is given one job at a time."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_max: int
    ) -> None:
        """Take over a process that was just started."""
        self.pid = process.pid
        self.jobs = 0
        self.expiry: asyncio.TimerHandle | None = None
        """Ends the child when it has been idle for long."""
        self._process = process
        self._reader = reader
        self._writer = writer
        self._bytes_max = bytes_max
        self.ended = asyncio.create_task(self._end(), name=f"{NAME}: {self.pid}")

    @classmethod
    async def start(cls, greeting: dict[str, Any], bytes_max: int) -> ChildProcess:
        """Start one, and wait until it has imported the handlers. Raises `OSError`, and `ChildDiedError` if it did not."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *_command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # No signal of the parent's terminal; and it can be killed together with what it starts.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = cls(process, reader, writer, bytes_max)
        try:
            child.tell(greeting)
            answer = await child.hear()
        except BaseException:
            child.kill()
            raise
        if answer is None or "failed" in answer:
            raise await child.not_started(answer)
        return child

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message. What does not fit into the stream at once goes on in the background."""
        self._writer.write(frame(message))

    async def hear(self) -> dict[str, Any] | None:
        """Give its next message; None if there will be none."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            size = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))[0]
            if size <= self._bytes_max:
                message = json.loads(await self._reader.readexactly(size))
                return message if isinstance(message, dict) else None
        return None

    def close(self) -> None:
        """Have it end by itself: its stream is at an end."""
        self._writer.close()

    def kill(self) -> None:
        """Kill it, and what it has started, unless that went into a session of its own."""
        if self._process.returncode is None:
            _kill_group(self.pid)

    async def gone(self, limit_s: float) -> bool:
        """Wait until it has ended, for at most `limit_s` seconds."""
        await asyncio.wait({self.ended}, timeout=limit_s)
        return self.ended.done()

    async def died(self, job: Job) -> ChildDiedError:
        """Make the error of a child that ended, or broke off its stream, in the middle of a job."""
        code, how = await self._how()
        fault = _death(code, f"the child process {self.pid} of job {job.id} ({job.kind}) {how}", job.kind)
        return _with_fault(ChildDiedError(fault.reason), fault)

    async def not_started(self, answer: dict[str, Any] | None) -> ChildDiedError:
        """Make the error of a child that could not import the handlers."""
        if answer is not None:
            self.close()
            error = ChildDiedError(f"a child process cannot import the handlers: {answer['failed']}")
            error.add_note(str(answer.get("traceback", "")))
            hint = "import the module of each handler with process=True alone, and mend what it raises"
            return _with_fault(error, Fault(Kind.PERMANENT, "child start", str(error), NAME, hint=hint))
        code, how = await self._how()
        fault = replace(_death(code, f"a child process {how} before it was ready", NAME), scope=Scope.DEPENDENCY)
        if fault.kind is Kind.BUG:
            fault = replace(fault, kind=Kind.PERMANENT, hint="look at what the modules of the handlers do")
        return _with_fault(ChildDiedError(fault.reason), fault)

    async def _how(self) -> tuple[int | None, str]:
        """Wait for the end of a child that says no more; gives its exit code, and how it ended in words."""
        if not await self.gone(1.0):
            self.kill()
            await self.gone(KILL_S)
            return None, "closed its stream and went on; it was killed"
        code = self.ended.result()
        return code, f"was ended by {_signal_name(-code)}" if code < 0 else f"left with exit code {code}"

    async def _end(self) -> int:
        code = await self._process.wait()
        # What it has started and not ended is left over; nobody else can have its process group so soon.
        _kill_group(self.pid)
        self._writer.close()
        if self.expiry is not None:
            self.expiry.cancel()
        return code


class ChildProcesses:
    """The children of one worker process: started when needed, used again, and no more than there are jobs under way.

    `dependency` is whether children can be started. While they cannot, one prober tries to start one, no jobs for them are
    acquired, and those that were acquired already are given back.
    """

    def __init__(self, handlers: Callable[[], dict[str, Place]], *, result_bytes_max: int) -> None:
        """Start nothing yet; `handlers` gives where each kind's handler is found."""
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

    async def run(self, job: Job, timeout_s: float | None) -> Any:  # noqa: ANN401 - the handler's result
        """Have a child run the handler of the job, and give its result.

        Raises `TimeoutError` when it has run for `timeout_s` seconds: the child is killed then, as it is when this is
        cancelled. Raises `ChildError` for what the handler raised, `ChildDiedError`, and `Unavailable` if none can be started.
        """
        for _ in range(BEGINS_MAX):
            child = await self._take()
            try:
                await self._begin(child, job)
                answer = await _answer(child, job, timeout_s)
            except _NotBegunError:
                continue
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
        """Take jobs from now on."""
        self._closed = False

    async def close(self, grace_s: float) -> None:
        """End them all: by themselves within `grace_s` seconds, by force afterwards."""
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
        """Give a child that is idle, or a new one."""
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
            # It is started all the same, for whoever comes next.
            starting.add_done_callback(self._keep)
            raise

    async def _started(self) -> ChildProcess:
        """Start one, or raise `Unavailable`: that it cannot be started is the fault of no job."""
        try:
            async with self._starts, self.dependency.use("start"), asyncio.timeout(START_S):
                return await self._start()
        except (OSError, ChildDiedError) as exc:
            if not self.dependency.passable:
                raise self.dependency.unavailable() from exc
            raise Unavailable(NAME, self.dependency.classifiers.classify(exc, source=NAME), 0.0, AGAIN_S) from exc

    async def _start(self) -> ChildProcess:
        handlers = self._handlers()
        greeting = {
            "handlers": {kind: [place.module, place.name] for kind, place in handlers.items()},
            "main": main_source() if any(place.module == MAIN for place in handlers.values()) else None,
            "argv": sys.argv,
            "result_bytes_max": self._result_bytes_max,
        }
        child = await ChildProcess.start(greeting, self._result_bytes_max + ENVELOPE_BYTES)
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

    async def _begin(self, child: ChildProcess, job: Job) -> None:
        """Give the job to the child, and return when its body begins. Raises `_NotBegunError` if that does not happen."""
        child.jobs += 1
        try:
            async with asyncio.timeout(BEGIN_S):
                child.tell(of_job(job))
                answer = await child.hear()
        except TimeoutError:
            answer = None
        if answer != {"begun": job.id}:
            child.kill()
            raise _NotBegunError


async def _answer(child: ChildProcess, job: Job, timeout_s: float | None) -> dict[str, Any] | None:
    """Wait for what becomes of a job that has begun; at its time-out the child is killed, and this returns when it has ended."""
    hearing = asyncio.ensure_future(child.hear())
    try:
        await asyncio.wait({hearing}, timeout=timeout_s)
        if hearing.done():
            return hearing.result()
        child.kill()
        await child.gone(KILL_S)
        msg = f"job {job.id} ({job.kind}) did not end within {timeout_s:g} s; its child process {child.pid} was killed"
        raise TimeoutError(msg)
    finally:
        hearing.cancel()


def _result(answer: dict[str, Any], job: Job) -> Any:  # noqa: ANN401 - the handler's result
    """Give the result, or raise what the handler raised."""
    if "refused" in answer:
        fault = Fault(Kind.REJECTED, "result", answer["refused"], job.kind)
        raise _with_fault(ChildError(answer["refused"]), fault)
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    said = error["fault"]
    fault = Fault(**{**said, "kind": Kind(said["kind"]), "scope": Scope(said["scope"])})
    if "unavailable" in error:
        dependency, since_s, retry_after_s = error["unavailable"]
        raise Unavailable(dependency, fault, since_s, retry_after_s)
    raised = _with_fault(ChildError(error["text"]), fault)
    raised.add_note(f"in the child process:\n{error['traceback']}")
    raise raised


def _with_fault(error: E, fault: Fault) -> E:
    attach(error, fault)
    return error


def _death(code: int | None, reason: str, source: str) -> Fault:
    """The fault of a child that has ended by itself, with this exit code."""
    if code is None:
        return Fault(Kind.BUG, "stream closed", reason, source)
    if code == -signal.SIGKILL:
        hint = "if nobody killed it, memory was short: look into the kernel's log"
        return Fault(Kind.EXHAUSTED, "SIGKILL", reason, source, Scope.CALL, hint=hint)
    name = _signal_name(-code) if code < 0 else f"exit {code}"
    return Fault(Kind.BUG, name, reason, source, Scope.CALL)


def _no_python(exc: BaseException, phase: str) -> Fault | None:
    """The rule for a Python that cannot be started: it was there when this process began."""
    if phase in {"start", "probe"} and isinstance(exc, OSError) and exc.errno in {errno.ENOENT, errno.ENOEXEC}:
        return Fault(Kind.PERMANENT, "no python", f"cannot start {sys.executable}: {exc.strerror}", NAME, hint="install it again")
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _command(descriptor: int) -> list[str]:
    """Start this Python with the same options and the same path for imports, and with nothing else of this process."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing
    return [sys.executable, *options, "-P", "-c", _START, str(descriptor), str(os.getpid()), *sys.path]
