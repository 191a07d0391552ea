"""The outcomes of the points of one body, put together as they become known."""

from __future__ import annotations

from collections import Counter
from heapq import nsmallest
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from outlast.tables._model import PointOutcome, PointRefusal, Written
from outlast.tables._schema.verdict import RETRY_S, PointsRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outlast.tables._model import Parsed
    from outlast.tables._writing.tally import Tally

TEXT_CHARACTERS_MAX: Final = 200
REFUSED_MAX: Final = 1_000
"""Refusals that are returned, the first by their places; all are counted."""
COMES_BACK: Final = frozenset({PointOutcome.LATER, PointOutcome.PERSON})


class Outcomes:
    """The refusals of one body. Points that were not refused are stored."""

    def __init__(self, parsed: Parsed) -> None:
        seen = sum([len(rows.rows) for rows in parsed.rows]) + len(parsed.refused)
        self.points = max(parsed.points, seen)
        self._parsed = parsed.refused
        self._source = parsed.source
        self._unlisted = self.points - seen
        """Bad lines beyond those that the parser listed."""
        self._refused: list[tuple[Sequence[int], PointsRefusal]] = []

    def __bool__(self) -> bool:
        """Return whether anything was refused."""
        return bool(self._parsed or self._refused or self._unlisted)

    @property
    def refused(self) -> int:
        """The number of points that were refused."""
        return len(self._parsed) + self._unlisted + sum(len(places) for places, _ in self._refused)

    def refuse(self, places: Sequence[int], refusal: PointsRefusal) -> None:
        """Refuse the points with these places."""
        if places:
            self._refused.append((places, refusal))

    def written(self, tally: Tally) -> Written:
        """Return the fate of the body, and count it."""
        if not self:
            tally.points["stored"] += self.points
            return Written(self.points, self.points)
        counts = self._counts(tally)
        return self._written(self.points - sum(counts.values()), counts, tally)

    def none(self, tally: Tally) -> Written:
        """Return the fate of a body of which nothing is stored since something of it was refused, and count it.

        The points that are stored only with the others are counted with them: as NEVER, unless all the others may come back.
        """
        counts = self._counts(tally)
        left = self.points - sum(counts.values())
        if left:
            outcomes = [each for each in PointOutcome if each in counts]
            counts[outcomes[0]] += left
            tally.refusals["whole"] += left
        return self._written(0, counts, tally)

    def _counts(self, tally: Tally) -> Counter[PointOutcome]:
        counts: Counter[PointOutcome] = Counter()
        for refused in self._parsed:
            counts[refused.outcome] += 1
            tally.refusals[refused.fault.code] += 1
        if self._unlisted:
            counts[PointOutcome.NEVER] += self._unlisted
            tally.refusals[self._parsed[-1].fault.code if self._parsed else "line"] += self._unlisted
        for places, (outcome, fault) in self._refused:
            counts[outcome] += len(places)
            tally.refusals[fault.code] += len(places)
        return counts

    def _written(self, stored: int, counts: Counter[PointOutcome], tally: Tally) -> Written:
        tally.points["stored"] += stored
        for outcome, count in counts.items():
            tally.points[outcome.value] += count
        waits = [refusal.fault.retry_after_s or RETRY_S for _, refusal in self._refused if refusal.outcome in COMES_BACK]
        waits += [each.fault.retry_after_s or RETRY_S for each in self._parsed if each.outcome in COMES_BACK]
        return Written(self.points, stored, tuple(self._each()), dict(counts), max(waits, default=None))

    def _each(self) -> list[PointRefusal]:
        """Return the first refusals by their places, with the lines where there are any."""
        first = nsmallest(REFUSED_MAX, self._places(), key=itemgetter(0))
        # The body is divided only here, where something of it was refused.
        lines = self._source.split(b"\n") if self._source and self._refused else []
        return [refused or PointRefusal(place, *refusal, _text_of(lines, place)) for place, refused, refusal in first]

    def _places(self) -> Iterator[tuple[int, PointRefusal | None, PointsRefusal]]:
        for refused in self._parsed:
            yield refused.place, refused, PointsRefusal(refused.outcome, refused.fault)
        for places, refusal in self._refused:
            for place in places:
                yield place, None, refusal


def _text_of(lines: list[bytes], place: int) -> str:
    """Return a line as a refusal shows it; places count from 1 in lines."""
    if not 1 <= place <= len(lines):
        return ""
    # Cut before it is decoded: a line may be of any length, and a character has 4 bytes at most.
    return lines[place - 1][: 4 * TEXT_CHARACTERS_MAX].decode("utf-8", "replace").rstrip("\r")[:TEXT_CHARACTERS_MAX]
