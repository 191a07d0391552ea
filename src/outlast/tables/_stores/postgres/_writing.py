"""Writes: one INSERT of arrays for each group, all in one transaction and one round trip.

A group of rows is one statement: an array for each column, unnested by the server. Measured on PostgreSQL 15 with one field of
doubles, of our own processor time a row: 1,000 rows 0.9 us (psycopg's COPY 1.1, its executemany 9), 10 rows 17 us (COPY 19). So
there is no COPY, which would fail at the first row that is there already.

Rows go in the order of their keys and groups in that of their tables, so that two writers of the same keys wait for each other
and do not meet head on; where they do all the same (two groups of one table), the server ends one, and it tries again.

Whether a table is what its record says is asked after the rows were written, when its columns can change no more until the end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from outlast.tables._stores.postgres._catalogue import SQL_TYPES, Kept, kept_by_id
from outlast.tables._stores.postgres._refusals import Judge, Refusals, Verdict
from outlast.tables._stores.postgres._sessions import AGAIN, SETTINGS, TRIES, Said, pipelined, rows, run, transaction
from outlast.tables._stores.postgres._values import UnfitTextError, arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.postgres import Connection, Postgres
    from outlast.tables._model import TableRecord
    from outlast.tables._stores.port import TableRows, Wrote
    from outlast.tables._stores.postgres._catalogue import Column
    from outlast.tables._stores.postgres._sessions import Statements

PLANS_MAX: Final = 20_000
"""The statements and tables that are remembered; beyond it all are looked up and composed again."""
LOOKS_MAX: Final = 5
"""The times that a write begins again because a table was changed under it, before its group is called stale."""
HURRY: Final = "SELECT pg_catalog.set_config('lock_timeout', '200ms', true)"
"""For a write that is done again group by group: whoever holds a lock has been waited for once."""
_VERSIONS: Final = "SELECT id, version FROM {schema}.tables WHERE id = ANY($1::bigint[])"


@dataclass(frozen=True, slots=True)
class Insert:
    """The statement of one table and some of its fields, at one version of the table."""

    of: Kept
    columns: tuple[Column, ...]
    said: Said
    agreed: TableRecord
    """The record that was compared with `of`."""


@dataclass(slots=True)
class GroupWrite:
    """A group to write: its number in the call, its statement, and its rows in the order of their keys."""

    number: int
    insert: Insert
    rows: list[list[Any]]


class Writer:
    """Writes groups of rows. All of it belongs to one event loop."""

    def __init__(self, db: Postgres, said: Statements) -> None:
        self._db = db
        self._said = said
        self._kept: dict[int, Kept] = {}
        self._inserts: dict[tuple[int, tuple[str, ...]], Insert] = {}
        self._judge = Judge(db)

    def forget(self) -> None:
        """Forget what was looked up."""
        self._kept.clear()
        self._inserts.clear()

    async def write(self, groups: Sequence[TableRows], *, whole: bool) -> Wrote:
        """Write groups of rows; see the port."""
        for left in reversed(range(TRIES)):
            try:
                return await self._write(groups, whole=whole)
            except AGAIN:
                if not left:
                    raise
        raise AssertionError

    async def _write(self, groups: Sequence[TableRows], *, whole: bool) -> Wrote:
        is_careful = False
        for _ in range(LOOKS_MAX):
            refusals = Refusals(groups)
            self._judge.refuse_held(refusals, asyncio.get_running_loop().time())
            try:
                async with transaction(self._db) as conn:
                    if await self._once(conn, groups, refusals, is_careful=is_careful):
                        wrote = refusals.wrote()
                        if whole and (wrote.refused or wrote.stale):
                            await conn.rollback()
                        return wrote
                    # A table was changed meanwhile, and what was looked up is forgotten.
                    await conn.rollback()
            except (psycopg.Error, UnfitTextError) as error:
                if is_careful or self._judge.verdict(error).concerns_everyone:
                    raise
                is_careful = True
        refusals = Refusals(groups)
        refusals.stale.update(range(len(groups)))
        return refusals.wrote()

    async def _once(self, conn: Connection, groups: Sequence[TableRows], refusals: Refusals, *, is_careful: bool) -> bool:
        """Write all; return False if a table changed meanwhile."""
        async with pipelined(conn):
            await run(conn, SETTINGS)
            await self._learn(conn, [groups[number] for number in refusals.left()])
            jobs = self._jobs(groups, refusals)
            if not is_careful:
                for job in jobs:
                    await self._insert(conn, job.insert, job.rows)
                return await self._are_same(conn, jobs)
        await run(conn, HURRY)
        for job in jobs:
            await self._carefully(conn, job, refusals)
        refusals.raise_if_nothing_passed()
        return await self._are_same(conn, jobs)

    async def _learn(self, conn: Connection, groups: Sequence[TableRows]) -> None:
        """Look up the tables of which nothing is known, or something else than their records say."""
        if len(self._kept) + len(self._inserts) > PLANS_MAX:
            self.forget()
        if unknown := sorted({group.table.id for group in groups if self._insert_of(group) is None}):
            for the_id in unknown:
                self._kept.pop(the_id, None)
            self._kept.update(await kept_by_id(conn, self._said, unknown))

    def _jobs(self, groups: Sequence[TableRows], refusals: Refusals) -> list[GroupWrite]:
        """Return what is to be written, and note what is stale."""
        jobs: list[GroupWrite] = []
        for number in refusals.left():
            insert = self._insert_of(groups[number])
            if insert is None:
                refusals.stale.add(number)
            elif groups[number].rows:
                jobs.append(GroupWrite(number, insert, sorted(groups[number].rows)))
        return sorted(jobs, key=lambda job: (job.insert.of.record.id, job.number))

    async def _are_same(self, conn: Connection, jobs: Sequence[GroupWrite]) -> bool:
        """Return whether the tables are still as they were looked up; forget those that are not."""
        versions = {job.insert.of.record.id: job.insert.of.version for job in jobs}
        now: dict[int, int] = dict(await rows(conn, self._said(_VERSIONS), list(versions)))
        changed = [the_id for the_id, version in versions.items() if now.get(the_id) != version]
        for the_id in changed:
            self._kept.pop(the_id, None)
        return not changed

    def _insert_of(self, group: TableRows) -> Insert | None:
        """Return the statement for a group; None where its record is not what is known here."""
        table = self._kept.get(group.table.id)
        if table is None:
            return None
        key = (table.record.id, group.fields)
        insert = self._inserts.get(key)
        if insert is not None and insert.of is table and insert.agreed is group.table:
            return insert
        if not table.agrees(group.table, group.fields):
            return None
        columns = tuple(table.columns[name] for name in group.fields)
        insert = self._inserts[key] = Insert(table, columns, Said(insert_statement(table, columns)), group.table)
        return insert

    async def _insert(self, conn: Connection, insert: Insert, of: Sequence[list[Any]]) -> None:
        await run(conn, insert.said, *arrays(insert.columns, of))

    async def _carefully(self, conn: Connection, job: GroupWrite, refusals: Refusals) -> None:
        """Write one group so that what is refused of it harms nothing else: halves of it, and halves of those."""
        parts = [job.rows]
        while parts:
            part = parts.pop()
            try:
                async with conn.transaction():
                    await self._insert(conn, job.insert, part)
            except (psycopg.Error, UnfitTextError) as error:
                verdict = self._judge.verdict(error)
                if verdict.concerns_everyone:
                    raise
                if verdict is Verdict.STALE:
                    self._kept.pop(job.insert.of.record.id, None)
                    refusals.stale.add(job.number)
                    return
                if verdict is Verdict.TABLE:
                    self._judge.hold(job.insert.of.record.id, error, asyncio.get_running_loop().time())
                    refusals.table(job.number, error, self._judge.fault(error))
                    return
                if len(part) == 1:
                    refusals.row(job.number, part[0], self._judge.fault_of_row(refusals.groups[job.number], part[0], error))
                    continue
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]


def insert_statement(table: Kept, columns: Sequence[Column]) -> sql.Composed:
    """Return the INSERT of an array for each column; where a row is there, the fields that are named get the new values."""
    typed = [each for column in columns for each in column.typed]
    names = [sql.Identifier(name) for name, _ in typed]
    values: list[sql.Composable] = [sql.SQL("$1::bigint[]"), sql.SQL("$2::bigint[]")]
    values += [sql.SQL("${}::{}[]").format(sql.Literal(place), SQL_TYPES[kind]) for place, (_, kind) in enumerate(typed, 3)]
    text = sql.SQL("INSERT INTO {} AS d ({}) SELECT * FROM unnest({}) ON CONFLICT (series, time) DO UPDATE SET {}")
    return text.format(
        table.place,
        sql.SQL(", ").join([sql.SQL("series"), sql.SQL("time"), *names]),
        sql.SQL(", ").join(values),
        sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in names),
    )
