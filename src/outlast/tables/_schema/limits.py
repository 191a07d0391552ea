"""The limits of tables, as decisions: *new refused, known accepted*. Pure: whoever asks says what there is, and the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.tables._schema.verdict import never

if TYPE_CHECKING:
    from collections.abc import Collection

    from outlast.tables._limits import TableLimits
    from outlast.tables._schema.verdict import PointsRefusal


def table_refusal(table: str, present: int, limits: TableLimits) -> PointsRefusal | None:
    """Return why one more table cannot be, beside `present` ones; None if it can."""
    if present < limits.tables_max:
        return None
    reason = f"table {table!r} would be one more than {limits.tables_max}: there are {present} tables (limit tables_max)"
    return never("tables_max", reason, "drop tables that nobody needs, or raise tables_max")


def fields_refusal(
    table: str, present: Collection[str], wanted: Collection[str], fields_max: int, *, setting: str = "fields_max"
) -> PointsRefusal | None:
    """Return why a table that has (or is about to get) the fields `present` cannot take the fields `wanted`; None if it can."""
    new = [field for field in wanted if field not in present]
    room = fields_max - len(present)
    if len(new) <= room:
        return None
    over = new[max(0, room)]
    reason = (
        f"field {over!r} of table {table!r} would be one more than {fields_max}: it has {len(present)} fields, and the point "
        f"brings {len(new)} new ones (limit {setting})"
    )
    return never("fields_max", reason, "write other things into other tables, or raise fields_max")


def tag_refusal(table: str, tag: str, value: str, limits: TableLimits) -> PointsRefusal:
    """Return the refusal of a point that would bring one value too many of a tag."""
    reason = (
        f"value {value!r} of tag {tag!r} of table {table!r} would be one more than {limits.tag_values_max} (limit tag_values_max)"
    )
    return never("tag_values_max", reason, "what differs with every point belongs into a field; or raise tag_values_max")


def time_bounds(now_ns: int, retention_s: float | None, future_s: float | None) -> tuple[int | None, int | None]:
    """Return the oldest and the newest time that a point may have now; None where there is no such bound."""
    oldest = None if retention_s is None else now_ns - round(retention_s * 1e9)
    newest = None if future_s is None else now_ns + round(future_s * 1e9)
    return oldest, newest


def old_refusal(table: str, time_ns: int, oldest_ns: int, retention_s: float) -> PointsRefusal:
    """Return the refusal of a point that would be deleted at once."""
    reason = f"time {time_ns} is before {oldest_ns}: table {table!r} keeps points for {retention_s:g} s"
    return never("retention", reason, "send newer points, or set a longer retention of the table")


def future_refusal(time_ns: int, newest_ns: int, future_s: float) -> PointsRefusal:
    """Return the refusal of a point from too far ahead."""
    reason = f"time {time_ns} is after {newest_ns}: at most {future_s:g} s ahead of the server's clock (limit future_s)"
    return never("future", reason, "look at the precision of the times and at the clock of the sender")
