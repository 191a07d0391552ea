"""Points as rows: written, with whatever is refused found out; and read, a page at a time."""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import apsw

from outlast import Fault, Kind, Scope
from outlast.extend import clean
from outlast.tables._model import INT64_MAX, INT64_MIN, FieldType
from outlast.tables._stores.port import RowRefusal, Wrote
from outlast.tables._stores.sqlite import series
from outlast.tables._stores.sqlite.catalogue import VERSION, fields_there, table, table_of_id
from outlast.tables._stores.sqlite.statements import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.tables._model import FieldRecord, Range, TableRecord, Tags
    from outlast.tables._stores.port import ReadRow, TableRows
    from outlast.tables._stores.sqlite.statements import Statements

OF_A_ROW: Final = (OverflowError, TypeError, UnicodeError, apsw.TooBigError, apsw.ConstraintError, apsw.MismatchError)
"""Errors of apsw for a row for what it is. The statement has changed nothing then, and the transaction goes on."""
_SERIES: Final = operator.itemgetter(0)
STATEMENTS_MAX: Final = 10_000
"""Sets of statements whose texts are kept, each for a table and some of its fields."""
BLOCK: Final = 16
"""Rows of one statement, where there are so many: a fifth less a row where they lie on one page. With more of them the gain is
small, and what is left over goes one by one."""


@dataclass(frozen=True, slots=True)
class _Upsert:
    """The statements that write rows with some fields of a table."""

    one: str
    block: str
    """Writes `BLOCK` rows, whose values follow one another. It keeps those before one that is refused."""


@dataclass(slots=True)
class _Known:
    """A table as the catalogue has it in one version."""

    record: TableRecord
    fields: dict[str, FieldRecord]
    upserts: dict[tuple[str, ...], tuple[TableRecord, _Upsert]] = field(
        default_factory=dict[tuple[str, ...], "tuple[TableRecord, _Upsert]"]
    )
    """For fields: the record by which they were written last, and the statements."""


class Writer:
    """Writes points. It keeps what it knows of the catalogue as long as that has the same version: one look a transaction.

    In the writer's thread only.
    """

    def __init__(self) -> None:
        self._version = -1
        self._known: dict[int, _Known] = {}
        self._texts = 0

    def write(self, st: Statements, groups: Sequence[TableRows]) -> Wrote:
        """See the port."""
        self._look(st)
        refused: list[RowRefusal] = []
        stale: set[int] = set()
        for number, group in enumerate(groups):
            upsert = self._upsert(st, group.table, group.fields)
            if upsert is None:
                stale.add(number)
                continue
            try:
                refused += _written(st, upsert, number, group)
            except apsw.SQLError:
                # Somebody has changed the table by hand. A shape puts it right; the other groups are not to suffer.
                stale.add(number)
        return Wrote(refused, frozenset(stale))

    def _look(self, st: Statements) -> None:
        [(version,)] = st.rows(VERSION)
        if version != self._version or self._texts >= STATEMENTS_MAX:
            self._version, self._known, self._texts = version, {}, 0

    def _upsert(self, st: Statements, record: TableRecord, fields: tuple[str, ...]) -> _Upsert | None:
        """Return the statements for some fields of a table; None if the catalogue has it otherwise than `record`."""
        known = self._known.get(record.id)
        if known is None:
            found = table_of_id(st, record.id)
            if found is None:
                return None
            known = self._known[record.id] = _Known(found, {one.name: one for one in found.fields})
        kept = known.upserts.get(fields)
        if kept is not None and kept[0] is record:
            return kept[1]
        believed = {one.name: one for one in record.fields}
        if record.stored != known.record.stored or any(
            name not in known.fields or known.fields[name] != believed.get(name) for name in fields
        ):
            return None
        upsert = _upsert_of(known, fields)
        known.upserts[fields] = (record, upsert)
        self._texts += 1
        return upsert


def _upsert_of(known: _Known, fields: tuple[str, ...]) -> _Upsert:
    columns = [quoted(known.fields[name].stored) for name in fields]
    into = f"INTO main.{quoted(known.record.stored)} ({', '.join(['series', 'time', *columns])}) VALUES"
    row = f"({', '.join('?' * (len(columns) + 2))})"
    changes = f"UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in columns)}" if columns else "NOTHING"
    end = f"ON CONFLICT (series, time) DO {changes}"
    # A statement that undoes all its rows for one of them keeps a copy of each page that it changes; one that fails does not.
    return _Upsert(f"INSERT {into} {row} {end}", f"INSERT OR FAIL {into} {', '.join([row] * BLOCK)} {end}")


def _written(st: Statements, upsert: _Upsert, number: int, group: TableRows) -> list[RowRefusal]:
    """Write the rows of a group. Of one that is refused nothing is written.

    They are written series by series: neighbours lie on one page, which is a third cheaper where thousands of series come in any
    order, and costs next to nothing where they come in order.
    """
    ordered = sorted(group.rows, key=_SERIES)
    refused: list[tuple[list[Any], Exception]] = []
    last = len(ordered) - len(ordered) % BLOCK
    blocks = iter([list(chain.from_iterable(ordered[first : first + BLOCK])) for first in range(0, last, BLOCK)])
    while operator.length_hint(blocks):
        try:
            st.run_all(upsert.block, blocks)
        except OF_A_ROW:
            # Some of its rows may be written already, and are the same when they are written again.
            end = last - BLOCK * operator.length_hint(blocks)
            refused += _one_by_one(st, upsert.one, ordered[end - BLOCK : end])
    refused += _one_by_one(st, upsert.one, ordered[last:])
    if not refused:
        return []
    places = {id(row): place for place, row in enumerate(group.rows)}
    return [RowRefusal(number, places[id(row)], _fault(group, row, error)) for row, error in refused]


