"""Points as a picture in a terminal: one line for each field of each series."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from outlast.tables import ReadPoint

BARS: Final = "▁▂▃▄▅▆▇█"
LINES_MAX: Final = 100
"""Lines of a picture; more than that nobody looks at."""


@dataclass(slots=True)
class Line:
    """One field of one series, as sums by stretch of time."""

    name: str
    sums: list[float]
    counts: list[int]
    least: float = float("inf")
    most: float = float("-inf")
    last: float = 0.0

    def add(self, place: int, value: float) -> None:
        """Add a value to the stretch at `place`."""
        self.sums[place] += value
        self.counts[place] += 1
        self.least, self.most, self.last = min(self.least, value), max(self.most, value), value

    def means(self) -> list[float | None]:
        """Return the mean of each stretch; None where there was nothing."""
        return [total / count if count else None for total, count in zip(self.sums, self.counts, strict=True)]


@dataclass(slots=True)
class Picture:
    """Lines over the same stretch of time, `start_ns` and `end_ns` included."""

    start_ns: int
    end_ns: int
    width: int
    lines: dict[tuple[object, str], Line] = field(default_factory=dict[tuple[object, str], Line])
    points: int = 0
    left_out: int = 0
    """Values that would have begun one line too many."""

    def add(self, point: ReadPoint) -> None:
        """Add the numbers of a point; booleans are 0 and 1, and texts are no picture."""
        self.points += 1
        place = (point.time_ns - self.start_ns) * self.width // (self.end_ns - self.start_ns + 1)
        for name, value in point.fields.items():
            if isinstance(value, str):
                continue
            line = self.lines.get((point.tags, name))
            if line is None:
                if len(self.lines) == LINES_MAX:
                    self.left_out += 1
                    continue
                tags = ",".join(f"{tag}={text}" for tag, text in point.tags)
                line = Line(f"{name}{{{tags}}}" if tags else name, [0.0] * self.width, [0] * self.width)
                self.lines[point.tags, name] = line
            line.add(place, float(value))


def bars(values: Sequence[float | None]) -> str:
    """Return a bar for each value, from the least to the largest of them; a blank where there is none."""
    there = [value for value in values if value is not None]
    if not there:
        return " " * len(values)
    least, most = min(there), max(there)
    # Halved first: the difference of two doubles may be more than the largest.
    span = most / 2 - least / 2
    top = len(BARS) - 1
    return "".join(" " if value is None else BARS[round((value / 2 - least / 2) / span * top) if span else 0] for value in values)


async def drawn(points: AsyncIterator[ReadPoint], picture: Picture) -> Picture:
    """Add points to a picture as they come."""
    async for point in points:
        picture.add(point)
    return picture
