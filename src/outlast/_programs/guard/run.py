"""The guard itself: one loop that reads, waits for signals and time, and carries out what the supervisor decides."""

from __future__ import annotations

import os
import random
import selectors
import signal
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from outlast._programs.guard import processes
from outlast._programs.guard.logfile import LogFile
from outlast._programs.guard.places import Places
from outlast._programs.guard.spin import SpinWatch
from outlast._programs.guard.status import Status
from outlast._programs.guard.supervisor import Action, Forward, GuardPhase, Say, Start, Supervisor, Sweep
from outlast._runtime.process.signal_pipe import SignalPipe
from outlast._serve.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast._programs.guard.options import Options

_READ_BYTES: Final = 1 << 20
_TICK_S: Final = 1.0
_CLEARING_TICK_S: Final = 0.05
_HELD_TICK_S: Final = 0.002
_PAUSE_S: Final = 0.001
_SPIN_S: Final = 5.0


def run(options: Options) -> int:
    """Run the program until it has ended for good, and return its exit code as a shell would.

    Owns the process it is called in: its signal handlers, all its children, and its standard descriptors. Raises
    `ConfigurationError`, before anything is started, when the log file or the endpoint cannot work.
    """
    processes.ensure_standard_descriptors()
    log = LogFile(options.log, options.log_limits) if options.log is not None else None
    guard = Guard(options, log)
    endpoint = None
    if options.listen is not None:
        endpoint = Endpoint(options.listen, guard.status.pages())
        endpoint.start()
        guard.say(f"listening on {endpoint.address}")
    try:
        return guard.run()
    finally:
        if endpoint is not None:
            endpoint.close()


