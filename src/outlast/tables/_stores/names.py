"""The names of tables and fields in a store, and the fields that a table gets: pure, and one for all stores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast.tables._limits import FIELDS_LIMIT
from outlast.tables._model import FieldRecord, FieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

STORED_BYTES_MAX: Final = 63
"""PostgreSQL cuts what is longer (NAMEDATALEN is 64, with the byte that ends it)."""
HASH_DIGITS: Final = 8
RESERVED_PREFIXES: Final = ("outlast_", "sqlite_", "pg_")
"""Of tables of ours, and of those that the stores keep for themselves; in capitals too."""
RESERVED_COLUMNS: Final = frozenset({"series", "time", "tableoid", "ctid", "xmin", "cmin", "xmax", "cmax"})
"""Those of every table of ours, and the system columns of PostgreSQL; in capitals too."""
_NUMBERS: Final = frozenset({FieldType.INTEGER, FieldType.FLOAT, FieldType.NUMBER})


def ascii_folded(name: str) -> str:
    """Return what SQLite compares names by: it knows no capitals but those of ASCII."""
    return name.encode("utf-8").lower().decode("utf-8")


def exact(name: str) -> str:
    """Return the name: PostgreSQL compares quoted names as they are."""
    return name


def stored_table(name: str, is_free: Callable[[str], bool]) -> str:
    """Return the name that a table gets in the store; `is_free` says whether no other table of ours has a name there.

    It is the same for the same name and the same tables, in every process.
    """
    return _stored(name, is_free, is_reserved=ascii_folded(name).startswith(RESERVED_PREFIXES))


def stored_field(name: str, is_free: Callable[[str], bool]) -> str:
    """Return the name of the column of a field; `is_free` says whether no other field of the table has it."""
    return _stored(name, is_free, is_reserved=ascii_folded(name) in RESERVED_COLUMNS)


def _stored(name: str, is_free: Callable[[str], bool], *, is_reserved: bool) -> str:
    is_plain = len(name.encode("utf-8")) <= STORED_BYTES_MAX and "\0" not in name
    if is_plain and not is_reserved and is_free(name):
        return name
    # A reserved prefix must not come first in what stands for it, and no name has a NUL.
    start = ("_" if is_reserved else "") + name.replace("\0", "_")
    start = start.encode("utf-8")[: STORED_BYTES_MAX - HASH_DIGITS - 1].decode("utf-8", "ignore")
    hashed = name
    while True:
        stored = f"{start}~{hashlib.sha256(hashed.encode('utf-8')).hexdigest()[:HASH_DIGITS]}"
        if is_free(stored):
            return stored
        hashed += "~"


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """The fields of a table after a shape, and what makes them."""

    fields: tuple[FieldRecord, ...]
    """All that it has then, in the order of the catalogue."""
    added: tuple[FieldRecord, ...]
    widened: tuple[FieldRecord, ...]
    """Those that become NUMBER, as they are then."""


def plan_fields(
    present: Sequence[FieldRecord],
    wanted: Mapping[str, FieldType],
    fields_max: int,
    fold: Callable[[str], str],
    taken: Iterable[str] = (),
) -> FieldPlan:
    """Return the fields of a table that has `present` and shall have `wanted`, up to `fields_max` (and FIELDS_LIMIT).

    `fold` returns what the store compares names by. `taken` has columns that are there beside those of fields, such as one that
    somebody added by hand: no new field gets one of them. A conflict of types leaves a field as it is.
    """
    fields = {field.name: field for field in present}
    columns = _Columns((*taken, *(field.stored for field in present)), fold)
    added: list[str] = []
    widened: list[str] = []
    for name, kind in wanted.items():
        field = fields.get(name)
        if field is None:
            if len(fields) < min(fields_max, FIELDS_LIMIT):
                fields[name] = FieldRecord(name, columns.take(name), kind)
                added.append(name)
        elif field.type is not kind and field.type is not FieldType.NUMBER and {field.type, kind} <= _NUMBERS:
            fields[name] = FieldRecord(name, field.stored, FieldType.NUMBER)
            widened.append(name)
    return FieldPlan(tuple(fields.values()), tuple(fields[name] for name in added), tuple(fields[name] for name in widened))


class _Columns:
    """Names of columns that are taken."""

    def __init__(self, taken: Iterable[str], fold: Callable[[str], str]) -> None:
        self._taken = {fold(name) for name in taken}
        self._fold = fold

    def take(self, name: str) -> str:
        stored = stored_field(name, lambda column: self._fold(column) not in self._taken)
        self._taken.add(self._fold(stored))
        return stored
