"""The clients of `overload.py` and `tables_overload.py`: a process that keeps offering requests, as told on its standard input.

They are written for little processor time, not for comfort: a bare protocol of asyncio, prepared bytes, one timer for all.
Requests arrive at random (Poisson), whatever becomes of those before them. A request that is refused is tried again after
what `Retry-After` says, or, by clients that do not obey, after `IMPATIENCE_S`; one that is not answered within its deadline
is given up, its connection closed, and tried again at once. Each has a bounded number of tries. Time is counted from the
moment a try was due, so a client that falls behind never flatters the server.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

IMPATIENCE_S = 0.1
TICK_S = 0.002
CONNECTIONS_MAX = 3_000
"""Of this process, as a pool has it. A try that finds none waits in vain for one until its deadline."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Load of one kind for some seconds."""

    name: str
    seconds: float
    rates: dict[str, float]
    """New requests a second, by tenant."""
    obeys: bool = True
    retries: int = 2
    deadline_s: float = 1.0


@dataclass(slots=True)
class Second:
    """The counts of one second. Requests count where they began, tries and answers where they ended."""

    new: int = 0
    """Requests that began."""
    done: int = 0
    """Of those, answered within the deadline, by whichever try."""
    good: int = 0
    """Answers within the deadline."""
    late: int = 0
    refused: int = 0
    unanswered: int = 0
    """Tries given up after the deadline, or whose connection was cut."""
    failed: int = 0
    """Answers that are neither of the two that are agreed."""
    latencies_s: list[float] = field(default_factory=list)
    """Seconds to each answer of what was admitted; what was not answered stands with infinity."""


class Request:
    """One request, with all its tries."""

    __slots__ = ("due_at", "phase", "second", "tenant", "tries", "wire")

    def __init__(self, phase: Phase, tenant: str, due_at: float, second: Second, wire: bytes) -> None:
        self.phase, self.tenant, self.due_at, self.second, self.wire = phase, tenant, due_at, second, wire
        self.tries = 0


