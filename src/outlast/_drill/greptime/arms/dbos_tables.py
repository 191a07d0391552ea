"""The arm *dbos* of the greptime drill: a workflow of three steps makes a table, and the table's name is its deduplication id.

So a table has one workflow that waits or runs. Steps are tried as often as DBOS does by default: three times. Its log is set to
WARNING.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, error

from outlast._drill.greptime.arms.table_server import (
    WAIT_S,
    Failed,
    NodeClient,
    NotDoneError,
    Pending,
    TableServer,
    TableSettings,
    definition_json,
    plain_logger,
    stopping,
)
from outlast._drill.greptime.datanode import STEPS
from outlast._drill.greptime.wire import LineClient

QUEUE: Final = "tables"
POLL_S: Final = 0.1
"""The queue is looked at ten times a second, where once is the default, so that others wait no second for their table."""


class TablesOfDbos:
    """Makes tables by workflows."""

    def __init__(self, node: NodeClient) -> None:
        @DBOS.step(retries_allowed=True)
        async def carry_out(step: str, table: str) -> None:
            await node.step(step, table)

        @DBOS.workflow()
        async def make_table(table: str, definition: str) -> None:
            del definition
            for step in STEPS:
                await carry_out(step, table)

        self._workflow = make_table

    async def ensure(self, table: str, columns: int) -> None:
        """Enqueue a workflow, unless there is one, and wait for it a while."""
        try:
            with SetWorkflowID(f"{table}-{uuid.uuid4()}"), SetEnqueueOptions(deduplication_id=table):
                handle = await DBOS.enqueue_workflow_async(QUEUE, self._workflow, table, definition_json(table, columns))
        except error.DBOSQueueDeduplicatedError as exc:
            msg = f"a workflow for table {table} is there already"
            raise Pending(msg) from exc
        try:
            async with asyncio.timeout(WAIT_S):
                await handle.get_result(polling_interval_sec=POLL_S)
        except TimeoutError as exc:
            msg = f"no answer within {WAIT_S:g} s; workflow {handle.workflow_id} goes on"
            raise Pending(msg) from exc
        except (error.DBOSException, NotDoneError) as exc:
            msg = f"cannot create table {table}: {exc}"
            raise Failed(msg) from exc

    async def clear(self, table: str) -> None:
        """Do nothing: nothing is remembered."""


async def main() -> None:
    """Run the arm until SIGTERM."""
    stop, settings = stopping(), TableSettings.from_environment()
    plain_logger("dbos")
    node = NodeClient(await LineClient.connect(settings.node))
    DBOS(config={"name": "drill", "system_database_url": settings.store, "log_level": "WARNING"})
    tables = TablesOfDbos(node)
    await asyncio.to_thread(DBOS.launch)
    await DBOS.register_queue_async(QUEUE, polling_interval_sec=POLL_S)
    await TableServer(tables, node).serve(settings.address, stop.wait)
    await asyncio.to_thread(DBOS.destroy)


if __name__ == "__main__":
    asyncio.run(main())
