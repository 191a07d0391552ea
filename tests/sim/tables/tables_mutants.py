"""Defects that the simulation of tables is to find."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fake_table_store import FakeTableStore
from outlast.tables._schema.catalogue import Catalogue
from outlast.tables._schema.shaping import Shaper
from outlast.tables._writing import writer
from outlast.tables._writing.body import Body
from outlast.tables._writing.line import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from planting import Patch


def stale_counts_as_written(patch: Patch) -> None:
    real = FakeTableStore.write

    async def write(self: Any, groups: Any, **asked: Any) -> Any:
        return replace(await real(self, groups, **asked), stale=frozenset())

    patch(FakeTableStore, "write", write)


def an_error_counts_as_written(patch: Patch) -> None:
    real = Item.end
    patch(Item, "end", lambda self, error=None: real(self, None))


def a_refused_row_counts_as_written(patch: Patch) -> None:
    patch(writer, "_refuse", lambda refusal, folded, sources: None)


def whole_is_in_parts(patch: Patch) -> None:
    async def write_whole(self: Any) -> Any:
        return await self.write()

    patch(Body, "write_whole", write_whole)


def the_store_is_not_told_of_a_whole_body(patch: Patch) -> None:
    real = FakeTableStore.write
    patch(FakeTableStore, "write", lambda self, groups, **_: real(self, groups))


def a_refusal_is_remembered_forever(patch: Patch) -> None:
    def remembered(self: Any, now: float, table: str) -> Any:
        found = self._refused.get(table)
        return None if found is None else found[0]

    patch(Shaper, "_remembered", remembered)
    patch(Shaper, "forget", lambda self: None)


def a_table_that_was_made_again_keeps_its_series(patch: Patch) -> None:
    real = Catalogue.put

    def put(self: Any, record: Any) -> Any:
        known = self.get(record.name)
        if known is None:
            return real(self, record)
        known.put(record)
        return known

    patch(Catalogue, "put", put)
    patch(Catalogue, "forget", lambda self, name: None)


def an_acknowledgement_comes_before_the_commit(patch: Patch) -> None:
    real = writer.Writer._commit

    async def commit(self: Any, items: Any) -> None:
        for item in items:
            item.end()
        await real(self, items)

    patch(writer.Writer, "_commit", commit)


MUTANTS: Mapping[str, Callable[[Patch], None]] = {
    each.__name__: each
    for each in (
        stale_counts_as_written,
        an_error_counts_as_written,
        a_refused_row_counts_as_written,
        whole_is_in_parts,
        the_store_is_not_told_of_a_whole_body,
        a_refusal_is_remembered_forever,
        a_table_that_was_made_again_keeps_its_series,
        an_acknowledgement_comes_before_the_commit,
    )
}
