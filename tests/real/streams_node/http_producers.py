"""Producers that append over HTTP, each on a connection of its own, and keep the accounts of what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from served import Answer, get, post
from served import Client as Connection
from streams_ledger import Attempt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from streams_ledger import Ledger

WAIT_S_MAX = 60.0
STREAM = "/v1/stream/"
STORED, DUPLICATE, UNKNOWN = 200, 204, 504
REFUSED = frozenset({429, 503, 507})
LOST = (OSError, asyncio.IncompleteReadError)
"""A connection that cannot be made, or that ends before the answer."""


async def connect(port: int) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    return Connection(reader, writer)


async def ask(port: int, request: bytes) -> Answer:
    """Send one request on a connection of its own, and return its answer."""
    async with await connect(port) as connection:
        connection.send(request)
        return await connection.answer()


async def make(port: int, *names: str) -> None:
    """Make streams of bytes."""
    for name in names:
        made = await ask(port, get(STREAM + name, "Content-Type: application/octet-stream", "Content-Length: 0", method="PUT"))
        assert made.status == 201, made


def cause(problem: dict[str, Any]) -> str:
    """Return what a refusal says of the outage, without how long it has lasted and when to come back."""
    return re.sub(r" since [\d.]+ \w+| \(retry after [^)]*\)", "", problem["detail"])


def append(stream: str, data: bytes, *headers: str) -> bytes:
    return post(data, "Content-Type: application/octet-stream", *headers, path=STREAM + stream)


@dataclass
class Producer:
    """Appends to one stream, one record after the other; sends one that was refused again as a new attempt."""

    name: str
    port: int
    stream: str
    ledger: Ledger
    size: int = 1024
    pause_s: float = 0.01
    """How long it waits after a refusal, unless it does as it is told."""
    obeys: bool = False
    """Whether it waits after a refusal as long as that says."""
    every_s: float = 0.01
    """How long it waits between a record that was stored and the next."""
    sequence: int = 0
    number: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    """The body of each refusal."""
    answers: Counter[int] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    """What each refusal told it to wait."""
    on_answer: Callable[[int], None] = lambda status: None
    on_send: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Send until it is cancelled, or until nobody listens any more."""
        while True:
            try:
                connection = await connect(self.port)
            except OSError:
                return
            async with connection:
                with contextlib.suppress(*LOST):
                    while await self._send(connection):
                        pass

    async def _send(self, connection: Connection) -> bool:
        """Send one request; return whether the connection can be used for the next."""
        attempt = Attempt(self.name, self.sequence, self.number)
        headers = (f"Producer-Id: {self.name}", "Producer-Epoch: 0", f"Producer-Seq: {self.sequence}")
        self.on_send()
        try:
            connection.send(append(self.stream, attempt.payload(self.size), *headers))
            answer = await connection.answer()
        except (*LOST, asyncio.CancelledError):
            self.ledger.unknown.add(attempt)
            raise
        self.answers[answer.status] += 1
        self.on_answer(answer.status)
        if answer.status in {STORED, DUPLICATE}:
            if answer.status == STORED:
                self.ledger.answered(attempt, int(answer.headers["stream-next-offset"]) - 1)
            self.sequence, self.number = self.sequence + 1, 0
            await asyncio.sleep(self.every_s)
        elif answer.status == UNKNOWN:
            # The same record again: stored or not, it is stored once.
            self.ledger.unknown.add(attempt)
        else:
            assert answer.status in REFUSED, answer
            await self._refused(attempt, answer)
        return answer.headers.get("connection") != "close"

    async def _refused(self, attempt: Attempt, answer: Answer) -> None:
        problem = answer.problem
        self.problems.append(problem)
        self.ledger.errors[f"{answer.status} {problem['code']}"] += 1
        # What an earlier send of it came to is not known, so it stays what is sent.
        self.number += self.ledger.was_refused(attempt)
        self.waits_s.append(problem.get("retry_after_s") or self.pause_s)
        await asyncio.sleep(self.waits_s[-1] if self.obeys else self.pause_s)


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds; the limit ends a wait that would be in vain."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(producers: Sequence[Producer]) -> AsyncIterator[None]:
    """Let producers send while the block runs."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run()) for each in producers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def all_go_on(producers: Sequence[Producer]) -> None:
    """Wait until each has stored something more."""
    before = [each.sequence for each in producers]
    await until(lambda: all(each.sequence > sequence for each, sequence in zip(producers, before, strict=True)))
