"""The numbers of this process, since it began."""

from __future__ import annotations

from collections import Counter


class Tally:
    """Counts, each of them changed on the event loop's thread, and read from any."""

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()
        """Points by outcome."""
        self.refusals: Counter[str] = Counter()
        """Points that were refused, by the code of the fault."""
        self.bodies_refused: Counter[str] = Counter()
        """Bodies of which nothing was taken, by the code of the fault."""
        self.commits = 0
        self.rows = 0
        """Rows that were written: points after the fold."""
        self.lost = 0
        """Points that were acknowledged before they were durable, as their sender had asked, and then could not be written."""
        self.given_up = 0
        """Points that nobody waited for any more before they were written."""
        self.expired = 0
        """Points that were deleted for their age."""
