"""Submissions, in one transaction: made, revived, joined, or refused for their key's failures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from psycopg import errors

from outlast.procedures._model import LIVE, KeyOf, ProcedureState, Submission, Submitted
from outlast.procedures._stores.postgres import _statements as statements
from outlast.procedures._stores.postgres._claims import claim_these
from outlast.procedures._stores.postgres._rows import record_of, submitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.postgres import Connection
    from outlast.procedures._model import NewRecord
    from outlast.procedures._stores.postgres._statements import Statements

ROUNDS_MAX: Final = 20
"""A key that ends and is made again by others between two statements is looked for again, and not without end."""
MADE: Final = frozenset({Submission.CREATED, Submission.REVIVED})
_ANSWERS: Final = {
    "made": Submission.CREATED,
    "revived": Submission.REVIVED,
    "live": Submission.JOINED,
    "failing": Submission.FAILING,
}


async def submit(conn: Connection, said: Statements, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
    """Answer each in order. The first of a key asks the store; what more of it is in the same call joins what the first got."""
    round_of = Round(conn, said, runner)
    answers: list[Submitted | None] = [None] * len(new)
    left = list(range(len(new)))
    for _ in range(ROUNDS_MAX):
        first: dict[KeyOf, int] = {}
        for place in left:
            first.setdefault(KeyOf(new[place].kind, new[place].key), place)
        found = await round_of.ask([new[place] for place in first.values()])
        for place in left:
            of = KeyOf(new[place].kind, new[place].key)
            answer = found.get(of)
            if answer is not None and place != first[of]:
                answer = found[of] = _beside(answer)
            if answer is not None and answer.answer is Submission.JOINED:
                answer = found[of] = round_of.join(answer, new[place].deadline_s)
            answers[place] = answer
            if answer is not None and answer.record.state not in LIVE and answer.answer is Submission.CREATED:
                # An id that was there already and has ended: it says nothing about the next of this key.
                del found[of]
        left = [place for place in left if answers[place] is None]
        if not left:
            break
    else:
        msg = f"procedures: {len(left)} keys ended and began again under other hands while they were submitted; submit again"
        raise errors.SerializationFailure(msg)
    await round_of.end()
    return [answer for answer in answers if answer is not None]


class Round:
    """The statements of one submission, and what is to be done at its end."""

    def __init__(self, conn: Connection, said: Statements, runner: str) -> None:
        self._conn = conn
        self._said = said
        self._runner = runner
        self._longer: dict[str, float | None] = {}
        self._work = False

    async def ask(self, new: list[NewRecord]) -> dict[KeyOf, Submitted]:
        """Submit one for each key; return the answers. Those that have none came between two others' changes."""
        found: dict[KeyOf, Submitted] = {}
        due: list[NewRecord] = []
        rows = await (await self._conn.execute(self._said(statements.SUBMIT), submitted(new, self._runner))).fetchall()
        asked = {KeyOf(each.kind, each.key): each for each in new}
        # What was made comes first, and what this statement found as it was before does not take its place.
        for how, *row in rows:
            record = record_of(row)
            if how == "due":
                due.append(asked[record.of])
            else:
                found.setdefault(record.of, Submitted(_ANSWERS[how], record))
        if due:
            cursor = await self._conn.execute(self._said(statements.REVIVE), submitted(due, self._runner))
            for _, *row in await cursor.fetchall():
                record = record_of(row)
                found[record.of] = Submitted(Submission.REVIVED, record)
        await self._begin([asked[of] for of in asked if of in found], found)
        for of, answer in found.items():
            if answer.answer in MADE and answer.record.state is ProcedureState.QUEUED and asked[of].delay_s <= 0:
                self._work = True
        return found

    def join(self, answer: Submitted, deadline_s: float | None) -> Submitted:
        """Let a record that was not begun live as long as this submission wants it to."""
        record = answer.record
        if record.began_at is not None or record.deadline_at is None:
            return answer
        before = self._longer.get(record.id, 0.0)
        self._longer[record.id] = None if deadline_s is None or before is None else max(before, deadline_s)
        deadline_at = None if deadline_s is None else max(record.deadline_at, record.read_at + deadline_s)
        return replace(answer, record=replace(record, deadline_at=deadline_at))

    async def end(self) -> None:
        """Do what concerns all of them."""
        if self._longer:
            values = {"id": list(self._longer), "seconds": list(self._longer.values())}
            await self._conn.execute(self._said(statements.EXTEND), values)
        if self._work:
            await self._conn.execute(self._said(statements.WORK))

    async def _begin(self, asked: list[NewRecord], found: dict[KeyOf, Submitted]) -> None:
        """Claim those that need locks; those that need none were begun as they were made."""
        answers = (found[KeyOf(each.kind, each.key)] for each in asked if each.claim and each.locks)
        waiting = [answer for answer in answers if answer.record.state is ProcedureState.QUEUED and answer.answer in MADE]
        ids = [answer.record.id for answer in waiting]
        for record in await claim_these(self._conn, self._said, self._runner, ids):
            found[record.of] = replace(found[record.of], record=record)


def _beside(answer: Submitted) -> Submitted:
    """Return the answer for another of the same call and key."""
    return answer if answer.answer is Submission.FAILING else replace(answer, answer=Submission.JOINED)
