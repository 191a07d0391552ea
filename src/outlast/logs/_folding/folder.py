"""A fold with a lock, a clock and a timer: what the foldings of the Python loggers share."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from outlast._core.fold import Fold, What
from outlast.logs._delivery import report
from outlast.logs._folding.forked import remember
from outlast.logs._folding.sameness import RecordKind
from outlast.logs._last_words import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from outlast._core.fold import Storm, Summary, Totals
    from outlast.logs._folding.options import FoldOptions

POLL_S: Final = 1.0
"""While a storm is open the timer looks at the schedule this often: a record that is folded needs to wake nobody."""
JOIN_S: Final = 2.0
"""The time that `close` waits for a summary that is being written."""


WORDS: Final = {
    What.REMINDER: "goes on",
    What.QUIET: "quiet since",
    What.RESOLVED: "resolved",
    What.OTHERS: "and others, too many different ones to name",
}


class Folder:
    """Decides which records pass, and hands summaries to `say` when they are due. Safe for threads.

    `say` is called without the lock, in the thread of the timer, or in that of `due` and `close`. What it raises is
    passed to `threading.excepthook` and stops nothing; the summary goes to standard error instead. The timer is one daemon
    thread that starts with the first record and sleeps while no storm is open. `close` is called at exit, so that what is
    pending is said.

    In a child after a fork the counts start from nothing: what was pending is said by the parent.
    """

    def __init__(
        self,
        options: FoldOptions,
        say: Callable[[Summary], None],
        *,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Fold by `options`; which records these mean is the caller's business."""
        self._on_close = on_close
        self.clock = options.clock
        self.is_closed = False
        self._say = say
        self._incidents = tuple(options.incidents)
        self._wants_timer = options.timer
        self.fold = Fold(options.policy)
        # Reentrant: a record may be logged by a destructor that runs while this thread holds the lock.
        self.lock = threading.RLock()
        self._wake = threading.Event()
        self._is_idle = options.timer
        self._thread: threading.Thread | None = None
        self.passes = self._decide()
        remember(self)
        atexit.register(self.close)

    def begin_again(self) -> None:
        """Begin again in a child after a fork: what is pending is said by the parent, and there is no thread."""
        self.lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001  # as threading does with its own locks
        self.fold.end(self.clock())
        self._wake = threading.Event()
        self._is_idle = self._wants_timer
        self._thread = None

    def _decide(self) -> Callable[[RecordKind], bool]:
        """Make the function that counts one record of a kind and returns whether it is to be shown: all its names are local.

        A caller may hold the lock and count in `kind.storm` instead, as that says.
        """
        fold, clock, acquire, release, released = (
            self.fold,
            self.clock,
            self.lock.acquire,
            self.lock.release,
            self.release_if_owned,
        )

        def passes(kind: RecordKind) -> bool:
            now = clock()
            try:
                # A third of what `with` costs.
                acquire()
                shown = self.is_closed or fold.seen(kind.key, now, 1, kind)
                kind.storm = fold.storm(kind.key) or kind.storm
                release()
            except BaseException:
                # A signal's exception may come between any two of these lines.
                released()
                raise
            if not shown:
                return False
            if self._is_idle or self._incidents:
                self._shown(kind)
            return True

        return passes

    def takes_room(self, storm: Storm) -> bool:
        """Count one record that the burst of an open storm has room for; return False if another thread was quicker."""
        now = self.clock()
        with self.lock:
            if not storm.room:
                return False
            storm.room -= 1
            storm.shown += 1
            storm.last_at = now
            return True

    def release_if_owned(self) -> None:
        """Release the lock if this thread holds it, for callers who were interrupted at an unknown line."""
        with contextlib.suppress(RuntimeError):
            self.lock.release()

    def _shown(self, kind: RecordKind) -> None:
        kind.incident = self._open_incident()
        if not self._is_idle:
            return
        with self.lock:
            self._is_idle = False
            if self._thread is None and not self.is_closed:
                self._thread = threading.Thread(target=self._run, name="outlast-log-fold", daemon=True)
                self._thread.start()
        self._wake.set()

    @property
    def totals(self) -> Totals:
        """Exact counts of what was seen, shown, summarised and is pending, at this instant."""
        with self.lock:
            return self.fold.totals

    def is_open(self, key: str) -> bool:
        """Return whether a storm of `key` is open."""
        return key in self.fold

    def resolve(self, key: str) -> bool:
        """Say that the storm of `key` is resolved; return whether one was open."""
        with self.lock:
            summary = self.fold.resolve(key, self.clock())
        if summary is not None:
            self._tell([summary])
        return summary is not None

    def due(self) -> None:
        """Hand over the summaries that are due."""
        now = self.clock()
        with self.lock:
            at = self.fold.next_due_at()
            summaries = self.fold.due(now) if at is not None and at <= now else []
        self._tell(summaries)

    def close(self) -> None:
        """Hand over what is pending, and end the timer. Records pass from now on. May be called again."""
        with self.lock:
            self.is_closed = True
            summaries = self.fold.end(self.clock())
        self._wake.set()
        atexit.unregister(self.close)
        self._on_close()
        self._tell(summaries)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)

    def _run(self) -> None:
        while not self.is_closed:
            with self.lock:
                at = self.fold.next_due_at()
                self._is_idle = at is None
                self._wake.clear()
            if self.is_closed:  # Said between the question and the clearing.
                return  # type: ignore[unreachable]  # mypy does not know of other threads
            self._wake.wait(None if at is None else max(0.0, min(POLL_S, at - self.clock())))
            self.due()

    def _tell(self, summaries: list[Summary]) -> None:
        for summary in summaries:
            try:
                if self._incidents and isinstance(summary.example, RecordKind):
                    summary.example.incident = self._open_incident() or summary.example.incident
                self._say(summary)
            except Exception as failed:  # noqa: BLE001  # a summary that cannot be written stops nothing
                report(failed)
                # Its count must not be lost with it.
                say(f"outlast: {tell(summary)} [could not be logged: {type(failed).__name__}]")

    def _open_incident(self) -> str | None:
        said = [said for incident in self._incidents if (said := incident.summary()) is not None]
        return "; ".join(said) or None

    def fields(self, summary: Summary) -> dict[str, object]:
        """Return the structured fields of a summary. `outlast.since` is a date with time zone, ISO 8601."""
        since_s = self.clock() - summary.first_at
        since = datetime.fromtimestamp(time.time() - since_s, UTC)
        fields: dict[str, object] = {
            "outlast.key": summary.key,
            "outlast.count": summary.count,
            "outlast.total": summary.total,
            "outlast.since": since.isoformat(timespec="milliseconds"),
            "outlast.since_s": round(since_s, 3),
            "outlast.what": summary.what.value,
            "outlast.over": summary.over,
        }
        if isinstance(summary.example, RecordKind) and summary.example.incident is not None:
            fields["outlast.incident"] = summary.example.incident
        return fields


