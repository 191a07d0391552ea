"""Record outcomes, and find out one by one which of them the database refuses: one of them never stops the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from outlast.extend import Once, Reaction
from outlast.jobs import _statements as statements
from outlast.jobs._refusals import CAUSE_MAX, Refusals, dead_instead, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Fault
    from outlast.jobs._journal import Entry
    from outlast.jobs._statements import Statements
    from outlast.postgres import Postgres

LOCK_S: Final = 0.1
"""The wait for a row that another session holds, during the search for the one that holds up the others."""
UNRECORDABLE_MAX: Final = 1_000


class Sieve:
    """Record a batch. What the database refuses is taken to concern one outcome until the opposite is shown.

    A batch that is refused is halved until the outcome is found that is: its job is recorded dead, with the fault, and
    the outcome kept beside the journal. What cannot be recorded *now*, because another session holds the row or there is no
    room, is returned, to be tried again later. What everyone would meet is raised: the server does not answer, the table is not
    there.
    """

    def __init__(
        self, db: Postgres, said: Statements, keep: Callable[[Entry, Fault], Awaitable[str]], refusals: Refusals
    ) -> None:
        """`keep` has the thread of the journal keep what is refused among `refusals`."""
        self._db = db
        self._said = said
        self._keep = keep
        self.refusals = refusals
        self.recorded = self.late = 0
        self._unrecordable = Once(UNRECORDABLE_MAX)
        """Jobs that could not even be recorded dead. They are logged once."""

    async def record(self, entries: list[Entry]) -> list[Entry]:
        """Record them; return those to be tried again later. Raises the faults that concern everyone."""
        try:
            await self._write(entries)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            fault = refusal(self._db, exc)
        else:
            return []
        if fault.reaction is not Reaction.ANSWER:
            # Is it the table? Without an outcome there is none to refuse.
            await self._write([])
        return await self._sift(entries)

    async def _sift(self, entries: list[Entry]) -> list[Entry]:
        left: list[Entry] = []
        parts = [entries]
        in_a_row = 0
        while parts:
            part = parts.pop()
            if in_a_row > CAUSE_MAX:
                left += part
                continue
            try:
                await self._write(part, lock_s=LOCK_S)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
                fault = refusal(self._db, exc)
            else:
                in_a_row = 0
                continue
            if len(part) > 1:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            elif await self._set_aside(part[0], fault):
                in_a_row = 0
            else:
                left += part
                in_a_row += 1
        return left

    async def _set_aside(self, entry: Entry, fault: Fault) -> bool:
        """Record the job dead and keep the outcome; return False if it is not the outcome that is refused."""
        if fault.reaction is Reaction.WAIT:
            # "Not now", not "not this": a lock, a deadlock, no room.
            return False
        worker, outcome = entry
        dead = True
        try:
            await self._write([(worker, dead_instead(outcome, fault))], lock_s=LOCK_S)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            if refusal(self._db, exc).reaction not in {Reaction.ANSWER, Reaction.RESTART}:
                return False
            dead = False
        if self._unrecordable.said(outcome.id) is not None:
            return True
        if not dead:
            self._unrecordable.news(subject=outcome.id)
        where = await self._keep(entry, fault)
        self.refusals.tell(outcome, fault, where, dead=dead)
        return True

    async def _write(self, entries: list[Entry], *, lock_s: float | None = None) -> None:
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
