"""The numbers of one process: what it was asked for and what it did, since it started."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Each number only grows. Written on the event loop's thread, read from any: whoever reads a collection copies it first."""

    submitted: int = 0
    """Submissions that went to the store."""
    joined: int = 0
    """Submissions that joined a live record, by memory or by the store's answer."""
    refused: Counter[str] = field(default_factory=Counter[str])
    """Submissions that were refused, by the reason, as `ProcedureRefused.why` has it."""
    claimed: int = 0
    """Records that this process took."""
    taken_over: int = 0
    """Those of them that it took from a runner that died."""
    ended: Counter[str] = field(default_factory=Counter[str])
    """Records that ended here, by their state."""
    waited: int = 0
    """Claims that ended without an end: the record waits for its time, a signal, a cause, or was given back."""
    late: int = 0
    """Writes whose claim was over: sent twice, or another runner had the record by then."""
    expired: int = 0
    """Records that this process dropped unrun, past their deadline."""
    deleted: int = 0
    """Finished records that this process deleted for their age."""
    dead_deleted: int = 0
    """Dead ones that it deleted, for their age or for their number."""
