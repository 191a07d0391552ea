"""Statements over many rows, of which one may be refused by a trigger or a constraint of the user's: it stops none of the others.

Nothing that our own columns hold makes these statements fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import errors

from outlast import Fault, Incident, Kind, Stopping, Unavailable
from outlast.extend import Reaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from outlast.postgres import Postgres

LEFT_OUT_MAX: Final = 1_000
"""Rows that are left out until the process ends; beyond that the refusal is raised."""
HINT: Final = "correct the trigger or constraint of the table, or the row"
AGAIN: Final = (errors.DeadlockDetected, errors.SerializationFailure)
TRIES: Final = 3


class Careful:
    """Finds out, one by one, which rows are refused, after a statement over all of them was. On the event loop's thread."""

    def __init__(self, db: Postgres) -> None:
        self._db = db
        self._incident = Incident("procedures rows", verb="are refused")
        self.left_out: dict[str, None] = {}

    def fault_of_row(self, exc: Exception) -> Fault:
        """Return the fault of an error that may concern one row; raise one that concerns everyone, or says "not now"."""
        if isinstance(exc, Unavailable | Stopping):
            raise exc
        fault = self._db.classifiers.classify(exc, source=self._db.name)
        if fault.is_evidence or fault.reaction in {Reaction.END, Reaction.LEAVE, Reaction.WAIT}:
            raise exc
        return fault

    async def each(self, ids: Sequence[str], verb: str, change: Callable[[str], Awaitable[None]]) -> None:
        """Change rows one by one; those that are refused are left out from now on, and told."""
        for the_id in ids:
            try:
                await change(the_id)
            except Exception as exc:
                fault = self.fault_of_row(exc)
                if len(self.left_out) >= LEFT_OUT_MAX:
                    raise
                self.left_out[the_id] = None
                self.tell(f"procedure {the_id} cannot be {verb} and is left out until the next start", fault)

    def tell(self, what: str, fault: Fault) -> None:
        """Log one ERROR for each different fault; count the others."""
        self._incident.fault(Fault(Kind.BUG, fault.code, f"{what}: {fault.reason}", "row", hint=HINT))
