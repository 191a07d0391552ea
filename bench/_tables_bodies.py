"""The bodies that the benches of tables write: lines as collectors send them, of any number of tables and series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIELDS = ("usage_user", "usage_system", "procs")
TIME_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000_000
AT_ONCE = 4
"""Bodies under way, over HTTP and as parsed rows: those of four collectors."""
FIRST = 5_000

Row = tuple[int, int, float, float, int]


@dataclass(frozen=True, slots=True)
class Body:
    """One body: its bytes, and the same points by table as `(series, time_ns, values)`; a series is a number from 0."""

    text: bytes
    by_table: dict[str, list[Row]]
    points: int


class Bodies:
    """Makes one body after the other: all points are new, each series in turn."""

    def __init__(self, tables: int, series: int, points: int) -> None:
        """Spread `points` a body over the tables; `series` is the number of all tables together."""
        self.tables = [f"cpu_{number}" for number in range(tables)]
        self._each = max(1, series // tables)
        self._points = points
        self._made = 0

    @property
    def series(self) -> int:
        """The series of each table."""
        return self._each

    def head(self, table: str, series: int) -> str:
        """Return the table and the tags of a series, as a line has them."""
        return f"{table},host=server{series:06},region=eu-{series % 4}"

    def tags(self, series: int) -> tuple[tuple[str, str], ...]:
        """Return the tags of a series."""
        return (("host", f"server{series:06}"), ("region", f"eu-{series % 4}"))

    def first(self) -> Iterator[bytes]:
        """Yield bodies with a point of each series, older than all others."""
        for table in self.tables:
            for begin in range(0, self._each, FIRST):
                numbers = range(begin, min(begin + FIRST, self._each))
                text = "\n".join(f"{self.head(table, number)} usage_user=1.0,usage_system=1.0,procs=1i 1" for number in numbers)
                yield text.encode()

    def make(self) -> Body:
        """Return the next body."""
        lines: list[str] = []
        by_table: dict[str, list[Row]] = {}
        for number in range(self._made, self._made + self._points):
            table = self.tables[number % len(self.tables)]
            turn, series = divmod(number // len(self.tables), self._each)
            time_ns = TIME_NS + turn * STEP_NS
            user, system, procs = number % 1000 / 8 + 0.25, number % 64 / 4 + 0.5, number % 500
            by_table.setdefault(table, []).append((series, time_ns, user, system, procs))
            lines.append(f"{self.head(table, series)} usage_user={user},usage_system={system},procs={procs}i {time_ns}")
        self._made += self._points
        return Body("\n".join(lines).encode(), by_table, self._points)


def together(bodies: Sequence[Body], count: int) -> list[dict[str, list[Row]]]:
    """Return the rows by table, of so many bodies at a time."""
    found: list[dict[str, list[Row]]] = []
    for begin in range(0, len(bodies), count):
        found.append({})
        for body in bodies[begin : begin + count]:
            for table, rows in body.by_table.items():
                found[-1].setdefault(table, []).extend(rows)
    return found
