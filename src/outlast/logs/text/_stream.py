"""Fold a stream of bytes: bytes in, bytes out, the time given. No input or output, no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast._core.fold import Fold, FoldPolicy
from outlast.logs.text._fields import by_fields
from outlast.logs.text._keys import Keys, MayContinue
from outlast.logs.text._records import Batch, Records
from outlast.logs.text._stats import Report, Stats
from outlast.logs.text._summaries import example_of, last_lines, line

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast._core.fold import Summary
    from outlast.logs.text._keys import Found, LineKind

KEYS_MAX: Final = 50_000
"""The number of storms that a stream has by name unless the options say otherwise: at most 40 MB."""

HOLD_S: Final = 0.1
"""A record is held this long for a line that continues it."""

CRITICAL: Final = re.compile(rb"\bCRITICAL\b|(?i:\b(?:level|severity|lvl)\b\"?\s?[:=]\s?\"?critical)")
"""Matches keys that are never folded away, whatever the options."""


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Options of one fold. The defaults are those of `outlast logs fold`."""

    policy: FoldPolicy = field(default_factory=lambda: FoldPolicy(keys_max=KEYS_MAX))
    key_fields: tuple[str, ...] = ()
    """If any: the fields of JSON or logfmt that make the key, instead of the whole line."""
    never_fold: str | None = None
    """A regular expression; what matches is always shown. It is matched against the key, in which masked parts are \\x1a."""
    summaries_as: str | None = None
    """"text", "json" or "logfmt"; None: as the storm's first record is written."""


class TextFold:
    """Folds one stream. Not safe for threads.

    `feed`, `due` and `end` return the bytes to be written. Order is kept, the first of a kind is always among them, and
    the others are counted. `folded`, if it is set, gets every folded record: without its newline, in order.

    If `feed`, `due` or `end` raises, nothing is lost: pass on `unsaid()` and then the data. Some of it may be counted.
    """

    def __init__(
        self,
        options: TextOptions = TextOptions(),
        *,
        wall_offset_s: float = 0.0,
        folded: Callable[[list[bytes]], None] | None = None,
    ) -> None:
        never = re.compile(options.never_fold.encode()) if options.never_fold else None
        self._options = options
        self._wall_offset_s = wall_offset_s
        self._folded = folded
        self._records = Records()
        self._keys = Keys(
            select=by_fields(options.key_fields) if options.key_fields else None,
            always=lambda key: bool(CRITICAL.search(key) or (never and never.search(key))),
        )
        self._fold = Fold(options.policy)
        self._stats = Stats()
        self._always_shown = 0
        self._fed_at = float("-inf")
        self.report = Report()

    @property
    def stats(self) -> Stats:
        """The exact counts at this instant."""
        totals = self._fold.totals
        stats = self._stats
        stats.records = totals.seen + self._always_shown
        stats.shown = totals.shown + self._always_shown
        stats.summarised, stats.pending = totals.summarised, totals.pending
        stats.overlong_lines = self._records.overlong_lines
        return stats

    def unsaid(self) -> bytes:
        """Return the bytes that came and were neither returned nor counted yet."""
        return self._records.held

    def feed(self, data: bytes, now: float) -> bytes:
        """Take what came; return what is to be written."""
        before = self._records.held, self._records.overlong
        try:
            passed, rest = self._records.skip(data)
            batch = self._records.feed(rest)
            out = self._write(batch, now)
        except BaseException:
            self._records.held, self._records.overlong = before
            raise
        self._fed_at = now
        self._stats.bytes_in += len(data)
        return self._wrote(b"".join((passed, out, batch.raw)))

    def next_due_at(self) -> float | None:
        """Return when `due` is to be called; None while there is nothing to wait for."""
        at = self._fold.next_due_at()
        if b"\n" not in self._records.held:
            return at
        held_until = self._fed_at + HOLD_S
        return held_until if at is None else min(at, held_until)

    def due(self, now: float) -> bytes:
        """Return what time makes due: a record that nothing continued for `HOLD_S`, and reminders."""
        out = self._flush(now) if now >= self._fed_at + HOLD_S else b""
        return out + self._wrote(self._say(self._fold.due(now), now))

    def _flush(self, now: float) -> bytes:
        before = self._records.held
        try:
            return self._wrote(self._write(self._records.flush(), now))
        except BaseException:
            self._records.held = before
            raise

    def end(self, now: float) -> bytes:
        """End the stream: return all that is held, and a summary of all that is pending."""
        out = self._flush(now)
        last = self._records.rest()
        shown = b""
        if last:
            shown = self._write(Batch(pieces=[last]), now).removesuffix(b"\n")
        said = self.say_pending(now)
        return out + self._wrote(shown + (b"\n" if shown and said else b"")) + said

    def say_pending(self, now: float) -> bytes:
        """Return a summary of all that is pending, and nothing of what is held."""
        summaries = self._noted(self._fold.end(now))
        return self._wrote(last_lines(summaries, now, self._wall_offset_s, self._options.summaries_as))

    def _wrote(self, out: bytes) -> bytes:
        self._stats.bytes_out += len(out)
        return out

    def _write(self, batch: Batch, now: float) -> bytes:
        """Count the records of a batch; return those that are to be shown, each with its newline."""
        try:
            found = self._keys.count(batch)
        except MayContinue:
            batch = self._records.regroup(batch)
            found = self._keys.count(batch)
        shown: list[bytes] = []
        more: dict[LineKind, int] = {}
        folded = False
        came = 0
        for kind, record in found:
            count, kind.count = kind.count, 0
            came += count
            show = count if kind.always else self._fold.seen(kind.key, now, count, example_of(record))
            if kind.always:
                self._always_shown += count
            if show:
                shown.append(record)
                if show > 1:
                    more[kind] = show
            folded = folded or show < count
        self._stats.lines += came
        if batch.joined is None:
            self._stats.lines += sum(record.count(b"\n") for record in batch.records)
        if not folded:
            shown = batch.records
        elif more:
            shown = self._in_order(batch, found, shown, more)
        if folded and self._folded is not None:
            self._folded(_without(batch.records, shown))
        return b"\n".join([*shown, b""])

    def _in_order(self, batch: Batch, found: Found, firsts: list[bytes], more: dict[LineKind, int]) -> list[bytes]:
        """Pick the records to be shown in the order in which they came, where these are more than the first of each kind."""
        left = dict.fromkeys((kind for kind, _ in found), 0)
        ones = set(firsts)
        left.update({kind: 1 for kind, record in found if record in ones})
        left.update(more)
        shown: list[bytes] = []
        for record in batch.records:
            kind = self._keys.kind_of(record)
            if left[kind]:
                left[kind] -= 1
                shown.append(record)
        return shown

    def _say(self, summaries: list[Summary], now: float) -> bytes:
        return b"".join(line(summary, now, self._wall_offset_s, self._options.summaries_as) for summary in self._noted(summaries))

    def _noted(self, summaries: list[Summary]) -> list[Summary]:
        for summary in summaries:
            self.report.add(summary)
        self._stats.summaries += len(summaries)
        return summaries


def _without(records: list[bytes], shown: list[bytes]) -> list[bytes]:
    """Return the records that are not shown. `shown` is a part of `records` in the same order."""
    if not shown:
        return records
    rest: list[bytes] = []
    waiting = iter(shown)
    following = next(waiting, None)
    for record in records:
        if record == following:
            following = next(waiting, None)
        else:
            rest.append(record)
    return rest
