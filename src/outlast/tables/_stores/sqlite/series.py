"""Series: those that are made, and those that have certain tags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from outlast.tables._errors import StaleTableError
from outlast.tables._stores.port import SeriesFound
from outlast.tables._stores.sqlite.statements import tags_of, tags_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from outlast.tables._model import TableRecord, Tags
    from outlast.tables._stores.sqlite.statements import Statements

PAGE: Final = 1_000
COUNTED: Final = 10_000
"""Series of a tag's values that are counted to find out by which tag fewest are found."""

_FIND: Final = "SELECT id FROM outlast_series WHERE table_id = ? AND tags = ?"
_MAKE: Final = "INSERT INTO outlast_series (table_id, tags) VALUES (?, ?) RETURNING id"
_VALUE: Final = "SELECT id FROM outlast_tag_values WHERE table_id = ? AND tag = ? AND value = ?"
_MAKE_VALUE: Final = "INSERT INTO outlast_tag_values (table_id, tag, value) VALUES (?, ?, ?) RETURNING id"
_COUNT: Final = "SELECT value_count FROM outlast_tags WHERE table_id = ? AND tag = ?"
_ADD: Final = """
    INSERT INTO outlast_tags VALUES (?, ?, 1) ON CONFLICT (table_id, tag) DO UPDATE SET value_count = value_count + 1
"""
_ALL: Final = "SELECT id, tags FROM outlast_series WHERE table_id = ? AND id > ? ORDER BY id LIMIT ?"
_VALUES: Final = """
    SELECT id FROM outlast_tag_values WHERE table_id = ? AND tag = ? AND value IN (SELECT value FROM json_each(?))
"""
_COUNT_SOME: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM outlast_series_tags WHERE value_id IN (SELECT value FROM json_each(?)) LIMIT ?
    )
"""
_SOME: Final = """
    SELECT id, tags FROM outlast_series WHERE id IN (
        SELECT series FROM outlast_series_tags WHERE value_id IN (SELECT value FROM json_each(?)) AND series > ?
        ORDER BY series LIMIT ?
    ) ORDER BY id
"""


def make(st: Statements, table: TableRecord, tags: Sequence[Tags], tag_values_max: int) -> SeriesFound:
    """See the port's `series`."""
    if st.row("SELECT 1 FROM outlast_tables WHERE id = ?", table.id) is None:
        raise StaleTableError(f"table {table.name!r} was dropped since it was looked at; look again")
    ids: list[int] = []
    full: dict[int, str] = {}
    for place, one in enumerate(tags):
        text = tags_text(one)
        found = st.row(_FIND, table.id, text)
        if found is None:
            tag = _made(st, table.id, one, text, tag_values_max)
            if isinstance(tag, str):
                full[place] = tag
                found = (0,)
            else:
                found = (tag,)
        ids.append(found[0])
    return SeriesFound(ids, full)


def one(st: Statements, table_id: int, series: int) -> dict[int, Tags]:
    """Return the tags of one series of a table, if it is there."""
    rows = st.rows("SELECT id, tags FROM outlast_series WHERE id = ? AND table_id = ?", series, table_id)
    return {the_id: tags_of(text) for the_id, text in rows}


def _made(st: Statements, table_id: int, tags: Tags, text: str, tag_values_max: int) -> int | str:
    """Make a series and return its id; or return the tag that has too many values already, and make nothing."""
    values = [(tag, value, st.row(_VALUE, table_id, tag, value)) for tag, value in tags]
    for tag, _, known in values:
        if known is None and _count(st, table_id, tag) >= tag_values_max:
            return tag
    [(series,)] = st.rows(_MAKE, table_id, text)
    for tag, value, known in values:
        value_id = known or st.row(_MAKE_VALUE, table_id, tag, value) or (0,)
        if known is None:
            st.run(_ADD, table_id, tag)
        st.run("INSERT INTO outlast_series_tags VALUES (?, ?)", value_id[0], series)
    return int(series)


def _count(st: Statements, table_id: int, tag: str) -> int:
    row = st.row(_COUNT, table_id, tag)
    return 0 if row is None else row[0]


def pages(
    st: Statements, table_id: int, tags: Mapping[str, tuple[str, ...]], after: int, size: int = PAGE
) -> Iterator[dict[int, Tags]]:
    """Yield the series that have these tags in the order of their ids, those above `after`, some at a time.

    They are found by the tag by whose values fewest are found; the others are looked for in each. Without any value they are
    found by the table.
    """
    value_ids = _fewest(st, table_id, tags)
    while True:
        rows = st.rows(_ALL, table_id, after, size) if value_ids is None else st.rows(_SOME, value_ids, after, size)
        read = ((series, tags_of(text)) for series, text in rows)
        yield {series: has for series, has in read if _is_asked(dict(has), tags)}
        if len(rows) < size:
            return
        after = rows[-1][0]


def _fewest(st: Statements, table_id: int, tags: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the ids of those values, as JSON, by which the series are best found; None if no values are asked for."""
    best: tuple[int, str] | None = None
    for tag, values in tags.items():
        if values:
            found = json.dumps([row[0] for row in st.rows(_VALUES, table_id, tag, json.dumps(values))])
            [(number,)] = st.rows(_COUNT_SOME, found, COUNTED)
            if best is None or number < best[0]:
                best = (number, found)
    return None if best is None else best[1]


def _is_asked(has: Mapping[str, str], tags: Mapping[str, tuple[str, ...]]) -> bool:
    return all(name in has and (not values or has[name] in values) for name, values in tags.items())
