"""The arm *procrastinate* of the greptime drill: a job makes a table, and the table's name is its lock in the queue.

So a table has one job that waits at most. A job that fails is tried again after 2, 4, 8 ... seconds, twelve times. The worker is
in the same process; its own log is set to WARNING. The definition travels as a text: each log record takes all arguments apart.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import procrastinate
from procrastinate.exceptions import AlreadyEnqueued

from outlast._drill.greptime.arms.table_server import (
    WAIT_S,
    NodeClient,
    Pending,
    TableServer,
    TableSettings,
    definition_json,
    make_table,
    plain_logger,
    stopping,
)
from outlast._drill.greptime.wire import LineClient

RETRIES: Final = 12
CONCURRENCY: Final = 128


class TablesOfProcrastinate:
    """Makes tables by jobs."""

    def __init__(self, app: procrastinate.App, node: NodeClient) -> None:
        self._node = node
        self._made: dict[str, asyncio.Event] = {}
        retry = procrastinate.RetryStrategy(max_attempts=RETRIES, exponential_wait=2)
        self._task = app.task(name="make_table", retry=retry)(self._make)

    async def ensure(self, table: str, columns: int) -> None:
        """Defer a job, unless one waits already, and wait for it a while."""
        made = self._made.setdefault(table, asyncio.Event())
        try:
            job = await self._task.configure(queueing_lock=table).defer_async(
                table=table, definition=definition_json(table, columns)
            )
        except AlreadyEnqueued as exc:
            msg = f"a job for table {table} waits already"
            raise Pending(msg) from exc
        try:
            async with asyncio.timeout(WAIT_S):
                await made.wait()
        except TimeoutError as exc:
            msg = f"no answer within {WAIT_S:g} s; job {job} goes on"
            raise Pending(msg) from exc

    async def clear(self, table: str) -> None:
        """Do nothing: nothing is remembered."""

    async def _make(self, table: str, definition: str) -> None:
        del definition
        await make_table(self._node, table)
        made = self._made.pop(table, None)
        if made is not None:
            made.set()


async def main() -> None:
    """Run the arm until SIGTERM."""
    stop, settings = stopping(), TableSettings.from_environment()
    plain_logger("procrastinate")
    logging.getLogger().setLevel(logging.WARNING)
    node = NodeClient(await LineClient.connect(settings.node))
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=settings.store))
    tables = TablesOfProcrastinate(app, node)
    # The worker has connections of its own, as one in another process would: it does not stand in line with those who defer.
    working = app.with_connector(procrastinate.PsycopgConnector(conninfo=settings.store))
    async with app.open_async(), working.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(working.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False))
        await TableServer(tables, node).serve(settings.address, stop.wait)
        worker.cancel()
        await asyncio.wait([worker])


if __name__ == "__main__":
    asyncio.run(main())
