"""A node, as it shows itself through the port of `outlast.extend`: what it answered, and who waits there."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from outlast.extend import Act, Figure, Lag, SystemHealth

if TYPE_CHECKING:
    from collections.abc import Generator, MutableMapping

    from outlast.streams._node.requests import Send

OUTCOMES: Final = ("answered", "rejected", "refused", "unknown", "failed")
MODES: Final = ("long-poll", "sse")
_REFUSED: Final = frozenset({429, 503, 507})


def outcome_of(status: int) -> str:
    """Return the outcome of a request by the status of its answer, one of `OUTCOMES`.

    "rejected" is the caller's own mistake, "refused" what may succeed later, "unknown" an append of which nobody knows.
    """
    if status < 400:
        return "answered"
    if status in _REFUSED:
        return "refused"
    if status == 504:
        return "unknown"
    return "rejected" if status < 500 else "failed"


class NodeCounts:
    """The answers of a node, counted, and those who wait in it. Changed on the event loop's thread, read from any."""

    def __init__(self) -> None:
        self.by_status: Counter[int] = Counter()
        self.readers: dict[str, int] = dict.fromkeys(MODES, 0)

    def counting(self, send: Send) -> Send:
        """Return a `send` that counts the answer that it begins."""

        async def count(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.by_status[message["status"]] += 1
            await send(message)

        return count

    @contextmanager
    def reading(self, mode: str) -> Generator[None]:
        """Count a reader that waits for what comes, one of `MODES`."""
        self.readers[mode] += 1
        try:
            yield
        finally:
            self.readers[mode] -= 1


class ShownNode:
    """Few figures, however many streams and clients there are. How the disks are is shown by the store."""

    system = "streams_node"

    def __init__(self, name: str, counts: NodeCounts) -> None:
        self.name = name
        self._counts = counts

    def figures(self) -> list[Figure]:
        """Return its figures."""
        outcomes: dict[str, float] = dict.fromkeys(OUTCOMES, 0)
        for status, count in dict(self._counts.by_status).items():
            outcomes[outcome_of(status)] += count
        return [
            Figure.counter("requests", "Requests by what came of them.", outcomes, labels=("outcome",)),
            Figure.gauge("readers", "Readers that wait for what comes.", dict(self._counts.readers), labels=("mode",)),
        ]

    def health(self) -> SystemHealth:
        """Return that it is well: it has no state of its own."""
        return SystemHealth(True, "answering")

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> list[Act]:
        """Return nothing: there is nothing to do by hand."""
        return []
