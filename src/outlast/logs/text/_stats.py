"""Exact counts of a stream that was folded, and its greatest storms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast._core.redact import cut
from outlast.logs.text._summaries import clock, readable

if TYPE_CHECKING:
    from collections.abc import Hashable

    from outlast._core.fold import Summary

EXAMPLE_CHARS: Final = 120

STORMS_MAX: Final = 4096
"""The number of storms that a report knows; the smallest half is forgotten, with exact sums, when there are more."""


@dataclass(slots=True)
class Stats:
    """Counts over the life of a stream. Records are lines together with those that continue them.

    At every instant `records == shown + summarised + pending`.
    """

    lines: int = 0
    records: int = 0
    bytes_in: int = 0
    shown: int = 0
    summarised: int = 0
    pending: int = 0
    summaries: int = 0
    overlong_lines: int = 0
    """Lines too long to be looked at; they are passed on and counted nowhere else."""
    bytes_out: int = 0

    def text(self, seconds: float) -> str:
        """Return one line for a person."""
        folded = self.summarised + self.pending
        share = 100 * folded / self.records if self.records else 0.0
        rate = self.records / seconds if seconds > 0 else 0.0
        long = f", {self.overlong_lines} passed on for their length" if self.overlong_lines else ""
        return (
            f"{self.records} records ({self.lines} lines) in {seconds:.1f} s, {rate:,.0f}/s: {self.shown} shown, {folded} folded "
            f"({share:.1f} %) into {self.summaries} summaries{long}; {self.bytes_in} bytes in, {self.bytes_out} out"
        )


@dataclass(slots=True)
class Tally:
    """One storm in the report."""

    example: str
    folded: int
    first_at: float
    last_at: float


class Report:
    """Adds up summaries by key and lists the greatest storms, with rates and first and last times."""

    __slots__ = ("_forgotten", "_tallies", "forgotten_folded")

    def __init__(self) -> None:
        self._tallies: dict[Hashable, Tally] = {}
        self._forgotten = 0
        self.forgotten_folded = 0

    def add(self, summary: Summary) -> None:
        """Add the counts of a summary."""
        tally = self._tallies.get(summary.key)
        if tally is None:
            if len(self._tallies) >= STORMS_MAX:
                self._forget_half()
            tally = self._tallies[summary.key] = Tally(readable(summary.example), 0, summary.first_at, summary.last_at)
        tally.folded += summary.count
        tally.last_at = summary.last_at

    def top(self, number: int = 10) -> list[Tally]:
        """Return the storms of which most was folded."""
        return sorted(self._tallies.values(), key=lambda tally: -tally.folded)[:number]

    def text(self, wall_offset_s: float, number: int = 10) -> str:
        """Return the greatest storms as a table for a person."""
        rows = [f"{'folded':>12} {'a second':>10} {'first':<9} {'last':<9} record"]
        for tally in self.top(number):
            lasted_s = max(tally.last_at - tally.first_at, 1e-3)
            first, last = (clock(at + wall_offset_s) for at in (tally.first_at, tally.last_at))
            rows.append(
                f"{tally.folded:>12} {tally.folded / lasted_s:>10,.1f} {first:<9} {last:<9} {cut(tally.example, EXAMPLE_CHARS)}"
            )
        if len(self._tallies) + self._forgotten > number:
            rest = sum(tally.folded for tally in self._tallies.values()) - sum(tally.folded for tally in self.top(number))
            rows.append(f"{rest + self.forgotten_folded:>12} in {len(self._tallies) + self._forgotten - number} more storms")
        return "\n".join(rows)

    def _forget_half(self) -> None:
        by_size = sorted(self._tallies.items(), key=lambda item: item[1].folded)
        for key, tally in by_size[: len(by_size) // 2]:
            self.forgotten_folded += tally.folded
            self._forgotten += 1
            del self._tallies[key]
