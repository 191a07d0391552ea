"""The program of a child process: it waits for one job after the other, and sends back the outcome of each.

Both sides speak in frames: the length in four bytes, then JSON. The parent sends a greeting, which is answered when all
handlers are imported, then jobs. The child answers each job twice: when it begins, and when it has ended.

    parent  {"handlers": {kind: place}, "main": source or null, "argv": [...],
            "result_bytes_max": n}
    child   {"ready": true}                              or {"failed": text, "traceback": text}, and it ends
    parent  {"id": ..., "kind": ..., "payload": ...}     the fields of the job
    child   {"begun": id}
    child   {"result": text}, its JSON                   or {"error": {...}}, or {"no_json": text, "too_large": flag}

The end of the stream is the end of the child, whether its parent has closed it or is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import logging
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from dataclasses import asdict, fields
from datetime import datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from outlast import Unavailable
from outlast.extend import JsonTooLargeError, NotJsonError, clean, escaped, to_json
from outlast.jobs._importable import MAIN, Home, carried, run_main
from outlast.jobs._model import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

LENGTH: Final = struct.Struct(">I")
TRACEBACK_CHARS_MAX: Final = 8_192
"""Of a traceback's text; the end is kept, which says what was raised and where."""
PR_SET_PDEATHSIG: Final = 1
"""From <linux/prctl.h>: the kernel sends this signal when the parent has ended, however it did."""
TIMES: Final = ("enqueued_at", "deadline_at")
_parents: list[int] = []


def inside() -> bool:
    """Return whether this process is such a child."""
    return bool(_parents)


def frame(message: dict[str, Any]) -> bytes:
    """Return the bytes of a message. Raises `TypeError` and `ValueError` for what is no JSON."""
    body = json.dumps(message).encode("ascii")
    return LENGTH.pack(len(body)) + body


def of_job(job: Job) -> dict[str, Any]:
    """Return the fields of a job as JSON."""
    values = {field.name: getattr(job, field.name) for field in fields(Job)}
    return values | {name: values[name].isoformat() for name in TIMES if values[name] is not None}


def to_job(message: dict[str, Any]) -> Job:
    """Return the job of such fields; unknown ones are left out."""
    values = {field.name: message[field.name] for field in fields(Job) if field.name in message}
    for name in TIMES:
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name])
    return Job(**values)


def main(descriptor: int, parent: int) -> None:
    """Serve jobs from the parent over this socket until it closes it."""
    _parents.append(parent)
    with contextlib.suppress(Exception):
        # It has no stderr.
        faulthandler.enable()
    # What a terminal or a service manager sends to all processes is meant for the parent, which lets this one finish.
    # Handlers that do nothing, and not SIG_IGN, which programs started from here would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _nothing)
    _end_with(parent)
    channel = socket.socket(fileno=descriptor)
    greeting = _receive(channel)
    if greeting is None:
        return
    try:
        handlers = _load(greeting)
    except BaseException as exc:  # noqa: BLE001 - a module that is imported may raise anything
        channel.sendall(frame({"failed": clean(f"{type(exc).__name__}: {exc}"), "traceback": _traceback(exc)}))
        return
    channel.sendall(frame({"ready": True}))
    Server(channel, handlers, greeting["result_bytes_max"]).run()


class Server:
    """Carry out jobs on the main thread, while another listens for the next one and for the end of the stream.

    The two share the inbox, and the flag that a job is under way: the main thread sets it, the other reads it.
    """

    def __init__(self, channel: socket.socket, handlers: dict[str, Callable[[Job], Any]], result_bytes_max: int) -> None:
        self._channel = channel
        self._handlers = handlers
        self._result_bytes_max = result_bytes_max
        self._inbox: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._busy = False
        self._pid = os.getpid()

    def run(self) -> None:
        """Serve until the parent closes the stream."""
        threading.Thread(target=self._listen, name="outlast jobs channel", daemon=True).start()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while (message := self._inbox.get()) is not None:
                job = to_job(message)
                self._busy = True
                self._channel.sendall(frame({"begun": job.id}))
                answer = self._answer(job)
                if os.getpid() != self._pid:
                    # The handler has forked, and this is its child, which came back here: there is one server already.
                    os._exit(0)
                self._busy = False
                self._channel.sendall(answer)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (message := _receive(self._channel)) is not None:
                self._inbox.put(message)
        self._inbox.put(None)
        if self._busy:
            # Nobody waits for this job any more. The programs that it started are killed with it.
            os.killpg(0, signal.SIGKILL)

    def _answer(self, job: Job) -> bytes:
        handler = self._handlers[job.kind]
        try:
            result = handler(job)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is the job's and must not end the child
            return frame({"error": _error(escaped(exc, job.kind), handler, job.kind)})
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
        try:
            return frame({"result": None if result is None else to_json(result, self._result_bytes_max)})
        except NotJsonError as error:
            return frame({"no_json": str(error), "too_large": isinstance(error, JsonTooLargeError)})


def _load(greeting: dict[str, Any]) -> dict[str, Callable[[Job], Any]]:
    """Import all handlers. Logs go to stderr at INFO if the program does not configure them, as in the parent."""
    sys.argv[:] = greeting["argv"]
    places = {kind: Home(*place) for kind, place in greeting["handlers"].items()}
    if any(place.module == MAIN for place in places.values()):
        run_main(greeting["main"])
    handlers = {kind: place.found() for kind, place in places.items()}
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return handlers


def _error(exc: Exception, handler: Callable[..., Any], kind: str) -> dict[str, Any]:
    """Describe what the handler raised, classified here, where the exception itself is."""
    fault = carried(handler).classify(exc, source=kind)
    error: dict[str, Any] = {
        "fault": {**asdict(fault), "kind": fault.kind.value, "scope": fault.scope.value},
        "text": clean(f"{type(exc).__name__}: {exc}"),
        "traceback": _traceback(exc),
    }
    if isinstance(exc, Unavailable):
        error["unavailable"] = [exc.dependency, exc.since_s, exc.retry_after_s]
    return error


def _traceback(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc))[-TRACEBACK_CHARS_MAX:]


def _receive(channel: socket.socket) -> dict[str, Any] | None:
    """Receive the next message; None at the end of the stream."""
    head = _exactly(channel, LENGTH.size)
    body = None if head is None else _exactly(channel, LENGTH.unpack(head)[0])
    return None if body is None else json.loads(body)


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        chunk = channel.recv(count - len(data))
        if not chunk:
            return None
        data += chunk
    return data


def _end_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends, also while a handler holds the interpreter (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before the kernel was told.
        os._exit(0)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Let the signal pass."""
