"""Statements that pick rows and change them: a row that cannot be changed is left out, and stops none of the others.

That takes a trigger or a constraint of the user's: nothing that our own columns hold makes these statements fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind
from outlast.extend import Reaction, fault_of_call

if TYPE_CHECKING:
    from outlast import Incident
    from outlast.jobs._statements import Picking, Statements
    from outlast.postgres import Connection, Postgres

    Rows = list[tuple[Any, ...]]

CAUSE_MAX: Final = 20
"""After this many refused one by one, in a row, they are taken to have a cause in common: no further one is left out."""
LEFT_OUT_MAX: Final = 1_000
"""Rows that are left out until the process ends."""


class Picker:
    """Run these statements for one worker process, on its event loop's thread."""

    def __init__(self, db: Postgres, said: Statements, incident: Incident) -> None:
        self._db = db
        self._said = said
        self._incident = incident
        self._in_a_row = 0
        self.left_out: dict[int, None] = {}

    async def on(self, conn: Connection, picking: Picking, values: dict[str, Any]) -> Rows:
        """Run it on this connection, for `count` rows, all or none, and return what was picked."""
        cursor = await conn.execute(self._said(picking.whole), {**values, "without": list(self.left_out)})
        return await cursor.fetchall()

    async def rows(self, picking: Picking, values: dict[str, Any]) -> Rows:
        """Run it for up to `count` rows, row by row if it must be. Raises the faults that concern everyone."""
        try:
            async with self._db.connection() as conn:
                return await self.on(conn, picking, values)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            self.check(exc)
        return await self.carefully(picking, values)

    def check(self, exc: Exception) -> Fault:
        """Return the fault of an error that may concern one row; raise any other error."""
        fault = fault_of_call(self._db, exc)
        if fault.reaction is Reaction.WAIT:
            raise exc
        return fault

    async def carefully(self, picking: Picking, values: dict[str, Any]) -> Rows:
        """Run it in steps, after it was refused. They are halved until the row is found that cannot be changed, then doubled."""
        rows: Rows = []
        count = values["count"]
        step = max(1, count // 2)
        while len(rows) < count:
            step = min(step, count - len(rows))
            found: int | None = None
            try:
                async with self._db.connection() as conn:
                    if step == 1:
                        found = await self._first(conn, picking, values)
                    got = await self.on(conn, picking, {**values, "count": step})
            except Exception as exc:
                try:
                    fault = self.check(exc)
                except Exception:
                    if rows:
                        # They are ours already.
                        return rows
                    raise
                if step == 1 and not self._leave_out(found, picking, fault):
                    raise
                step = max(1, step // 2)
                continue
            self._in_a_row = 0
            rows += got
            if len(got) < step:
                break
            step *= 2
        return rows

    async def _first(self, conn: Connection, picking: Picking, values: dict[str, Any]) -> int | None:
        """Return the id of the row that is picked next. It is locked, so that it stays the next."""
        cursor = await conn.execute(self._said(picking.pick), {**values, "count": 1, "without": list(self.left_out)})
        row = await cursor.fetchone()
        return None if row is None else row[0]

    def _leave_out(self, job_id: int | None, picking: Picking, fault: Fault) -> bool:
        if job_id is None or self._in_a_row >= CAUSE_MAX or len(self.left_out) >= LEFT_OUT_MAX:
            return False
        self._in_a_row += 1
        self.left_out[job_id] = None
        reason = f"job {job_id} cannot be {picking.verb} and is left out until the next start: {fault.reason}"
        hint = "correct the trigger or constraint of the table, or the row"
        self._incident.fault(Fault(Kind.BUG, fault.code, reason, "row", hint=hint))
        return True
