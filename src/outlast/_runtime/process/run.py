"""Run a service as the process: event loop, signals, logging, watchdog, health endpoint, service manager, exit code."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast._core.phases import EXIT_FORCED, worst
from outlast._runtime.process import offspring
from outlast._runtime.process.last_resort import leave
from outlast._runtime.process.log import ProcessLog, ending
from outlast._runtime.process.signals import Signals
from outlast._runtime.process.status import Status
from outlast._runtime.process.systemd import Notifier
from outlast._runtime.process.watchdog import Watchdog
from outlast._runtime.service.stop import Stop

if TYPE_CHECKING:
    import signal

    from outlast._core.stop_report import StopReport
    from outlast._runtime.service.service import Service
    from outlast._serve.endpoint import Endpoint
    from outlast.logs.stdlib import Folding

OFFSPRING_SHARE: Final = 0.02
"""The share of the deadline in which child processes that are still there may end by themselves after SIGTERM."""
START_S: Final = 5.0
"""The seconds by which a start that takes long extends the limit of the service manager, again and again."""
TEARDOWN_S: Final = 0.05
"""The seconds in which tasks that were left behind may end after all, once everything else has."""
logger = logging.getLogger("outlast")


def run(
    service: Service,
    *,
    listen: str | None = None,
    report: str | os.PathLike[str] | None = None,
    fold_logs: bool = False,
    log_format: str | None = None,
    watchdog: Watchdog | None = None,
) -> int:
    """Run `service` until SIGTERM or SIGINT and return the exit code; `sys.exit(outlast.run(service))`.

    The first signal stops it within its `deadline_s`; a second one cancels at once what still runs; SIGQUIT ends the
    process at once with exit code 131. Child processes that are left are ended. What hangs for good ends the process
    at the deadline with exit code 75, without the clean-up of the interpreter, which would hang with it.

    `listen` is where to answer `/livez`, `/readyz`, `/statusz` and `/metrics` ("127.0.0.1:8080"; ":8080" is loopback too).
    `report` is a file that takes the report of the stop as JSON. `fold_logs` folds what the loggers of the process repeat, as
    `outlast.logs.stdlib.fold` does, with the incidents of the service's dependencies. systemd is told what it wants to
    know. If the program has not configured logging, logs go to stderr at INFO, as text or, with `log_format="json"`, one
    object a line, through a queue: where nobody reads them they are dropped and counted, and the work goes on.
    Raises `ConfigurationError`.
    """
    end = ending()
    log = ProcessLog(log_format)
    process = Process(service, listen, None if report is None else Path(report), watchdog or Watchdog(), fold_logs=fold_logs)
    try:
        end.exit_code = asyncio.run(process.main())
    finally:
        process.close(log)
    return end.exit_code


class Process:
    """One run of a service as this process."""

    def __init__(
        self, service: Service, listen: str | None, report: Path | None, watchdog: Watchdog, *, fold_logs: bool = False
    ) -> None:
        """Make everything; nothing is installed, and nothing listens."""
        self.service = service
        self.stop = Stop()
        self.signals = Signals(service.name, service.deadline_s, self._on_signal)
        self.watchdog = watchdog
        self.notifier = Notifier.from_environment(os.environ)
        self.status = Status(service, self.stop, self.signals, watchdog)
        self._report_path = report
        self._endpoint: Endpoint | None = None
        if listen is not None:
            # http.server takes longer to import than everything else here.
            from outlast._runtime.process.figures import OwnFigures  # noqa: PLC0415
            from outlast._serve.endpoint import Endpoint  # noqa: PLC0415
            from outlast._serve.health import health_pages  # noqa: PLC0415
            from outlast._serve.metrics import Collector  # noqa: PLC0415

            metrics = Collector(OwnFigures(service, self.status, watchdog), service.all_shown)
            self._endpoint = Endpoint(listen, health_pages(self.status) | {"/metrics": metrics})
        self._folding: Folding | None = None
        if fold_logs:
            from outlast.logs.stdlib import fold  # noqa: PLC0415 - only who folds pays for it

            self._folding = fold(incidents=[dependency.incident for dependency in service.all_dependencies()])

    async def main(self) -> int:
        """Run it to its end."""
        self.signals.start()
        self.stop.on_fire(self._stopping)
        if self._endpoint is not None:
            self._endpoint.start()
            logger.info("%s: health on port %d: /livez /readyz /statusz /metrics", self.service.name, self._endpoint.port)
        self.watchdog.start()
        manager = asyncio.create_task(self._tell_manager(), name="outlast tells systemd")
        try:
            code = await self.service.run(self.stop, clock=self.signals.clock)
            return await self._end(code)
        finally:
            manager.cancel()
            self.watchdog.stop()

    def close(self, log: ProcessLog) -> None:
        """Let go of everything: the health endpoint last."""
        if self._folding is not None:
            self._folding.close()
        # Still under our signal handlers: a second SIGTERM must not end the process with another exit code.
        log.flush(self.signals.last_resort.left_s())
        self.notifier.close()
        self.signals.close()
        if self._endpoint is not None:
            self._endpoint.close()

    def _on_signal(self, number: signal.Signals) -> None:
        if self.stop.requested:
            logger.warning("%s: %s again, hurrying", self.service.name, number.name)
            self.service.hurry()
        else:
            self.stop.fire(number.name)

    def _stopping(self, stop: Stop) -> None:
        self.signals.last_resort.begin()
        self.notifier.stopping(f"stopping: {stop.reason}")
        self.notifier.extend_timeout(self.service.deadline_s * 1.1 + 1.0)
        logger.info("%s stops within %g s: %s", self.service.name, self.service.deadline_s, stop.reason)

    async def _tell_manager(self) -> None:
        """Send READY when the service is, and a sign of life as long as the event loop turns, also while it stops."""
        interval_s = self.notifier.watchdog_interval_s
        ready = asyncio.ensure_future(self.service.until_ready())
        try:
            while not ready.done():
                self.notifier.extend_timeout(START_S)
                self.notifier.watchdog()
                await asyncio.wait({ready}, timeout=min(START_S / 2, interval_s or START_S))
        finally:
            ready.cancel()
        if not self.stop.requested:
            self.notifier.ready(f"{self.service.name} is at work")
        while interval_s is not None:
            self.notifier.watchdog()
            await asyncio.sleep(interval_s)

    async def _end(self, code: int) -> int:
        """End child processes, write the report, and make sure that nothing left behind keeps the process."""
        report = self.service.report
        if report is None:
            return code
        try:
            share_s = OFFSPRING_SHARE * self.service.deadline_s
            killed = await offspring.end(offspring.children(), share_s, kill_s=share_s)
        except OSError as error:
            logger.warning("%s: child processes may be left behind: cannot look for them: %s", self.service.name, error)
            killed = ()
        if killed:
            names = tuple(f"{child.name} (pid {child.pid})" for child in killed)
            logger.error("%s: killed child processes that did not end: %s", self.service.name, ", ".join(names))
            report = replace(report, killed=names, exit_code=worst((report.exit_code, EXIT_FORCED)))
        self._write(report)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            self.stop.cancel(task)
        if left:
            _, still = await asyncio.wait(left, timeout=TEARDOWN_S)
            if still:
                self._leave(report.exit_code, [task.get_name() for task in still])
        return report.exit_code

    def _leave(self, code: int, names: list[str]) -> None:
        """End the process here: the interpreter's own clean-up would wait for what hangs."""
        if self._folding is not None:
            self._folding.close()
        if self._endpoint is not None:
            self._endpoint.close()
        leave(code, f"{self.service.name} leaves behind {', '.join(sorted(names)[:10])}")

    def _write(self, report: StopReport) -> None:
        if self._report_path is None:
            return
        try:
            write_report(self._report_path, report)
        except OSError as error:
            logger.warning("%s: the report could not be written to %s: %s", self.service.name, self._report_path, error)


def write_report(path: Path, report: StopReport) -> None:
    """Write the report as JSON, whole or not at all. Raises `OSError`."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(report.as_dict(), file, indent=2)
            file.write("\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
