"""Plans: how the fields and the time of lines of one shape are read at once, by one pattern."""

from __future__ import annotations

import re
import sys
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast.tables._lines.recent import Recent
from outlast.tables._model import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable

SEEN_MIN: Final = 16
"""Lines of a shape before a pattern is made for it: that costs as much as to read some 20 lines without one."""
FIELDS_MAX: Final = 200
"""The fields of the widest shape that gets a pattern."""
TRIED_MAX: Final = 8
"""Patterns of one table that are tried on a line."""
NAMES_CHARACTERS_MAX: Final = 16_384
"""The names of a shape that is remembered."""
SHAPES_KEPT: Final = 20_000
TABLES_KEPT: Final = 20_000
PATTERN_BYTES_MAX: Final = 64 * 2**20
"""The memory of all patterns; beyond it the oldest is forgotten."""

TYPES: Final = {
    "f": FieldType.FLOAT,
    "i": FieldType.INTEGER,
    "u": FieldType.INTEGER,
    "s": FieldType.STRING,
    "b": FieldType.BOOLEAN,
}
# Each takes only what is in range without a further look: at most 18 digits are an integer of 64 bits, 40 digits and an exponent
# of two a finite float, 16,383 characters a string of 65,535 bytes. What else there is goes the slow way. A float of several
# points or signs is found out by `float`.
_PATTERNS: Final = {
    "f": r"([-0-9.]{1,40}+(?:[eE][-+]?[0-9]{1,2})?+)",
    "i": r"(-?[0-9]{1,18}+)i",
    "u": r"([0-9]{1,18}+)u",
    "s": r'"([^"\\\x00\ud800-\udfff]{0,16383}+)"',
    "b": r"(t(?:rue)?+|T(?:rue|RUE)?+|f(?:alse)?+|F(?:alse|ALSE)?+)",
}
_NEVER: Final = -(2**60)
_ESCAPED: Final = re.compile(r'[\\,"= ]').search
_TIME: Final = r"(?: (-?[0-9]{1,19}+))?+"
_MADE: Final = {"f": "float(g[{0}])", "i": "int(g[{0}])", "u": "int(g[{0}])", "s": "g[{0}]", "b": "g[{0}][0] in 'tT'"}

Match: TypeAlias = "Callable[[str], re.Match[str] | None]"
Row: TypeAlias = "Callable[[Any, int | None, tuple[str, ...]], list[Any]]"


def _no_match(_text: str) -> None:
    """Match nothing, as the pattern of a shape that has none."""


class Plan:
    """A shape as lines have it: names and kinds in their order. `match` reads fields and time, `row` makes the row of them.

    `base` is the plan whose rows are of the same shape: integers with and without a sign are of one type.
    """

    __slots__ = ("base", "kinds", "match", "names", "row", "seen", "table", "types")

    def __init__(self, table: str, names: tuple[str, ...], kinds: str, base: Plan | None = None) -> None:
        self.table: Final = table
        self.names: Final = names
        self.kinds: Final = kinds
        self.types: Final = tuple(TYPES[kind] for kind in kinds)
        self.base: Final = base or self
        self.match: Match = _no_match
        self.row: Row = _no_row
        self.seen = 0


class Tried:
    """The plans of one table that have a pattern: `last`, which fitted the last line, and up to eight with it.

    Any thread may change it while another reads: what was read of it together is kept in local names.
    """

    __slots__ = ("last", "plans")

    def __init__(self) -> None:
        self.last = NO_PLAN
        self.plans: tuple[Plan, ...] = ()

    def find(self, text: str) -> tuple[Plan, re.Match[str] | None]:
        """Try all on fields and time; the one that fits is `last` then."""
        for plan in self.plans:
            if (found := plan.match(text)) is not None:
                self.last = plan
                return plan, found
        return NO_PLAN, None


class Plans:
    """All plans of a parser, bounded by their number and the memory of their patterns."""

    def __init__(self) -> None:
        self._shapes: Final = Recent[tuple[str, tuple[str, ...], str], Plan](SHAPES_KEPT)
        self._tables: Final = Recent[str, Tried](TABLES_KEPT)
        self._compiled: Final = deque[tuple[Plan, int]]()
        self._bytes = 0

    def tried(self, table: str) -> Tried:
        """Return what is tried on the lines of a table."""
        found = self._tables.get(table)
        if found is None:
            found = Tried()
            self._tables.put(table, found)
        return found

    def of(self, table: str, names: tuple[str, ...], kinds: str) -> Plan:
        """Return the plan of a shape."""
        key = (table, names, kinds)
        plan = self._shapes.get(key)
        if plan is None:
            base = self.of(table, names, kinds.replace("u", "i")) if "u" in kinds else None
            plan = Plan(table, names, kinds, base)
            if sum(map(len, names)) <= NAMES_CHARACTERS_MAX:
                self._shapes.put(key, plan)
        return plan

    def note(self, plan: Plan, tried: Tried) -> None:
        """Count a line that was read the slow way; a plan of which there are many gets a pattern, which is tried from now on."""
        plan.seen += 1
        if plan.seen >= SEEN_MIN and plan.match is _no_match:
            self._compile(plan)
        if plan.match is not _no_match and plan not in tried.plans:
            tried.plans = (plan, *(other for other in tried.plans if other.match is not _no_match))[:TRIED_MAX]
            tried.last = plan

    def _compile(self, plan: Plan) -> None:
        if len(plan.names) > FIELDS_MAX or any(map(_ESCAPED, plan.names)):
            plan.seen = _NEVER
            return
        fields = ",".join(f"{re.escape(name)}={_PATTERNS[kind]}" for name, kind in zip(plan.names, plan.kinds, strict=True))
        pattern = re.compile(fields + _TIME)
        plan.row = _row_of(plan.kinds)
        plan.match = pattern.fullmatch
        size = sys.getsizeof(pattern)
        self._compiled.append((plan, size))
        self._bytes += size
        while self._bytes > PATTERN_BYTES_MAX and self._compiled:
            oldest, freed = self._compiled.popleft()
            oldest.match, oldest.seen = _no_match, 0
            self._bytes -= freed


@lru_cache(maxsize=1_000)
def _row_of(kinds: str) -> Row:
    """Return what makes a row of the texts that a pattern found: a call for each field would double the cost of a short line."""
    values = ", ".join(_MADE[kind].format(place) for place, kind in enumerate(kinds))
    made: Row = eval(f"lambda series, time_ns, g: [series, time_ns, {values}]", {"float": float, "int": int})  # noqa: S307 - of our own words alone
    return made


def _no_row(_series: object, _time_ns: int | None, _found: tuple[str, ...]) -> list[Any]:
    raise NotImplementedError


NO_PLAN: Final = Plan("", (), "")
