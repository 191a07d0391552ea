"""The answers of the guard to those who look after it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from outlast._core.shown import Figure, Unit
from outlast._programs.guard.supervisor import GuardPhase
from outlast._serve.health import verdict
from outlast._serve.metrics import Collector, Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from outlast._programs.guard.logfile import LogFile
    from outlast._programs.guard.options import Options
    from outlast._programs.guard.run import Guard
    from outlast._serve.endpoint import Page

BEAT_S_MAX: Final = 15.0
"""The loop turns at least once a second; one that has not turned for so long is stuck."""


class Status:
    """Reads the guard's state from other threads; changes nothing."""

    def __init__(self, guard: Guard, options: Options, log: LogFile | None) -> None:
        self._guard = guard
        self._options = options
        self._log = log

    def pages(self) -> Mapping[str, Page]:
        """Return what the endpoint answers, each path from threads of the endpoint."""
        return {
            "/readyz": lambda: verdict(*self.ready()),
            "/livez": lambda: verdict(*self.live()),
            "/metrics": Collector(self.figures),
        }

    def ready(self) -> tuple[bool, str]:
        """Return whether the program runs, has run long enough, and nobody has asked it to end; with the reason."""
        supervisor = self._guard.supervisor
        lives, reason = self.live()
        if not lives:
            return False, reason
        if supervisor.phase is not GuardPhase.RUNNING:
            return False, f"{supervisor.name} is {supervisor.phase.value}; last exit code {supervisor.exit_code}"
        ran_s = time.monotonic() - (supervisor.started_at or 0.0)
        enough = ran_s >= self._options.ready_after_s
        of = "" if enough else f" of {self._options.ready_after_s:g} s"
        return enough, f"{supervisor.name} has run for {ran_s:.1f} s{of}"

    def live(self) -> tuple[bool, str]:
        """Return whether the guard's own loop turns, and how; the program's troubles are no reason to end the guard."""
        silent_s = time.monotonic() - self._guard.beat_at
        return silent_s < BEAT_S_MAX, f"the guard's loop turned {silent_s:.1f} s ago"

    def figures(self) -> Iterator[Group]:
        """Yield all figures, as `outlast_guard_…`."""
        yield Group("outlast_guard", [*self._of_program(), *self._of_output(), *self._of_spinning(), *self._of_log()])

    def _of_program(self) -> Iterator[Figure]:
        supervisor = self._guard.supervisor
        running = supervisor.phase in {GuardPhase.RUNNING, GuardPhase.STOPPING}
        up_s = time.monotonic() - supervisor.started_at if running and supervisor.started_at is not None else 0.0
        yield Figure.gauge("up", "Whether the program runs.", running)
        yield Figure.gauge("ready", "Whether the program is ready.", self.ready()[0])
        yield Figure.gauge("uptime", "How long this run of the program has lasted.", up_s, unit=Unit.SECONDS)
        yield Figure.counter("starts", "Starts of the program.", supervisor.starts)
        yield Figure.counter("failures", "Ends of the program other than with exit code 0.", supervisor.failures)
        yield Figure.gauge("last_exit_code", "Exit code of the last run that ended, 128 + n for signal n.", supervisor.exit_code)

    def _of_output(self) -> Iterator[Figure]:
        streams = {stream.name: stream for stream in self._guard.places.streams}
        writers = {writer.name: writer for writer in self._guard.places.writers}
        by = ("stream",)
        read = {at: stream.bytes_read for at, stream in streams.items()}
        read_lines = {at: stream.lines_read for at, stream in streams.items()}
        written_lines = {at: stream.lines_written for at, stream in streams.items()}
        yield Figure.counter("read_lines", "Lines the program wrote.", read_lines, labels=by)
        yield Figure.counter("read", "Bytes the program wrote.", read, labels=by, unit=Unit.BYTES)
        yield Figure.counter("shown_lines", "Lines left after folding.", written_lines, labels=by)
        by = ("place",)
        waiting = {at: writer.waiting_bytes for at, writer in writers.items()}
        lines = {at: writer.dropped[0] for at, writer in writers.items()}
        dropped = {at: writer.dropped[1] for at, writer in writers.items()}
        yield Figure.gauge("waiting", "Bytes that wait for a slow place.", waiting, labels=by, unit=Unit.BYTES)
        yield Figure.counter("dropped_lines", "Lines a place had no room for.", lines, labels=by)
        yield Figure.counter("dropped", "Bytes a place had no room for.", dropped, labels=by, unit=Unit.BYTES)

    def _of_spinning(self) -> Iterator[Figure]:
        spin = self._guard.spin
        if spin is not None:
            yield Figure.gauge("spinning", "Whether a process of the program spins.", spin.spins)
            yield Figure.counter("spins", "Spells of spinning.", spin.spells)
            text = "Share of a core the busiest process used lately."
            yield Figure.gauge("busiest_core", text, spin.share, unit=Unit.RATIO)

    def _of_log(self) -> Iterator[Figure]:
        log = self._log
        if log is not None:
            yield Figure.gauge("log", "Size of the log file and its rotated ones.", log.size_bytes, unit=Unit.BYTES)
            yield Figure.gauge("log_cap", "What the disk allows the log.", log.cap_bytes, unit=Unit.BYTES)
            yield Figure.gauge("log_paused", "Whether the disk is too full for the log.", log.paused)
            yield Figure.counter("log_rotations", "Rotations of the log file.", log.rotations)
            yield Figure.counter("log_removed", "Rotated files that were removed.", log.removed)
