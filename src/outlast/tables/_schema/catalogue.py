"""The tables as this process knows them: what is known asks nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.tables._schema.plan import Plan, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.tables._model import FieldType, TableRecord

PLANS_MAX: Final = 256
"""Sets of fields of one table whose plans are kept. Beyond them all are made again."""


class Known:
    """A table as this process knows it: the same object for as long as it is the same table, whatever fields it gets.

    What is said of it by identity (`Series.of`) holds until it is dropped.
    """

    __slots__ = ("_plans", "full_tags", "full_until", "record", "types")

    def __init__(self, record: TableRecord) -> None:
        self.record = record
        self.types: dict[str, FieldType] = {}
        self.full_until = 0.0
        """Until then the store is taken to have no room for another field, on the clock of the event loop."""
        self.full_tags: dict[str, FullTag] = {}
        self._plans: dict[tuple[str, ...], list[tuple[tuple[FieldType, ...], Plan]]] = {}
        self.put(record)

    def put(self, record: TableRecord) -> None:
        """Take note of how it is now."""
        self.record = record
        self.types = {field.name: field.type for field in record.fields}
        self._plans.clear()

    def plan(self, fields: tuple[str, ...], types: tuple[FieldType, ...]) -> Plan:
        """Return the plan for rows of this shape."""
        # Types are compared and not hashed: the hash of a member of an Enum is a function of Python's.
        of_fields = self._plans.get(fields)
        if of_fields is not None:
            for known, plan in of_fields:
                if known == types:
                    return plan
        plan = plan_of(self.record.name, self.types, fields, types)
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        self._plans.setdefault(fields, []).append((types, plan))
        return plan


class FullTag:
    """A tag that has as many values as it may: those that it has, and until when that is believed."""

    __slots__ = ("until", "values")

    def __init__(self, values: frozenset[str], until: float) -> None:
        self.values = values
        self.until = until


class Catalogue:
    """All tables that this process knows of. As many as the store has: it is their number that is bounded."""

    def __init__(self) -> None:
        self._tables: dict[str, Known] = {}
        self.get = self._tables.get
        """Return what is known of the table of a name; None if nothing is."""

    def __len__(self) -> int:
        return len(self._tables)

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._tables.values()))

    def put(self, record: TableRecord) -> Known:
        """Take note of a table as the store has it now."""
        known = self._tables.get(record.name)
        if known is None or known.record.id != record.id:
            known = self._tables[record.name] = Known(record)
        elif known.record != record:
            known.put(record)
        return known

    def forget(self, name: str) -> None:
        """Take note that there is no table of this name."""
        self._tables.pop(name, None)

    def told(self, name: str, record: TableRecord | None) -> Known | None:
        """Take note of the answer to a look for one table."""
        if record is not None:
            return self.put(record)
        self.forget(name)
        return None
