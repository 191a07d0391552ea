"""Starts the crowded shop as a process, lets clients of every sort at it, sends SIGTERM, and tells how everybody ended."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SHOP = Path(__file__).parent / "crowded_shop.py"
LIMIT_S = 60.0
ENDED = (ConnectionError, asyncio.IncompleteReadError)
QUIET = re.compile(r"\S+ \S+ (?:DEBUG|INFO) ")


@dataclass
class Ended:
    """How one round ended."""

    code: int
    said: list[str]
    took_s: float
    """From the signal to the end of the process."""
    polls: Counter[str]
    streams: Counter[str]
    load: Counter[str]
    trouble: Counter[str]
    hung: Counter[str]

    @property
    def loud(self) -> list[str]:
        """The lines above INFO, and what is no line of a log."""
        return [line for line in self.said if not QUIET.match(line)]


@dataclass
class Crowd:
    """The clients of one round: so many of each sort."""

    polls: int = 200
    streams: int = 200
    load: int = 16
    trouble: int = 5
    """Of each: no byte, half a header, half a body, one that is too large, a reader that does not read, a half-closed client."""
    hanging: int = 0
    """Requests that do not end by themselves."""
    port: int = 0
    tasks: list[asyncio.Task[str]] = field(default_factory=list)
    there: int = 0
    """Clients that have sent what they send."""
    answered: int = 0
    """Requests of the load that were answered."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process has ended."""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)

    async def poll(self, path: bytes = b"/poll") -> str:
        """One request that waits: how it was answered, and that the stream ended."""
        reader, writer = await self.connect()
        writer.write(b"GET %b HTTP/1.1\r\nHost: shop\r\n\r\n" % path)
        self.there += 1
        try:
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            return f"{status}, then {await rest(reader) or 'the end'}"
        finally:
            writer.close()

    async def stream(self) -> str:
        """One viewer of events: whether the stream was ended as HTTP ends it, and the connection after it."""
        reader, writer = await self.connect()
        writer.write(b"GET /events HTTP/1.1\r\nHost: shop\r\nAccept: text/event-stream\r\n\r\n")
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.there += 1
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")
            return f"last chunk, then {await rest(reader) or 'the end'}"
        finally:
            writer.close()

    async def buy(self) -> str:
        """Ask again and again, on one connection for as long as it lasts, until nobody is there."""
        while True:
            try:
                reader, writer = await self.connect()
            except OSError:
                return "refused"
            try:
                while True:
                    writer.write(b"POST /order HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n12345")
                    head = await reader.readuntil(b"\r\n\r\n")
                    found = re.search(rb"content-length: (\d+)", head)
                    await reader.readexactly(int(found[1]) if found else 0)
                    self.answered += 1
                    if b"connection: close" in head:
                        break
            except ENDED:
                pass
            finally:
                writer.close()

    async def make_trouble(self, what: int) -> str:
        """Send something that is not whole, or do not read; wait for the end of the stream, however it comes."""
        reader, writer = await self.connect()
        head = b"POST /order HTTP/1.1\r\nHost: shop\r\n"
        sent = [
            b"",
            head + b"X: y",
            head + b"Content-Length: 10\r\n\r\n12345",
            head + b"Content-Length: 100000000\r\n\r\n" + b"x" * 100_000,
            b"GET /big HTTP/1.1\r\nHost: shop\r\n\r\n",
            b"GET /poll HTTP/1.1\r\nHost: shop\r\n\r\n",
        ][what]
        writer.write(sent)
        self.there += 1
        try:
            if what == 4:
                # The transport of the client reads no more than its buffer, and then leaves it to the kernel.
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                await self.over.wait()
                reader._transport.resume_reading()  # type: ignore[attr-defined]
            if what == 5:
                writer.write_eof()
            await rest(reader)
        finally:
            writer.close()
        return "the end"

    async def round(self, *, deadline_s: float = 5.0, after_s: float = 1.0, **wanted: object) -> Ended:
        """Run one round: SIGTERM comes `after_s` seconds after everybody is there."""
        environment = {**os.environ, "SHOP": json.dumps({"deadline_s": deadline_s, **wanted})}
        process = await asyncio.create_subprocess_exec(sys.executable, str(SHOP), env=environment, stderr=asyncio.subprocess.PIPE)
        assert process.stderr is not None
        said: list[str] = []
        try:
            async with asyncio.timeout(LIMIT_S):
                while not (found := re.search(r"serving on http://127\.0\.0\.1:(\d+)", said[-1] if said else "")):
                    line = await process.stderr.readline()
                    assert line, said
                    said.append(line.decode().rstrip())
                self.port = int(found[1])
                hearing = asyncio.create_task(hear(process.stderr, said))
                groups = self.start()
                while self.there < self.polls + self.streams + 6 * self.trouble + self.hanging or self.answered < self.load:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(after_s)
                process.send_signal(signal.SIGTERM)
                signalled_at = time.monotonic()
                code = await process.wait()
                took_s = time.monotonic() - signalled_at
                self.over.set()
                await hearing
                ends = [Counter(await asyncio.gather(*group)) for group in groups]
        finally:
            if process.returncode is None:
                process.kill()
            for task in self.tasks:
                task.cancel()
        return Ended(code, said, took_s, *ends)

    def start(self) -> list[list[asyncio.Task[str]]]:
        polls = [self.poll() for _ in range(self.polls)]
        streams = [self.stream() for _ in range(self.streams)]
        load = [self.buy() for _ in range(self.load)]
        trouble = [self.make_trouble(what) for what in range(6) for _ in range(self.trouble)]
        hung = [self.poll(b"/hang") for _ in range(self.hanging)]
        groups = [[asyncio.create_task(guarded(each)) for each in group] for group in (polls, streams, load, trouble, hung)]
        self.tasks = [task for group in groups for task in group]
        return groups


async def guarded(client: object) -> str:
    try:
        return str(await client)  # type: ignore[misc]
    except ENDED as exc:
        return type(exc).__name__


async def rest(reader: asyncio.StreamReader) -> str:
    """Read to the end of the stream; how that was no end, if it was none."""
    try:
        while await reader.read(2**20):
            pass
    except ConnectionError as exc:
        return type(exc).__name__
    return ""


async def hear(stream: asyncio.StreamReader, said: list[str]) -> None:
    while line := await stream.readline():
        said.append(line.decode().rstrip())
