"""Requests with a deadline, each on a connection of its own, and what each was told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from http_producers import DUPLICATE, LOST, UNKNOWN, append, connect
from streams_ledger import Attempt

if TYPE_CHECKING:
    from streams_ledger import Ledger

STORED = DUPLICATE
"""The status of what is stored, of a request that names no producer."""


@dataclass
class Queued:
    """Appends to one stream that name no producer: each is sent once."""

    port: int
    stream: str
    deadline_s: float
    ledger: Ledger
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    """How many were answered with a status and the code of its problem."""

    async def send(self, number: int) -> None:
        """Send the request of that number, and note its answer."""
        attempt = Attempt("queued", number, 0)
        try:
            async with await connect(self.port) as connection:
                connection.send(append(self.stream, attempt.payload(64), f"X-Request-Timeout: {self.deadline_s:g}"))
                answer = await connection.answer()
        except LOST:
            self.ledger.unknown.add(attempt)
            self.answers[0, "cut"] += 1
            return
        self.answers[answer.status, answer.code if answer.status >= 400 else ""] += 1
        if answer.status == STORED:
            self.ledger.answered(attempt, int(answer.headers["stream-next-offset"]) - 1)
        elif answer.status == UNKNOWN:
            self.ledger.unknown.add(attempt)
        else:
            self.ledger.refused.add(attempt)
