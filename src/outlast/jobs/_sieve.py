"""Record outcomes in the database, and what becomes of one that it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from outlast.extend import Once, Reaction, Sieve, fault_of_call
from outlast.jobs import _statements as statements
from outlast.jobs._journal import Entry
from outlast.jobs._refusals import dead_instead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Fault
    from outlast.jobs._refusals import Refusals
    from outlast.jobs._statements import Statements
    from outlast.postgres import Postgres

LOCK_S: Final = 0.1
"""The wait for a row that another session holds, during the search for the one that holds up the others."""
UNRECORDABLE_MAX: Final = 1_000


class OutcomeSieve(Sieve[Entry]):
    """Record outcomes. The job of one that the database refuses is recorded dead, and the outcome is kept beside the journal."""

    def __init__(
        self, db: Postgres, said: Statements, keep: Callable[[Entry, Fault], Awaitable[str]], refusals: Refusals
    ) -> None:
        """`keep` has the thread of the journal keep what is refused among `refusals`."""
        super().__init__(db, self._write_all, self._dead_instead, part=self._write_now)
        self._db = db
        self._said = said
        self._keep = keep
        self.refusals = refusals
        self.recorded = self.late = 0
        self._unrecordable = Once(UNRECORDABLE_MAX)
        """Jobs that could not even be recorded dead. They are logged once."""

    async def _dead_instead(self, entry: Entry, fault: Fault) -> bool:
        """Record the job dead and keep the outcome; return False if it is not the outcome that is refused."""
        worker, outcome = entry
        dead = True
        try:
            await self._write_now([(worker, dead_instead(outcome, fault))])
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            if fault_of_call(self._db, exc).reaction not in {Reaction.ANSWER, Reaction.RESTART}:
                return False
            dead = False
        if self._unrecordable.said(outcome.id) is not None:
            return True
        if not dead:
            self._unrecordable.news(subject=outcome.id)
        where = await self._keep(entry, fault)
        self.refusals.tell(outcome, fault, where, dead=dead)
        return True

    async def _write_now(self, entries: list[Entry]) -> None:
        await self._write_all(entries, lock_s=LOCK_S)

    async def _write_all(self, entries: list[Entry], *, lock_s: float | None = None) -> None:
        """Record all or none, in one statement."""
        columns: dict[str, list[Any]] = {
            "id": [outcome.id for _, outcome in entries],
            "attempt": [outcome.attempt for _, outcome in entries],
            "worker": [worker for worker, _ in entries],
            "state": [outcome.state for _, outcome in entries],
            "result": [outcome.result_json for _, outcome in entries],
            "fault": [None if outcome.fault is None else json.dumps(outcome.fault) for _, outcome in entries],
            "delay_s": [float(outcome.delay_s) for _, outcome in entries],
            "give_back": [outcome.give_back for _, outcome in entries],
        }
        async with self._db.connection() as conn:
            if lock_s is not None:
                await conn.execute(statements.LOCK_TIMEOUT, {"value": f"{round(lock_s * 1000)}ms"})
            cursor = await conn.execute(self._said(statements.RECORD), columns)
            rows = await cursor.fetchall()
        self.recorded += len(rows)
        self.late += len(entries) - len(rows)
