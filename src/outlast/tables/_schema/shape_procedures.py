"""The procedures by which tables are made, changed and dropped. Each has one step, which may be done twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from outlast.procedures import Procedure
from outlast.tables._model import FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outlast.procedures import Run
    from outlast.tables._schema.catalogue import Catalogue
    from outlast.tables._stores.port import TableStore

SHAPE_KIND: Final = "outlast.tables shape"
"""The kind of the procedures that make a table and its fields; the key is the name of the table."""
DROP_KIND: Final = "outlast.tables drop"
TIMEOUT_S: Final = 60.0


def lock_of(table: str) -> str:
    """Return the lock by which the procedures of one table exclude each other."""
    return f"outlast.tables {table}"


def payload_of(fields: Mapping[str, FieldType], fields_max: int, retention_s: float | None) -> dict[str, Any]:
    """Return the payload of a `shape`."""
    return {
        "fields": {name: each.value for name, each in fields.items()},
        "fields_max": fields_max,
        "retention_s": retention_s,
    }


def procedures_of(store: TableStore, catalogue: Catalogue) -> list[Procedure]:
    """Return the procedures on this store. What a step finds is noted in `catalogue`."""
    # One attempt: a table that cannot be made is refused from memory at once, and tried again by the backoff of its key.
    shape = Procedure(SHAPE_KIND, attempts_max=1, timeout_s=TIMEOUT_S, needs=store.dependency)
    drop = Procedure(DROP_KIND, timeout_s=TIMEOUT_S, needs=store.dependency)

    @shape.step(name="shape")
    async def _shape(run: Run) -> list[str]:
        asked = {name: FieldType(value) for name, value in run.payload["fields"].items()}
        record = await store.shape(run.key, asked, fields_max=run.payload["fields_max"], retention_s=run.payload["retention_s"])
        catalogue.put(record)
        # The fields that the store has no room for.
        return sorted(asked.keys() - {field.name for field in record.fields})

    @drop.step(name="drop")
    async def _drop(run: Run) -> bool:
        there = await store.drop(run.key)
        catalogue.forget(run.key)
        return there

    return [shape, drop]