class Guard:
    """One program under guard. Everything but the places' threads happens in `run`'s thread."""

    def __init__(self, options: Options, log: LogFile | None) -> None:
        """Prepare; nothing is started yet."""
        self.supervisor = Supervisor(PurePath(options.command[0]).name, options.rules, random.Random())
        self.places = Places(options, log)
        self.spin = None if options.spin is None else SpinWatch(options.spin)
        self.status = Status(self, options, log)
        self.beat_at = time.monotonic()
        self._options = options
        self._program: processes.Program | None = None
        self._selector = selectors.DefaultSelector()
        self._signals = SignalPipe()
        self._sampled_at = time.monotonic()
        self._held: set[int] = set()
        """Streams that are not read for the moment, because a place has to catch up."""

    def say(self, text: str) -> None:
        """Write one line of the guard's own."""
        self.places.say(text)

    def run(self) -> int:
        """Run the program to its end, and return the exit code; see `run`."""
        self._signals.install(processes.handlers())
        self._selector.register(self._signals.fd, selectors.EVENT_READ, None)
        processes.adopt_orphans()
        try:
            self._do([Start()], time.monotonic())
            while self.supervisor.phase is not GuardPhase.ENDED:
                self._turn()
        finally:
            self.places.close()
            self._signals.close()
            self._selector.close()
        return self.supervisor.exit_code

    def _turn(self) -> None:
        """Wait for output, a signal, a child's end or the time, and deal with it."""
        wait_s = self._wait_s(time.monotonic())
        events = self._selector.select(wait_s)
        now = self.beat_at = time.monotonic()
        for key, _ in events:
            if key.data is not None:
                self._read(key.data, now)
        for number in self._signals.read():
            if number in processes.FORWARDED:
                self._do(self.supervisor.asked(number, now), now)
        self._look_after_children(now)
        self._do(self.supervisor.due(now), now)
        self._close_what_nobody_reads()
        self._hold(now)
        self.places.due(now)
        self._sample(now)

    def _wait_s(self, now: float) -> float:
        if self.supervisor.phase is GuardPhase.CLEARING:
            return _CLEARING_TICK_S
        if self._held:
            return _HELD_TICK_S
        times = [self.supervisor.next_due_at(), self.places.next_due_at()]
        # A little late rather than a little early, and never without a pause: nothing may make this loop spin.
        return max(_PAUSE_S, min([_TICK_S, *(at - now for at in times if at is not None)]))

    def _do(self, actions: Sequence[Action], now: float) -> None:
        """Carry out what was decided, and what follows from that."""
        if self.supervisor.phase is GuardPhase.WAITING:
            # Another run will follow: its first line, and ours about this end, are lines of their own.
            for stream in self.places.streams:
                stream.cut(now)
        waiting = list(actions)
        while waiting:
            match waiting.pop(0):
                case Start():
                    waiting += self._start(now)
                case Say(text):
                    self.say(text)
                case Forward(number, group):
                    if self._program is not None:
                        self._program.send(number, group=group)
                case Sweep(number):
                    if self._program is not None:
                        processes.sweep(self._program.pid, number)

    def _start(self, now: float) -> list[Action]:
        try:
            self._program = processes.Program(self._options.command)
        except processes.NotStartedError as error:
            return self.supervisor.not_started(error.code, str(error), now)
        for index, fd in enumerate(self._program.outputs):
            self._selector.register(fd, selectors.EVENT_READ, index)
        return self.supervisor.started(now)

    def _read(self, index: int, now: float) -> bool:
        """Read once; return False when there is nothing more for now, or for good."""
        program = self._program
        if program is None or not program.is_open(index):
            return False
        try:
            data = os.read(program.outputs[index], _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close(index)
            return False
        self.places.streams[index].feed(data, now)
        return True

    def _close(self, index: int) -> None:
        program = self._program
        if program is not None and program.is_open(index):
            if index not in self._held:
                self._selector.unregister(program.outputs[index])
            self._held.discard(index)
            program.close(index)

    def _hold(self, now: float) -> None:
        """Stop reading what a place cannot take in at once, and begin again."""
        for index, stream in enumerate(self.places.streams):
            program = self._program
            if program is None or not program.is_open(index):
                continue
            holds = stream.holds(now)
            if holds and index not in self._held:
                self._held.add(index)
                self._selector.unregister(program.outputs[index])
            elif not holds and index in self._held:
                self._held.discard(index)
                self._selector.register(program.outputs[index], selectors.EVENT_READ, index)

    def _close_what_nobody_reads(self) -> None:
        """Pass a closed pipe on to the program, as if we were not in between; a log file goes on reading."""
        for index, stream in enumerate(self.places.streams):
            if stream.log is None and stream.passed_to is not None and stream.passed_to.is_gone:
                self._close(index)

    def _look_after_children(self, now: float) -> None:
        program = self._program
        found = processes.reap()
        if program is None:
            return
        status = found.get(program.pid)
        if status is not None:
            program.note_end(status)
            left = len(processes.descendants(os.getpid()))
            if not left:
                self._finish_reading(now)
            self._do(self.supervisor.ended(status, now, left=left), now)
        elif self.supervisor.phase is GuardPhase.CLEARING:
            below = processes.descendants(os.getpid())
            if not below:
                self._finish_reading(now)
                self._do(self.supervisor.cleared(now), now)
            elif self.supervisor.is_killing:
                processes.sweep(program.pid, signal.SIGKILL)
        if self.supervisor.is_overdue(now):
            below = processes.descendants(os.getpid())
            self._finish_reading(now)
            self._do(self.supervisor.given_up(below, now), now)

    def _finish_reading(self, now: float) -> None:
        """Read the pipes to their end: nobody writes any more."""
        if self._program is None:
            return
        for index, stream in enumerate(self.places.streams):
            while self._read(index, now):
                pass
            self._close(index)
            stream.flush(now)

    def _sample(self, now: float) -> None:
        if self.spin is None or self._program is None or now - self._sampled_at < min(_SPIN_S, self.spin.limits.enter_s / 3):
            return
        self._sampled_at = now
        used = processes.cpu_s_of(processes.descendants(os.getpid()))
        for change in self.spin.sample(used, now):
            what = f"process {change.pid} of {self.supervisor.name}"
            if change.began:
                self.say(f"{what} spins: {change.share:.0%} of a core for {change.lasted_s:.0f} s")
            else:
                self.say(f"{what} has ceased to spin after {change.lasted_s:.0f} s")
