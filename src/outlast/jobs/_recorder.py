"""Record the outcomes of attempts: in the database, through the sieve, or in the journal while that is away."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from outlast.extend import Recorder
from outlast.jobs._journal import Entry
from outlast.jobs._refusals import Refusals
from outlast.jobs._sieve import OutcomeSieve

if TYPE_CHECKING:
    from outlast import Fault
    from outlast.extend import Journal
    from outlast.jobs._model import Outcome
    from outlast.jobs._statements import Statements
    from outlast.postgres import Postgres

Key = tuple[str, int, int]


class OutcomeRecorder(Recorder[Entry]):
    """Take the outcome of each attempt and return when it is safe.

    Every outcome is recorded once, however often it is sent: the statement is fenced by the attempt. What is sent twice is
    counted by the sieve, as is an outcome whose job another process has taken over; what cannot be recorded now is held because
    another session holds its row.
    """

    def __init__(self, db: Postgres, said: Statements, journal: Journal[Entry], worker: str) -> None:
        self._worker = worker
        self._refusals = Refusals(journal.path.with_name(f"{journal.path.name}.refused"))
        self.sieve = OutcomeSieve(db, said, self._keep_refused, self._refusals)
        self.ended: Counter[str] = Counter()
        """How many attempts came to which end, since the start."""
        super().__init__(
            journal,
            self.sieve.record,
            dependency=db,
            name="jobs",
            key=_key,
            late=lambda: self.sieve.late,
            aside=self._refusals.aside,
        )

    async def make_safe(self, outcome: Outcome) -> None:
        """Return when the outcome is recorded or in the journal. Waiters are bounded by the workers: each awaits its own."""
        self.ended[outcome.end] += 1
        await self.record((self._worker, outcome))

    async def _keep_refused(self, entry: Entry, fault: Fault) -> str:
        return await self.disk.run(self._refusals.keep, entry, fault)


def _key(entry: Entry) -> Key:
    worker, outcome = entry
    return worker, outcome.id, outcome.attempt
