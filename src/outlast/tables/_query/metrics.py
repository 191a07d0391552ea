"""The names of metrics: a metric is one numeric field of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from outlast.tables._errors import InvalidQueryError
from outlast.tables._model import FieldType

if TYPE_CHECKING:
    from outlast.tables._model import TableRecord
    from outlast.tables._tables import Tables

VALUE: Final = "value"
"""The field of a point that came by OpenTSDB's ways."""
SPLITS_MAX: Final = 8
"""The dots of a name, from its end, at which a table may end and a field begin."""
PAGE: Final = 200
NUMERIC: Final = frozenset({FieldType.INTEGER, FieldType.FLOAT, FieldType.NUMBER})


class Metric(NamedTuple):
    """The table and the field of a metric."""

    table: str
    field: str


def numeric_fields(table: TableRecord) -> list[str]:
    """Return the names of the fields that hold numbers."""
    return [field.name for field in table.fields if field.type in NUMERIC]


def own_field(table: TableRecord) -> str | None:
    """Return the field that the name of the table alone stands for: `value`, or the only numeric one. None: there is none."""
    fields = numeric_fields(table)
    if VALUE in fields:
        return VALUE
    return fields[0] if len(fields) == 1 else None


def names_of(table: TableRecord) -> list[str]:
    """Return the names of its metrics: that of the table where that is enough, else one for each numeric field."""
    if own_field(table) is not None:
        return [table.name]
    return [f"{table.name}.{field}" for field in numeric_fields(table)]


async def metric_of(tables: Tables, name: str) -> Metric:
    """Return the table and the field of a metric.

    A name is that of a table (its field `value`, or its only numeric one), or `table.field`; of several readings the one with the
    longest name of a table is taken. Raises `InvalidQueryError`.
    """
    seen: TableRecord | None = None
    for table_name, field in _readings(name):
        table = await tables.table(table_name)
        if table is None:
            continue
        seen = seen or table
        chosen = own_field(table) if field is None else field
        if chosen is not None and chosen in numeric_fields(table):
            return Metric(table_name, chosen)
    if seen is None:
        raise InvalidQueryError(f"No such name for 'metrics': '{name[:200]}'")
    offered = ", ".join(f"{seen.name}.{field}" for field in numeric_fields(seen)[:20]) or "none, for it has no numeric field"
    raise InvalidQueryError(f"the table {seen.name!r} has no number that {name[:200]!r} could be; its metrics are {offered}")


def _readings(name: str) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = [(name, None)]
    at = len(name)
    for _ in range(SPLITS_MAX):
        at = name.rfind(".", 0, at)
        if at <= 0:
            break
        if name[at + 1 :]:
            found.append((name[:at], name[at + 1 :]))
    return found


async def suggest_metrics(tables: Tables, prefix: str, count: int) -> list[str]:
    """Return names of metrics that begin with `prefix`, sorted."""
    found: list[str] = []
    # The tables of which only a part of the prefix is the name: their fields follow behind a dot.
    for table_name, _ in reversed(_readings(prefix)):
        if table_name and (table := await tables.table(table_name)) is not None:
            found += [name for name in names_of(table) if name.startswith(prefix)]
    after = prefix
    while len(found) < count:
        page = await tables.tables(after=after, count=min(PAGE, count))
        begun = [table for table in page if table.name.startswith(prefix)]
        found += [name for table in begun for name in names_of(table)]
        if not begun or len(begun) < len(page) or len(page) < min(PAGE, count):
            break
        after = begun[-1].name
    return sorted(set(found))[:count]
