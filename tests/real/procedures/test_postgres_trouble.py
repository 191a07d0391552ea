"""The store in PostgreSQL: plans over a large table, rows that a trigger refuses, and a submitter whose clock is wrong."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from procedure_store_rig import DONE, KIND, begin, claim, keys, new, submit, write, written

from outlast.postgres import Postgres
from outlast.procedures._model import Recorded, Sweep
from outlast.procedures._stores.postgres import PostgresStore
from outlast.procedures._stores.postgres import _claiming as claiming
from outlast.procedures._stores.postgres import _statements as statements

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

REFUSES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.key LIKE 'bad%' THEN RAISE EXCEPTION 'not this one'; END IF;
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON outlast.procedures FOR EACH ROW EXECUTE FUNCTION refuse();
"""
KEEP = Sweep(done_keep_s=None, dead_keep_s=None, dead_max=1_000)
WAITING = """
INSERT INTO outlast.procedures (id, kind, key, state, version, priority, payload, locks, due_at, deadline_at)
SELECT 'f' || lpad(to_hex(n), 31, '0'), 'build', 'k' || n, 'queued', 1, n %% 3, '1',
    CASE WHEN n %% 2 = 0 THEN '{held}'::text[] ELSE '{}' END,
    now() - interval '1 hour' + n * interval '1 millisecond', now() + interval '1 hour'
FROM generate_series(1, %(count)s) AS n
"""


def on_store(database: str, test: Callable[[PostgresStore], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        db = Postgres(database)
        store = PostgresStore(db)
        try:
            await store.open()
            await store.beat("a", "a", 60.0)
            async with asyncio.timeout(120):
                await test(store)
        finally:
            await store.close()
            await db.close()

    asyncio.run(main())


async def run(store: PostgresStore, text: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    async with store._db.connection() as conn:
        cursor = await conn.execute(text.encode(), values)
        return await cursor.fetchall() if cursor.description else []


def test_a_row_that_a_trigger_refuses_stops_no_other(database: str, expected_logs: Any) -> None:
    expected_logs("cannot be claimed and is left out")
    expected_logs("also|more", optional=True)

    async def test(store: PostgresStore) -> None:
        await store.submit(
            [new(key, deadline_s=60 if key == "bad 2" else None) for key in ("a", "bad 1", "b", "bad 2", "c")], "a"
        )
        await run(store, REFUSES)
        assert keys(await claim(store)) == ["a", "b", "c"]
        assert await claim(store) == []
        await run(store, "ALTER TABLE outlast.procedures DISABLE TRIGGER refuse")
        await run(store, "UPDATE outlast.procedures SET deadline_at = now() WHERE key = 'bad 2'")
        await submit(store, "late", deadline_s=0.0)
        await run(store, "ALTER TABLE outlast.procedures ENABLE TRIGGER refuse")
        assert (await store.sweep(KEEP)).expired == 1

    on_store(database, test)


def test_a_write_that_is_refused_is_raised_and_changes_nothing(database: str) -> None:
    async def test(store: PostgresStore) -> None:
        bad, good = await begin(store, "bad"), await begin(store, "good")
        await run(store, REFUSES)
        with pytest.raises(psycopg.errors.RaiseException):
            await store.record([written(good, DONE), written(bad, DONE)])
        assert await store.record([written(good, DONE)]) == [Recorded.WRITTEN]

    on_store(database, test)


@pytest.mark.parametrize("skew_s", [600.0, -600.0])
def test_a_submitter_whose_clock_is_wrong_has_the_deadline_it_asked_for(
    database: str, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    real = time.time

    async def test(store: PostgresStore) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + skew_s)
        record = await submit(store, deadline_s=60.0, delay_s=0.0)
        assert record.deadline_at == pytest.approx(record.created_at + 60.0, abs=0.001)
        assert (await store.sweep(KEEP)).expired == 0
        assert keys(await claim(store)) == ["key"]

    on_store(database, test)


def test_a_backlog_that_waits_for_a_lock_is_passed_over_once(database: str) -> None:
    async def test(store: PostgresStore) -> None:
        held = await begin(store, "holder", locks=("held",))
        await run(store, WAITING, {"count": 3_000})
        await run(store, "UPDATE outlast.procedures SET locks = '{held}' WHERE key <> 'holder'")
        await submit(store, "free")
        assert keys(await claim(store, count=1)) == ["free"]
        [(parked,)] = await run(store, "SELECT count(*) FROM outlast.procedures WHERE parked_on IS NOT NULL")
        assert parked == 2_000, "those of its priority and above"
        assert await claim(store, count=1) == []
        await write(store, held, DONE)
        assert len(await claim(store, count=5)) == 1, "one holds it, the others wait on"

    on_store(database, test)


@pytest.mark.long
def test_no_statement_of_the_regular_work_scans_all_rows(database: str) -> None:
    async def test(store: PostgresStore) -> None:
        await run(store, WAITING, {"count": 100_000})
        await run(store, "INSERT INTO outlast.procedure_locks SELECT 'held', min(id) FROM outlast.procedures")
        async with store._db.connection() as conn:
            await conn.execute("ANALYZE")
        claims = {"runner": "a", "kinds": [KIND], "count": 100, "window": 200, "oldest": False, "without": []}
        asked: list[tuple[Any, dict[str, Any]]] = [
            (claiming.CLAIM.whole, claims),
            (claiming.EXPIRE.whole, {"count": 500, "without": []}),
            (claiming.DELETE_ENDED.whole, {"count": 500, "without": [], "age_s": 0.0}),
            (claiming.DELETE_TOO_MANY.whole, {"count": 500, "without": [], "most": 1_000}),
            (statements.DUE, {"since": 0.0}),
            (statements.NEWS, {"after": 0}),
            (statements.BEAT, {"runner": "a", "name": "a", "lease_s": 60.0}),
        ]
        for text, values in asked:
            async with store._db.connection() as conn:
                plan = "\n".join(
                    row[0]
                    for row in await (
                        await conn.execute(psycopg.sql.SQL("EXPLAIN (ANALYZE, COSTS OFF) ") + store._said(text), values)
                    ).fetchall()
                )
                await conn.rollback()
            assert "Seq Scan on procedures" not in plan, plan

    on_store(database, test)
