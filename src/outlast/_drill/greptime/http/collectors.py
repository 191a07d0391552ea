"""Collectors: clients that send points as the collectors of metrics do, and keep the accounts of what they were told.

Each point has a number of its own: it is the value of the field `n`, and its time. So a point that was acknowledged can be looked
for in the store, and one that is there twice shows.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast._drill.greptime.http.client import LOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outlast._drill.greptime.http.client import HttpClient, Reply

PATH: Final = "/write?db=drill&precision=ns"
STORED: Final = frozenset({200, 204})
"""The statuses that say: every point of the body is stored."""
TIME_NS: Final = 1_700_000_000_000_000_000
"""The time of point 0: 2023-11-14."""
TICK_S: Final = 0.005
BEHIND_S_MAX: Final = 0.5
"""A flood that is further behind its rate than this leaves the rest out."""
LOST_WAIT_S: Final = 0.1
"""The wait of a collector that found nobody, or was told no time."""


class Sent(NamedTuple):
    """One request and its answer."""

    table: str
    first: int
    """The number of its first point."""
    points: int
    sent_s: float
    at_s: float
    status: int
    retry_after_s: float | None
    body: bytes
    """The text of a refusal."""

    @property
    def numbers(self) -> range:
        """The numbers of its points."""
        return range(self.first, self.first + self.points)

    @property
    def is_stored(self) -> bool:
        """Whether all its points were acknowledged."""
        return self.status in STORED

    @property
    def took_s(self) -> float:
        """Seconds from the request to the answer."""
        return self.at_s - self.sent_s


class Collectors:
    """The collectors of one server, and all that they were told. On one event loop; may be read from other threads."""

    def __init__(self, client: HttpClient, *, wait_s_max: float | None = None, first: int = 1) -> None:
        """Send by `client`. They wait as they are told, but not longer than `wait_s_max`."""
        self.sent: list[Sent] = []
        """In the order in which the answers came."""
        self.under_way = 0
        self._client = client
        self._wait_s_max = wait_s_max
        self._numbers = itertools.count(first)
        self._tasks: set[asyncio.Task[Sent]] = set()

    async def send(self, table: str, points: int = 1, *, first: int | None = None) -> Sent:
        """Send new points in one request, or those from `first` on again; return what came of it."""
        if first is None:
            first = next(self._numbers)
            for _ in range(points - 1):
                next(self._numbers)
        sent_s = time.monotonic()
        self.under_way += 1
        try:
            reply = await self._client.post(PATH, lines(table, range(first, first + points)))
        finally:
            self.under_way -= 1
        body = b"" if reply.status in STORED else reply.body[:400]
        sent = Sent(table, first, points, sent_s, time.monotonic(), reply.status, reply.retry_after_s, body)
        self.sent.append(sent)
        return sent

    async def collect(self, table: str, points: int, *, every_s: float = 0.0) -> None:
        """Send one body after the other until it is cancelled; one that was not stored is sent again, as it was."""
        due_s = time.monotonic()
        while True:
            sent = await self.send(table, points)
            while not sent.is_stored:
                await asyncio.sleep(self.wait_s(sent))
                sent = await self.send(table, points, first=sent.first)
            due_s = max(due_s + every_s, time.monotonic() - BEHIND_S_MAX)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def flood(self, table: str, points: int, per_s: float) -> None:
        """Send so many bodies a second until it is cancelled, whatever the answers are: those of many collectors."""
        began_s, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began_s) * per_s)
            for _ in range(max(done, due - int(BEHIND_S_MAX * per_s)), due):
                task = asyncio.create_task(self.send(table, points))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            done = due
            await asyncio.sleep(TICK_S)

    async def settle(self, limit_s: float) -> None:
        """Wait until no request of a flood is under way, so many seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)

    def wait_s(self, sent: Sent | Reply) -> float:
        """Return how long a collector waits after that answer."""
        wait_s = LOST_WAIT_S if sent.status == LOST or sent.retry_after_s is None else sent.retry_after_s
        return wait_s if self._wait_s_max is None else min(wait_s, self._wait_s_max)


def lines(table: str, numbers: Iterable[int]) -> bytes:
    """Return points as lines of InfluxDB's line protocol."""
    return b"\n".join(
        b"%s,writer=drill n=%di,value=%.3f %d" % (table.encode(), number, number % 1000 / 8, TIME_NS + number)
        for number in numbers
    )


def acknowledged(sent: Iterable[Sent]) -> dict[str, set[int]]:
    """Return the numbers of the points that were acknowledged, by table."""
    found: dict[str, set[int]] = {}
    for each in sent:
        if each.is_stored:
            found.setdefault(each.table, set()).update(each.numbers)
    return found


def lost(sent: Iterable[Sent], stored: dict[str, list[int]]) -> dict[str, set[int]]:
    """Return the points that were acknowledged and are not there, by table."""
    missing = {table: numbers.difference(stored.get(table, ())) for table, numbers in acknowledged(sent).items()}
    return {table: numbers for table, numbers in missing.items() if numbers}


def twice(stored: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    """Yield the points that are there more than once."""
    for table, numbers in stored.items():
        seen: set[int] = set()
        for number in numbers:
            if number in seen:
                yield table, number
            seen.add(number)


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Return that percentile; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None