def _one_by_one(st: Statements, statement: str, ordered: list[list[Any]]) -> list[tuple[list[Any], Exception]]:
    """Write rows; return those that are refused. The iterator stands behind such a one."""
    refused: list[tuple[list[Any], Exception]] = []
    rows = iter(ordered)
    while operator.length_hint(rows):
        try:
            st.run_all(statement, rows)
        except OF_A_ROW as error:
            refused.append((ordered[len(ordered) - operator.length_hint(rows) - 1], error))
    return refused


def _fault(group: TableRows, row: list[Any], error: Exception) -> Fault:
    for name, value in zip(("series", "time", *group.fields), row, strict=False):
        if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
            reason = f"field {name!r} of table {group.table.name!r}: {value} does not fit in 64 bits with a sign"
            return Fault(Kind.REJECTED, "out of range", reason, scope=Scope.CALL, hint=f"send {INT64_MIN} to {INT64_MAX}")
    reason = f"a point of table {group.table.name!r} is refused by SQLite: {clean(str(error))}"
    return Fault(Kind.REJECTED, type(error).__name__, reason, scope=Scope.CALL)


def read(st: Statements, ask: Range, after: tuple[int, int] | None, count: int) -> list[ReadRow]:
    """See the port."""
    record = table(st, ask.table)
    there = None if record is None else fields_there(st, record)
    if record is None or there is None or count < 1:
        return []
    page = _Page(st, record.stored, there, ask.fields or tuple(one.name for one in record.fields), is_chosen=bool(ask.fields))
    if not page.has_any:
        return []
    rows: list[ReadRow] = []
    last = 0
    if after is not None:
        last, time_ns = after
        begun = series.one(st, record.id, last)
        rows += page.points(begun, max(ask.start_ns, time_ns + 1), ask.end_ns, count)
    for some in series.pages(st, record.id, ask.tags, last):
        if len(rows) >= count:
            break
        rows += page.points(some, ask.start_ns, ask.end_ns, count - len(rows))
    return rows


def newest(st: Statements, name: str, tags: Mapping[str, tuple[str, ...]], count: int) -> list[ReadRow]:
    """See the port."""
    record = table(st, name)
    there = None if record is None else fields_there(st, record)
    if record is None or there is None or count < 1:
        return []
    page = _Page(st, record.stored, there, tuple(one.name for one in record.fields), is_chosen=False)
    rows: list[ReadRow] = []
    for some in series.pages(st, record.id, tags, 0):
        if len(rows) >= count:
            break
        rows += page.newest(some, count - len(rows))
    return rows


class _Page:
    """Reads points of some series of one table: series by series as they are given, by the primary key."""

    def __init__(
        self, st: Statements, table: str, there: Sequence[FieldRecord], names: tuple[str, ...], *, is_chosen: bool
    ) -> None:
        fields = {one.name: one for one in there}
        chosen = [fields.get(name) for name in names]
        self._st = st
        self._flags = [place for place, one in enumerate(chosen, 2) if one is not None and one.type is FieldType.BOOLEAN]
        present = [f"t.{quoted(one.stored)}" for one in chosen if one is not None]
        self.has_any = bool(present)
        """Whether the table has any of the fields."""
        stored = f"main.{quoted(table)}"
        self._select = f"""
            SELECT {", ".join(["t.series", "t.time", *map(_column, chosen)])} FROM json_each(?) AS wanted CROSS JOIN {stored} AS t
        """
        # The order is that of the loops: CROSS JOIN keeps the left side outside, and the key has the times of a series in order.
        self._points = f"{self._select} ON t.series = wanted.value AND t.time BETWEEN ? AND ?"
        if is_chosen:
            self._points += f" WHERE ({' OR '.join(f'{column} IS NOT NULL' for column in present)})"
        latest = f"SELECT max(n.time) FROM {stored} AS n WHERE n.series = wanted.value"
        self._newest = f"{self._select} ON t.series = wanted.value AND t.time = ({latest}) LIMIT ?"

    def points(self, of: Mapping[int, Tags], start_ns: int, end_ns: int, count: int) -> list[ReadRow]:
        """Return up to `count` points between two times."""
        return self._rows(of, f"{self._points} LIMIT ?", start_ns, end_ns, count) if of else []

    def newest(self, of: Mapping[int, Tags], count: int) -> list[ReadRow]:
        """Return the newest point of each of up to `count` series."""
        return self._rows(of, self._newest, count) if of else []

    def _rows(self, of: Mapping[int, Tags], statement: str, *values: int) -> list[ReadRow]:
        rows: list[Any] = self._st.rows(statement, json.dumps(list(of)), *values)
        if self._flags:
            rows = [list(row) for row in rows]
            for row in rows:
                for place in self._flags:
                    row[place] = None if row[place] is None else bool(row[place])
        return [(row[0], of[row[0]], row[1], tuple(row[2:])) for row in rows]


def _column(one: FieldRecord | None) -> str:
    if one is None:
        return "NULL"
    column = f"t.{quoted(one.stored)}"
    return f"CAST({column} AS REAL)" if one.type is FieldType.FLOAT else column
