"""Tables made by `outlast.procedures`: what the arms *outlast* and *outlast-postgres* of the greptime drill have in common.

A step is tried once for each submission that gets through: whoever writes to the table asks again, and the key's memory says when
that is worth an attempt. All other settings are the defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import outlast
from outlast._drill.greptime.arms.table_server import (
    STEP_S_MAX,
    WAIT_S,
    Failed,
    NodeClient,
    NotDoneError,
    Pending,
    Refused,
    TableServer,
    TableSettings,
    definition_json,
)
from outlast._drill.greptime.datanode import STEPS
from outlast._drill.greptime.wire import LineClient
from outlast.procedures import Procedure, ProcedureFailedError, ProcedureRefused, Procedures, Run, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KIND: Final = "create_table"


def fault_of_node(exc: BaseException, phase: str) -> outlast.Fault | None:
    """Return the fault that a refusal of the data node is; it may pass, and concerns this table alone."""
    del phase
    if isinstance(exc, NotDoneError):
        return outlast.Fault(outlast.Kind.TRANSIENT, "refused", str(exc), scope=outlast.Scope.CALL)
    return None


class TablesOfOutlast:
    """Makes tables by procedures."""

    def __init__(self, db: outlast.Dependency, state: str) -> None:
        """Keep the records in `db`, and in the folder `state` what is done while that is away."""
        self.node: NodeClient | None = None
        create = Procedure(KIND, attempts_max=1, timeout_s=STEP_S_MAX)
        for name in STEPS:
            create.step(name=name)(self._step(name))
        classifiers = outlast.Classifiers().with_rule(fault_of_node)
        self.procedures = Procedures(db, [create], journal_path=f"{state}/procedures.journal", classifiers=classifiers)

    def _step(self, name: str) -> Callable[[Run], Awaitable[None]]:
        async def carry_out(run: Run) -> None:
            assert self.node is not None  # noqa: S101  it is connected before anything is submitted
            await self.node.step(name, run.key)

        return carry_out

    async def ensure(self, table: str, columns: int) -> None:
        """Submit a procedure, or join it, and wait for it a while. A key that is failing is refused at once."""
        try:
            handle = await self.procedures.submit(KIND, table, {"definition": definition_json(table, columns)})
            await handle.wait(WAIT_S)
        except ProcedureRefused as exc:
            msg = f"{exc.fault.kind.value} {exc.fault.code}"
            raise Refused(msg) from exc
        except ProcedureFailedError as exc:
            msg = f"{exc.fault.kind.value} {exc.fault.code}"
            raise Failed(msg) from exc
        except WaitTimeoutError as exc:
            raise Pending(str(exc)) from exc

    async def clear(self, table: str) -> None:
        """Forget that the table failed."""
        await self.procedures.clear(KIND, table)


def build(db: outlast.Dependency, settings: TableSettings) -> outlast.Service:
    """Return the service: the procedures, and the server of the writers."""
    tables = TablesOfOutlast(db, settings.state)
    service = outlast.Service("drill")
    tables.procedures.attach(service)

    @service.task()
    async def serve(stop: outlast.Stop) -> None:
        tables.node = NodeClient(await LineClient.connect(settings.node))
        await TableServer(tables, tables.node).serve(settings.address, stop.wait)

    return service
