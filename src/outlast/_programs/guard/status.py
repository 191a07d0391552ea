"""What the guard answers to those who look after it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from outlast._programs.guard.supervisor import Phase
from outlast._serve.health import verdict
from outlast._serve.metrics import Figure, exposition, one, page

if TYPE_CHECKING:
    from collections.abc import Mapping

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
            "/metrics": lambda: page(self.metrics()),
        }

    def ready(self) -> tuple[bool, str]:
        """Return whether the program runs, has run long enough, and nobody has asked it to end; with the reason."""
        supervisor = self._guard.supervisor
        lives, reason = self.live()
        if not lives:
            return False, reason
        if supervisor.phase is not Phase.RUNNING:
            return False, f"{supervisor.name} is {supervisor.phase.value}; last exit code {supervisor.exit_code}"
        ran_s = time.monotonic() - (supervisor.started_at or 0.0)
        enough = ran_s >= self._options.ready_after_s
        of = "" if enough else f" of {self._options.ready_after_s:g} s"
        return enough, f"{supervisor.name} has run for {ran_s:.1f} s{of}"

    def live(self) -> tuple[bool, str]:
        """Return whether the guard's own loop turns, and how; the program's troubles are no reason to end the guard."""
        silent_s = time.monotonic() - self._guard.beat_at
        return silent_s < BEAT_S_MAX, f"the guard's loop turned {silent_s:.1f} s ago"

    def metrics(self) -> str:
        """All figures."""
        guard = self._guard
        supervisor, places, spin = guard.supervisor, guard.places, guard.spin
        running = supervisor.phase in {Phase.RUNNING, Phase.STOPPING}
        up_s = time.monotonic() - supervisor.started_at if running and supervisor.started_at is not None else 0.0
        streams = [({"stream": stream.name}, stream) for stream in places.streams]
        sinks = [({"place": sink.name}, sink) for sink in places.sinks]
        figures = [
            one("up", "gauge", "Whether the program runs.", running),
            one("ready", "gauge", "Whether the program is ready.", self.ready()[0]),
            one("uptime_seconds", "gauge", "How long this run of the program has lasted.", up_s),
            one("starts_total", "counter", "Starts of the program.", supervisor.starts),
            one("failures_total", "counter", "Ends of the program other than with exit code 0.", supervisor.failures),
            one("last_exit_code", "gauge", "Exit code of the last run that ended, 128 + n for signal n.", supervisor.exit_code),
            Figure("read_lines_total", "counter", "Lines the program wrote.", [(at, s.lines_read) for at, s in streams]),
            Figure("read_bytes_total", "counter", "Bytes the program wrote.", [(at, s.bytes_read) for at, s in streams]),
            Figure("shown_lines_total", "counter", "Lines left after folding.", [(at, s.lines_written) for at, s in streams]),
            Figure("waiting_bytes", "gauge", "Bytes that wait for a slow place.", [(at, s.waiting_bytes) for at, s in sinks]),
            Figure("dropped_lines_total", "counter", "Lines a place had no room for.", [(at, s.dropped[0]) for at, s in sinks]),
            Figure("dropped_bytes_total", "counter", "Bytes a place had no room for.", [(at, s.dropped[1]) for at, s in sinks]),
        ]
        if spin is not None:
            figures += [
                one("spinning", "gauge", "Whether a process of the program spins.", spin.spins),
                one("spins_total", "counter", "Spells of spinning.", spin.spells),
                one("busiest_core_ratio", "gauge", "Share of a core the busiest process used lately.", spin.share),
            ]
        if self._log is not None:
            log = self._log
            figures += [
                one("log_bytes", "gauge", "Size of the log file and its rotated ones.", log.size_bytes),
                one("log_cap_bytes", "gauge", "What the disk allows the log.", log.cap_bytes),
                one("log_paused", "gauge", "Whether the disk is too full for the log.", log.paused),
                one("log_rotations_total", "counter", "Rotations of the log file.", log.rotations),
                one("log_removed_total", "counter", "Rotated files that were removed.", log.removed),
            ]
        return exposition(figures)
