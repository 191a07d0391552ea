"""The writes of runners, in one transaction."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from outlast.procedures._model import Recorded
from outlast.procedures._stores.postgres import _claiming as claiming
from outlast.procedures._stores.postgres import _statements as statements
from outlast.procedures._stores.postgres._rows import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.postgres import Connection
    from outlast.procedures._model import RecordWrite
    from outlast.procedures._stores.postgres._statements import Statements


async def record(conn: Connection, said: Statements, writes: Sequence[RecordWrite]) -> list[Recorded]:
    """Record each whose claim holds. Several of one record take effect in their order, one statement after the other."""
    outcomes: list[Recorded] = [Recorded.LATE] * len(writes)
    over: list[str] = []
    work = False
    for places in _rounds(writes):
        batch = [writes[place] for place in places]
        if any(write.waits_for or write.took_signals for write in batch):
            # The next statement then sees every signal that came before, and a signal that comes later sees what it writes.
            await conn.execute(said(statements.LOCK_ROWS), {"id": [write.id for write in batch]})
            await _take_signals(conn, said, batch)
        rows = await (await conn.execute(said(statements.RECORD), written(batch))).fetchall()
        done = {row[0] for row in rows}
        for place in places:
            if writes[place].id in done:
                outcomes[place] = Recorded.WRITTEN
        over += [row[0] for row in rows if row[1]]
        work = work or any(row[2] for row in rows)
    if over:
        released = await (await conn.execute(said(statements.RELEASE), {"id": over})).fetchall()
        if released:
            values: dict[str, Any] = {"name": [row[0] for row in released], "wake": claiming.WAKE}
            await conn.execute(said(claiming.WAKE_UP), values)
            work = True
    if work:
        await conn.execute(said(statements.WORK))
    return outcomes


async def _take_signals(conn: Connection, said: Statements, writes: Sequence[RecordWrite]) -> None:
    taken = [(write, name, count) for write in writes for name, count in Counter(write.took_signals).items()]
    if taken:
        values: dict[str, Any] = {
            "id": [write.id for write, _, _ in taken],
            "token": [write.token for write, _, _ in taken],
            "body": [write.body_json for write, _, _ in taken],
            "name": [name for _, name, _ in taken],
            "count": [count for _, _, count in taken],
        }
        await conn.execute(said(statements.TAKE_SIGNALS), values)


def _rounds(writes: Sequence[RecordWrite]) -> list[list[int]]:
    """Return the places of the first writes of each record, then of the second ones, and so on."""
    seen: Counter[str] = Counter()
    rounds: list[list[int]] = []
    for place, write in enumerate(writes):
        turn = seen[write.id]
        seen[write.id] += 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds
