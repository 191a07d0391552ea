"""One child process: its start, the messages to and from it, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, OutlastError, Scope
from outlast.jobs._process_child import LENGTH, frame, of_job

if TYPE_CHECKING:
    from outlast.jobs._model import Job

NAME: Final = "child process pool"
"""The name of the dependency that children can be started, and the source of its faults."""
KILL_S: Final = 5.0
"""The time for the kernel to end a child that was killed; it takes longer only for one that waits for a disk."""
SILENT_S: Final = 1.0
"""A child that has closed its stream and has not ended by then is killed."""
BEGIN_S: Final = 30.0
"""A child that has not begun with a job by then is killed, and the job given to another."""
_START: Final = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from outlast.jobs._process_child import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


class ChildDiedError(OutlastError):
    """A child process ended before it was ready, or in the middle of a job. Its fault says how."""


class ChildProcess:
    """One child and the stream to it. It is given one job at a time."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_max: int
    ) -> None:
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
        """Wait for its next message; return None if there will be none."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            size = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))[0]
            if size <= self._bytes_max:
                message: dict[str, Any] = json.loads(await self._reader.readexactly(size))
                return message
        return None

    def close(self) -> None:
        """Close its stream, at which it ends by itself."""
        self._writer.close()

    def kill(self) -> None:
        """Kill it, and what it has started, unless that went into a session of its own."""
        if self._process.returncode is None:
            _kill_group(self.pid)

    async def gone(self, limit_s: float) -> bool:
        """Wait until it has ended, for at most `limit_s` seconds; return whether it has."""
        await asyncio.wait({self.ended}, timeout=limit_s)
        return self.ended.done()

    async def begins(self, job: Job) -> bool:
        """Send it a job, and return True when the body begins. If that does not happen, kill it and return False."""
        self.jobs += 1
        answer = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_S):
                self.tell(of_job(job))
                answer = await self.hear()
        if answer == {"begun": job.id}:
            return True
        self.kill()
        return False

    async def answer(self, job: Job, timeout_s: float | None) -> dict[str, Any] | None:
        """Wait for the outcome of a job that has begun; return None if the child dies.

        At the time-out the child is killed, and has ended when `TimeoutError` is raised.
        """
        hearing = asyncio.ensure_future(self.hear())
        try:
            await asyncio.wait({hearing}, timeout=timeout_s)
            if hearing.done():
                return hearing.result()
        finally:
            hearing.cancel()
        self.kill()
        await self.gone(KILL_S)
        msg = f"job {job.id} ({job.kind}) did not end within {timeout_s:g} s; its child process {self.pid} was killed"
        raise TimeoutError(msg)

    async def died(self, job: Job) -> ChildDiedError:
        """Return the error of a child that ended, or broke off its stream, in the middle of a job."""
        code, how = await self._how()
        fault = _death(code, f"the child process {self.pid} of job {job.id} ({job.kind}) {how}", job.kind)
        return ChildDiedError(fault.reason, fault)

    async def not_started(self, answer: dict[str, Any] | None) -> ChildDiedError:
        """Return the error of a child that could not import the handlers."""
        if answer is not None:
            self.close()
            reason = f"a child process cannot import the handlers: {answer['failed']}"
            hint = "import the module of each handler with process=True alone, and mend what it raises"
            error = ChildDiedError(reason, Fault(Kind.PERMANENT, "child start", reason, NAME, hint=hint))
            error.add_note(str(answer.get("traceback", "")))
            return error
        code, how = await self._how()
        fault = replace(_death(code, f"a child process {how} before it was ready", NAME), scope=Scope.DEPENDENCY)
        if fault.kind is Kind.BUG:
            fault = replace(fault, kind=Kind.PERMANENT, hint="look at what the modules of the handlers do")
        return ChildDiedError(fault.reason, fault)

    async def _how(self) -> tuple[int | None, str]:
        """Wait for the end of a child that sends no more; return its exit code, and in words how it ended."""
        if not await self.gone(SILENT_S):
            self.kill()
            await self.gone(KILL_S)
            return None, "closed its stream and went on; it was killed"
        code = self.ended.result()
        return code, f"was ended by {_signal_name(-code)}" if code < 0 else f"left with exit code {code}"

    async def _end(self) -> int:
        code = await self._process.wait()
        # What it has started and not ended is left over. No other process can have its process group so soon.
        _kill_group(self.pid)
        self._writer.close()
        if self.expiry is not None:
            self.expiry.cancel()
        return code


def _death(code: int | None, reason: str, source: str) -> Fault:
    """Return the fault of a child that has ended by itself, with this exit code."""
    if code is None:
        return Fault(Kind.BUG, "stream closed", reason, source)
    if code == -signal.SIGKILL:
        hint = "if nobody killed it, memory was short: look into the kernel's log"
        return Fault(Kind.EXHAUSTED, "SIGKILL", reason, source, Scope.CALL, hint=hint)
    name = _signal_name(-code) if code < 0 else f"exit {code}"
    return Fault(Kind.BUG, name, reason, source, Scope.CALL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _command(descriptor: int) -> list[str]:
    """Return the command that starts this Python with the same options and path for imports, and nothing else of this process."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing
    return [sys.executable, *options, "-P", "-c", _START, str(descriptor), str(os.getpid()), *sys.path]