class Connection(asyncio.Protocol):
    """One connection, which has at most one request under way."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._received = b""
        self.request: Request | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.request is None:
            transport.abort()
        else:
            transport.write(self.request.wire)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = received[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 : (head + b"\r\n").find(b"\r\n", at)]) if at >= 0 else 0
        if len(received) < head_end + 4 + length:
            return
        self._received = b""
        request, self.request = self.request, None
        if b"connection: close" in head:
            self.close()
        elif request is not None:
            self._clients.idle.append(self)
        if request is not None:
            self._clients.answered(request, int(head[9:12]), head)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.transport = None
        self._clients.open -= 1
        request, self.request = self.request, None
        if request is not None:
            self._clients.lost(request)

    def close(self) -> None:
        """Leave, whatever is under way."""
        self.request = None
        if self.transport is not None:
            self.transport.abort()
            self.transport = None


class Clients:
    """All clients of this process."""

    def __init__(self, port: int, seed: int, request: tuple[str, str] | None = None) -> None:
        self.port = port
        self._request = request
        self.idle: list[Connection] = []
        self._rng = random.Random(seed)
        self.open = 0
        self._under_way: deque[tuple[float, Connection | None, Request, int]] = deque()
        """Tries in the order in which they began; all deadlines of a phase are alike, so the first is the first to end."""
        self._again: list[tuple[float, int, Request]] = []
        self._number = itertools.count()
        self._opening: set[asyncio.Task[Any]] = set()
        self.seconds: dict[str, dict[str, list[Second]]] = {}
        self._phase: Phase | None = None
        self._began_at = 0.0

    async def run(self, phases: list[Phase], began_at: float) -> None:
        for phase in phases:
            self._phase, self._began_at = phase, began_at
            self.seconds[phase.name] = {tenant: [Second() for _ in range(int(phase.seconds) + 1)] for tenant in phase.rates}
            wires = {tenant: wire(tenant, phase.deadline_s, self._request) for tenant in phase.rates}
            arrivals = [(began_at + self._rng.expovariate(rate), tenant) for tenant, rate in phase.rates.items() if rate]
            heapq.heapify(arrivals)
            while (now := time.monotonic()) < began_at + phase.seconds:
                while arrivals and arrivals[0][0] <= now:
                    due_at, tenant = arrivals[0]
                    heapq.heapreplace(arrivals, (due_at + self._rng.expovariate(phase.rates[tenant]), tenant))
                    second = self.seconds[phase.name][tenant][int(due_at - began_at)]
                    second.new += 1
                    self._start(Request(phase, tenant, due_at, second, wires[tenant]), due_at)
                while self._again and self._again[0][0] <= now:
                    due_at, _, request = heapq.heappop(self._again)
                    self._start(request, due_at)
                while self._under_way and self._under_way[0][0] <= now:
                    _, connection, request, tries = self._under_way.popleft()
                    if connection is None:
                        self.lost(request)
                    elif connection.request is request and request.tries == tries:
                        connection.close()
                        self.lost(request)
                await asyncio.sleep(TICK_S)
            began_at += phase.seconds
        # What is under way still has its deadline.
        await asyncio.sleep(phases[-1].deadline_s)

    def _start(self, request: Request, due_at: float) -> None:
        request.due_at = due_at
        request.tries += 1
        connection = self._connection()
        if connection is not None:
            connection.request = request
            if connection.transport is None:
                opening = asyncio.ensure_future(self._open(connection))
                self._opening.add(opening)
                opening.add_done_callback(self._opening.discard)
            else:
                connection.transport.write(request.wire)
        self._under_way.append((due_at + request.phase.deadline_s, connection, request, request.tries))

    def _connection(self) -> Connection | None:
        """Return a connection that is idle, or one to be opened, or none, when there are too many."""
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None:
                return connection
        if self.open >= CONNECTIONS_MAX:
            return None
        self.open += 1
        return Connection(self)

    async def _open(self, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self.port)
        except OSError as error:
            connection.connection_lost(error)

    def _now(self, tenant: str, now: float) -> Second:
        """Return the counts of this second; what ends in a later phase than it began counts there, by its tenant."""
        assert self._phase is not None
        seconds = self.seconds[self._phase.name].setdefault(tenant, [])
        index = max(int(now - self._began_at), 0)
        while len(seconds) <= index:
            seconds.append(Second())
        return seconds[index]

    def answered(self, request: Request, status: int, head: bytes) -> None:
        """Count an answer, and come back if it was a refusal."""
        now = time.monotonic()
        counts = self._now(request.tenant, now)
        latency_s = now - request.due_at
        if status in {201, 204}:
            counts.latencies_s.append(latency_s)
            if latency_s <= request.phase.deadline_s:
                counts.good += 1
                request.second.done += 1
            else:
                counts.late += 1
        elif status in {429, 503}:
            counts.refused += 1
            at = head.find(b"retry-after:")
            told_s = float(head[at + 12 : (head + b"\r\n").find(b"\r\n", at)]) if at >= 0 else 1.0
            self._later(request, now + (told_s if request.phase.obeys else IMPATIENCE_S))
        else:
            counts.failed += 1

    def lost(self, request: Request) -> None:
        """Count a try without an answer, and try again at once."""
        now = time.monotonic()
        counts = self._now(request.tenant, now)
        counts.unanswered += 1
        counts.latencies_s.append(float("inf"))
        self._later(request, now)

    def _later(self, request: Request, at: float) -> None:
        if request.tries <= request.phase.retries:
            heapq.heappush(self._again, (at, next(self._number), request))


def wire(tenant: str, deadline_s: float, request: tuple[str, str] | None = None) -> bytes:
    """Return the bytes of a request: an order, or the path and the body of `request`."""
    if request is not None:
        path, text = request
        body = text.encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Timeout: {deadline_s:g}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
    lines = [
        {"sku": f"sku-{number:04}", "count": number % 3 + 1, "price_cents": 995 + 10 * number, "note": "as agreed by telephone"}
        for number in range(20)
    ]
    body = json.dumps({"id": "4711", "customer": tenant, "currency": "EUR", "lines": lines}).encode()
    return (
        f"POST /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
        f"User-Agent: bench\r\nX-Tenant: {tenant}\r\nX-Request-Timeout: {deadline_s:g}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def main() -> None:
    """Read what to do, do it, and print what was seen."""
    task = json.loads(sys.stdin.readline())
    clients = Clients(task["port"], task["seed"], task.get("request"))
    phases = [Phase(**phase) for phase in task["phases"]]
    asyncio.run(clients.run(phases, task["began_at"]))
    seen = {
        phase: {
            tenant: [{name: getattr(second, name) for name in Second.__slots__} for second in seconds]
            for tenant, seconds in tenants.items()
        }
        for phase, tenants in clients.seconds.items()
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
