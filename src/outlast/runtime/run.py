"""Run a service as the process: event loop, signals, logging, watchdog, exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING

from outlast.runtime.stop import Stop
from outlast.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from outlast.runtime.service import Service

logger = logging.getLogger("outlast")


def run(service: Service, *, watchdog: Watchdog | None = None) -> int:
    """Run `service` until SIGTERM or SIGINT and give the exit code; `sys.exit(outlast.run(service))`.

    The first signal stops it within its `deadline_s`; a second one cancels at once what still runs. Logs go to
    stderr at INFO if the program has not configured logging.
    """
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return asyncio.run(_main(service, watchdog or Watchdog()))


async def _main(service: Service, watchdog: Watchdog) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(service.run(stop), name=f"{service.name}")

    def on_signal(number: signal.Signals) -> None:
        if stop.requested:
            logger.warning("%s: %s again, hurrying", service.name, number.name)
            service.hurry()
        else:
            stop.fire(number.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    watchdog.start()
    try:
        return await running
    finally:
        watchdog.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
