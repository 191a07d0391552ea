"""Readers that wait at the tail of a stream, and how each of them saw its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from http_producers import LOST, STREAM, connect
from served import get

if TYPE_CHECKING:
    from served import Client as Connection

SSE = b"text/event-stream"


@dataclass
class Readers:
    """Long polls and event streams of one stream."""

    port: int
    stream: str
    offset: str = "now"
    there: int = 0
    """Those that have sent their request."""
    polls: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    """How each of them ended: the status and what came after the answer, or that it was cut."""
    text: list[str] = field(default_factory=list)
    """What each event stream has sent, whole."""

    async def poll(self) -> None:
        """Wait for one answer."""
        async with await connect(self.port) as connection:
            connection.send(get(f"{STREAM}{self.stream}?offset={self.offset}&live=long-poll"))
            self.there += 1
            try:
                answer = await connection.answer()
                self.polls.append(f"{answer.status}, then {await end_of(connection)}")
            except LOST:
                self.polls.append("cut")

    async def follow(self) -> None:
        """Read events until the server ends the stream."""
        async with await connect(self.port) as connection:
            connection.send(get(f"{STREAM}{self.stream}?offset={self.offset}&live=sse"))
            got = b""
            try:
                head = await connection.reader.readuntil(b"\r\n\r\n")
                assert SSE in head, head
                self.there += 1
                async for chunk in connection.chunks():
                    got += chunk
                self.events.append(f"last chunk, then {await end_of(connection)}")
            except LOST:
                self.events.append("cut")
            self.text.append(got.decode())


async def end_of(connection: Connection) -> str:
    """Return what comes until the stream ends."""
    return (await connection.rest()).decode() or "the end"


async def gather(group: asyncio.TaskGroup, readers: Readers, polls: int, events: int) -> None:
    """Begin so many of each, and return when all have sent their requests."""
    for number in range(max(polls, events)):
        if number < polls:
            group.create_task(readers.poll())
        if number < events:
            group.create_task(readers.follow())
        if number % 20 == 0:
            await asyncio.sleep(0)
