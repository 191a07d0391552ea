"""The accounts of producers: every attempt, its answer, and what a reader finds of it later.

A record names its producer, its sequence and the attempt, so that one that was refused and is there all the same is told from
one that was stored at a later attempt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from outlast import Stopping, Unavailable
from outlast.streams import ExpiredError, OutcomeUnknownError, Producer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from outlast.streams import Appended, Record, Stream


class Attempt(NamedTuple):
    """One append of one record."""

    producer: str
    sequence: int
    number: int

    def payload(self, size: int) -> bytes:
        """Return its record: the same for the same attempt."""
        head = f"{self.producer}/{self.sequence}/{self.number}/".encode()
        return head + bytes((self.sequence * 7 + self.number + offset) % 251 for offset in range(64)) * (size // 64)

    @classmethod
    def of(cls, data: bytes) -> Attempt:
        """Return the attempt whose record it is; fail if it is none, byte by byte."""
        producer, sequence, number, rest = data.split(b"/", 3)
        attempt = cls(producer.decode(), int(sequence), int(number))
        assert data == attempt.payload(len(rest)), f"not what {attempt} sent"
        return attempt


@dataclass
class Ledger:
    """What was sent, and what came back."""

    acknowledged: dict[Attempt, int] = field(default_factory=dict)
    refused: set[Attempt] = field(default_factory=set)
    unknown: set[Attempt] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)

    def answered(self, attempt: Attempt, position: int) -> None:
        self.acknowledged[attempt] = position

    def was_refused(self, attempt: Attempt) -> bool:
        """Note a refusal; return whether nothing of the attempt may ever appear: not if an earlier send of it may be stored."""
        if attempt in self.unknown:
            return False
        self.refused.add(attempt)
        return True

    def compare(self, found: Iterable[Record]) -> dict[str, list[Attempt]]:
        """Compare with the records that are there: what is lost, what was refused and is there, is there twice, or elsewhere."""
        places: dict[Attempt, list[int]] = {}
        for record in found:
            places.setdefault(Attempt.of(record.data), []).append(record.position)
        counts = Counter((attempt.producer, attempt.sequence) for attempt, at in places.items() for _ in at)
        return {
            "lost": [attempt for attempt in self.acknowledged if attempt not in places],
            "phantom": [attempt for attempt in self.refused if attempt in places],
            "twice": [attempt for attempt in places if counts[attempt.producer, attempt.sequence] > 1],
            "moved": [attempt for attempt, at in self.acknowledged.items() if attempt in places and at not in places[attempt]],
        }


def name_of(error: BaseException) -> str:
    """Return the class and the code of an error, by which one is the same as another."""
    fault = getattr(error, "fault", None)
    return f"{type(error).__name__} {fault.code}" if fault is not None else type(error).__name__


@dataclass
class Client:
    """A producer that sends its next record once the last is stored, and goes on at once when it is refused."""

    name: str
    stream: Stream
    ledger: Ledger
    size: int = 1024
    deadline_s: float | None = None
    pause_s: float = 0.01
    sequence: int = 0
    number: int = 0
    took_s: list[float] = field(default_factory=list)
    """The time that each refusal took."""
    on_answer: Callable[[Attempt, Appended | Exception], None] = lambda attempt, answer: None

    async def run(self) -> None:
        """Send until it is cancelled or the store ends."""
        clock = asyncio.get_running_loop().time
        while True:
            attempt = Attempt(self.name, self.sequence, self.number)
            begun_s = clock()
            try:
                producer = Producer(self.name, 0, self.sequence)
                answer = await self.stream.append(attempt.payload(self.size), producer=producer, deadline_s=self.deadline_s)
            except (Unavailable, ExpiredError) as exc:
                self.took_s.append(clock() - begun_s)
                self.ledger.errors[name_of(exc)] += 1
                # What an earlier send of it came to is not known, so it stays what is sent.
                self.number += self.ledger.was_refused(attempt)
                self.on_answer(attempt, exc)
                await asyncio.sleep(self.pause_s)
            except OutcomeUnknownError as exc:
                # The same record again: stored or not, it is stored once.
                self.ledger.errors[name_of(exc)] += 1
                self.ledger.unknown.add(attempt)
                self.on_answer(attempt, exc)
                await asyncio.sleep(self.pause_s)
            except Stopping:
                self.ledger.unknown.add(attempt)
                return
            except asyncio.CancelledError:
                self.ledger.unknown.add(attempt)
                raise
            else:
                self.ledger.answered(attempt, answer.first)
                self.sequence, self.number = self.sequence + 1, 0
                self.on_answer(attempt, answer)
