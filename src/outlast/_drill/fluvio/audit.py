"""The audit of a log after its run: what was said of each record, compared with what can be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast._drill.fluvio.wire import id_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

LINES_FILE: Final = "log"
"""The file of an arm that keeps a record a line."""


@dataclass(frozen=True, slots=True)
class LogAudit:
    """The account of a log. A record whose outcome was said to be unknown may be there or not."""

    readable: int
    lost: int
    """Acknowledged, and not there."""
    phantom: int
    """Refused, and there."""
    twice: int
    """There again."""


def audit(acknowledged: Collection[int], refused: Collection[int], readable: Iterable[int]) -> LogAudit:
    """Compare the ids."""
    found = Counter(readable)
    return LogAudit(
        readable=len(found),
        lost=sum(1 for each in acknowledged if each not in found),
        phantom=len(set(refused) & found.keys()),
        twice=found.total() - len(found),
    )


def ids_of_lines(folder: Path) -> list[int]:
    """Return the ids of the whole records among the lines of a log; a torn one, and the one glued to it, are none."""
    lines = (folder / LINES_FILE).read_bytes().split(b"\n")
    return [number for line in lines if (number := id_of(line)) is not None]
