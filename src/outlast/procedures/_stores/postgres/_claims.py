"""Claims and sweeps: what is picked, and what is done about locks that others hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from outlast.procedures._model import Swept
from outlast.procedures._stores.postgres import _claiming as claiming
from outlast.procedures._stores.postgres._rows import record_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import LiteralString

    from outlast.postgres import Connection
    from outlast.procedures._model import ProcedureRecord, Sweep
    from outlast.procedures._stores.postgres._careful import Careful
    from outlast.procedures._stores.postgres._claiming import Picking
    from outlast.procedures._stores.postgres._statements import Statements

    Rows = list[tuple[Any, ...]]
    Run = Callable[[LiteralString, Mapping[str, Any]], Awaitable[Rows]]

ROUNDS_MAX: Final = 200
"""With AHEAD rows looked over in each: so many that wait for locks are passed over by one claim."""
WAKES_MAX: Final = 5
NAMES_MAX: Final = 500


async def claim(conn: Connection, said: Statements, values: Mapping[str, Any]) -> list[ProcedureRecord]:
    """Claim up to `count`, in one transaction. Most often this is one statement."""
    claimed: list[ProcedureRecord] = []
    wakes = 0
    for _ in range(ROUNDS_MAX):
        count = values["count"] - len(claimed)
        found = {**values, "count": count, "window": count + claiming.SPARE}
        rows = await (await conn.execute(said(claiming.CLAIM.whole), found)).fetchall()
        claimed += [record_of(row[1:]) for row in rows if row[1] is not None]
        losers = [row[0] for row in rows if row[1] is None]
        if len(claimed) >= values["count"]:
            break
        if losers:
            await conn.execute(said(claiming.UNLOCK), {"id": losers})
            ahead = {**values, "count": claiming.AHEAD, "window": claiming.AHEAD}
            await conn.execute(said(claiming.PARK), ahead)
        elif wakes >= WAKES_MAX or not await _wake_forgotten(conn, said):
            break
        else:
            wakes += 1
    return claimed


async def claim_these(conn: Connection, said: Statements, runner: str, ids: list[str]) -> list[ProcedureRecord]:
    """Claim those of a list that may be claimed, in its order."""
    claimed: list[ProcedureRecord] = []
    while ids:
        values = {"runner": runner, "id": ids}
        rows = await (await conn.execute(said(claiming.CLAIM.these), values)).fetchall()
        claimed += [record_of(row[1:]) for row in rows if row[1] is not None]
        ids = [row[0] for row in rows if row[1] is None]
        if ids:
            await conn.execute(said(claiming.UNLOCK), {"id": ids})
            await conn.execute(said(claiming.PARK_THESE), {"id": ids})
    return claimed


async def _wake_forgotten(conn: Connection, said: Statements) -> bool:
    """Wake those that wait for a lock which nobody holds: all who were to be woken at its release were paused, say."""
    free = await (await conn.execute(said(claiming.FREE_LOCKS), {"count": NAMES_MAX})).fetchall()
    if not free:
        return False
    values: dict[str, Any] = {"name": [row[0] for row in free], "wake": claiming.WAKE}
    return bool(await (await conn.execute(said(claiming.WAKE_UP), values)).fetchall())


async def sweep_up(run: Run, careful: Careful, what: Sweep) -> Swept:
    """Do one batch of each kind of cleaning."""
    expired = await _change(run, careful, claiming.EXPIRE, {"count": what.batch})
    ended = dead = too_many = 0
    if what.done_keep_s is not None:
        ended = await _change(run, careful, claiming.DELETE_ENDED, {"count": what.batch, "age_s": float(what.done_keep_s)})
    if what.dead_keep_s is not None:
        dead = await _change(run, careful, claiming.DELETE_DEAD, {"count": what.batch, "age_s": float(what.dead_keep_s)})
    if dead < what.batch:
        values = {"count": what.batch - dead, "most": what.dead_max}
        too_many = await _change(run, careful, claiming.DELETE_TOO_MANY, values)
    await run(claiming.FORGET_RUNNERS, {})
    more = max(expired, ended, dead + too_many) >= what.batch
    return Swept(expired, ended, dead + too_many, more)


async def _change(run: Run, careful: Careful, picking: Picking, values: Mapping[str, Any]) -> int:
    values = {**values, "without": list(careful.left_out)}
    try:
        return len(await run(picking.whole, values))
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
        careful.fault_of_row(exc)
    changed = 0

    async def one(the_id: str) -> None:
        nonlocal changed
        changed += len(await run(picking.these, {**values, "id": [the_id]}))

    await careful.each([row[0] for row in await run(picking.pick, values)], picking.verb, one)
    return changed