def tell(summary: Summary) -> str:
    """Return a summary as a sentence: what it is about, then the counts in brackets."""
    about = summary.example.text if isinstance(summary.example, RecordKind) else str(summary.key)
    span_s = summary.last_at - summary.first_at
    counts = f"{summary.count} more, {summary.total} in {span_s:.1f} s"
    said = WORDS[summary.what] if summary.what is not What.REMINDER or not summary.over else "so far"
    return f"{about} [{said}: {counts}]"


class Handle:
    """The handle that `fold` returns: exact counts, and the end of folding. As a context manager it closes itself."""

    folder: Folder
    unjudged: int = 0
    """The number of records that passed because they could not be judged: a value could not be hashed or turned into text."""

    def __enter__(self) -> Self:
        """Return the handle."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Close it."""
        self.close()

    @property
    def totals(self) -> Totals:
        """Exact counts: `seen == shown + summarised + pending`. What was exempt was not seen."""
        return self.folder.totals

    def due(self) -> None:
        """Write the summaries that are due; the timer does it otherwise."""
        self.folder.due()

    def resolve(self, key: str) -> bool:
        """Write "resolved" for the storm of this `outlast.key`: its cause is known to be gone. Return whether it was open."""
        return self.folder.resolve(key)

    def close(self) -> None:
        """Write what is pending; everything passes from now on. May be called again.

        Where somebody else has since replaced the logger's function, that stays, and ours only passes everything on.
        """
        self.folder.close()
