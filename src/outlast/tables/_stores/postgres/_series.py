"""Series and their ids: looked up by digest, and made under the lock of their table's row, where values of tags are counted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Final

from outlast.tables._errors import StaleTableError
from outlast.tables._stores.port import SeriesFound
from outlast.tables._stores.postgres._sessions import AGAIN, SETTINGS, TRIES, rows, run, transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.postgres import Connection, Postgres
    from outlast.tables._model import TableRecord, Tags
    from outlast.tables._stores.postgres._sessions import Statements

DIGEST_BYTES: Final = 16
"""Of sha256: the chance that two of a million series of a table are taken for one is 1 in 10**26."""
_FIND: Final = "SELECT digest, id FROM {schema}.table_series WHERE table_id = $1 AND digest = ANY($2::bytea[])"
_HOLD: Final = "SELECT id FROM {schema}.tables WHERE id = $1 FOR NO KEY UPDATE"
"""One maker of series of a table at a time; none while it is dropped."""
_KNOWN: Final = """
SELECT v.tag, v.value FROM unnest($2::text[], $3::text[]) AS g(tag, value)
JOIN {schema}.table_tag_values v ON v.table_id = $1 AND v.tag = g.tag AND v.value = g.value
"""
_COUNTS: Final = "SELECT tag, value_count FROM {schema}.table_tags WHERE table_id = $1 AND tag = ANY($2::text[])"
_MAKE: Final = """
INSERT INTO {schema}.table_series (table_id, digest, tags)
SELECT $1, g.digest, g.tags::jsonb FROM unnest($2::bytea[], $3::text[]) WITH ORDINALITY AS g(digest, tags, place) ORDER BY g.place
RETURNING digest, id
"""
_ADD_VALUES: Final = """
INSERT INTO {schema}.table_tag_values (table_id, tag, value) SELECT $1, g.* FROM unnest($2::text[], $3::text[]) AS g
"""
_COUNT: Final = """
INSERT INTO {schema}.table_tags AS t (table_id, tag, value_count) SELECT $1, g.* FROM unnest($2::text[], $3::integer[]) AS g
ON CONFLICT (table_id, tag) DO UPDATE SET value_count = t.value_count + excluded.value_count
"""


class SeriesKeeper:
    """Finds series, and makes those that are not there."""

    def __init__(self, db: Postgres, said: Statements) -> None:
        self._db = db
        self._said = said

    async def ids(self, table: TableRecord, tags: Sequence[Tags], tag_values_max: int) -> SeriesFound:
        """Return the ids of series; see the port."""
        if not tags:
            return SeriesFound([], {})
        texts = [json.dumps(dict(each), ensure_ascii=False, separators=(",", ":")) for each in tags]
        digests = [hashlib.sha256(text.encode()).digest()[:DIGEST_BYTES] for text in texts]
        async with self._db.connection() as conn:
            found = await self._find(conn, table.id, digests)
        full: dict[int, str] = {}
        if any(digest not in found for digest in digests):
            found, full = await self._make(table, tags, texts, digests, tag_values_max)
        return SeriesFound([found.get(digest, 0) for digest in digests], full)

    async def _find(self, conn: Connection, the_id: int, digests: Sequence[bytes]) -> dict[bytes, int]:
        return dict(await rows(conn, self._said(_FIND), the_id, list(digests)))

    async def _make(
        self, table: TableRecord, tags: Sequence[Tags], texts: Sequence[str], digests: Sequence[bytes], most: int
    ) -> tuple[dict[bytes, int], dict[int, str]]:
        for left in reversed(range(TRIES)):
            try:
                async with transaction(self._db) as conn:
                    await run(conn, SETTINGS)
                    if not await rows(conn, self._said(_HOLD), table.id):
                        msg = f"table {table.name!r} was dropped since it was looked at; look again"
                        raise StaleTableError(msg)
                    found = await self._find(conn, table.id, digests)
                    missing = [place for place, digest in enumerate(digests) if digest not in found]
                    new, full = await self._allowed(conn, table.id, {place: tags[place] for place in missing}, most)
                    made = [place for place in missing if place not in full]
                    await self._write(conn, table.id, [digests[place] for place in made], [texts[place] for place in made], new)
                    return {**found, **await self._find(conn, table.id, [digests[place] for place in made])}, full
            except AGAIN:
                if not left:
                    raise
        raise AssertionError

    async def _allowed(
        self, conn: Connection, the_id: int, wanted: Mapping[int, Tags], most: int
    ) -> tuple[list[tuple[str, str]], dict[int, str]]:
        """Return the values of tags that are new, and for each series that would bring one too many the tag."""
        pairs = list({pair: None for tags in wanted.values() for pair in tags})
        names, values = [tag for tag, _ in pairs], [value for _, value in pairs]
        known = set(await rows(conn, self._said(_KNOWN), the_id, names, values))
        counts: Counter[str] = Counter(dict(await rows(conn, self._said(_COUNTS), the_id, sorted(set(names)))))
        new: list[tuple[str, str]] = []
        full: dict[int, str] = {}
        for place, tags in wanted.items():
            unknown = [pair for pair in tags if pair not in known]
            over = next((tag for tag, _ in unknown if counts[tag] >= most), None)
            if over is not None:
                full[place] = over
                continue
            counts.update(tag for tag, _ in unknown)
            known.update(unknown)
            new += unknown
        return new, full

    async def _write(
        self, conn: Connection, the_id: int, digests: list[bytes], texts: list[str], new: Sequence[tuple[str, str]]
    ) -> None:
        if digests:
            await run(conn, self._said(_MAKE), the_id, digests, texts)
        if new:
            counts = Counter(tag for tag, _ in new)
            await run(conn, self._said(_ADD_VALUES), the_id, [tag for tag, _ in new], [value for _, value in new])
            await run(conn, self._said(_COUNT), the_id, list(counts), list(counts.values()))
