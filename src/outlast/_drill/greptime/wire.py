"""The talk of the greptime drill: one line a request, one line an answer, any number under way on one connection.

A line is `number words`; the answer has the number of its request. Writers speak so with an arm, and an arm with the data node.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

LINE_BYTES_MAX: Final = 1 << 16

DONE: Final = "done"
"""The first word of an answer: it is done."""
REFUSED: Final = "refused"
"""It is not done, and nothing was tried for it; the reason follows."""
FAILED: Final = "failed"
"""It is not done: an attempt that it waited for has failed; the reason follows."""
PENDING: Final = "pending"
"""It is not done yet, and somebody goes on with what it needs; the words for that follow."""


@contextlib.asynccontextmanager
async def serving(path: str, answer: Callable[[list[str]], Awaitable[str]]) -> AsyncGenerator[None]:
    """Answer every request on the Unix socket `path` by a task of its own, while the context lasts."""
    tasks: set[asyncio.Task[None]] = set()

    async def reply(line: bytes, writer: asyncio.StreamWriter) -> None:
        number, *words = line.decode().split()
        text = await answer(words)
        # Who has left is not written to: asyncio would log a line for each answer.
        if not writer.is_closing():
            writer.write(f"{number} {text}\n".encode())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                task = asyncio.create_task(reply(line, writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        writer.close()

    # Nobody removes the file: the folder goes with the drill.
    server = await asyncio.start_unix_server(talk, path, limit=LINE_BYTES_MAX)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()


class LineClient:
    """One connection. Use it on one event loop only."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def connect(cls, path: str) -> LineClient:
        """Connect. Raises OSError."""
        return cls(*await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX))

    def ask(self, words: str) -> asyncio.Future[str]:
        """Send a request; the future has the words of its answer, or a ConnectionResetError if none can come any more."""
        self._number += 1
        future = self._asked[self._number] = asyncio.get_running_loop().create_future()
        if self._reading.done():
            self._hang_up()
        else:
            self._writer.write(f"{self._number} {words}\n".encode())
        return future

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        self._reading.cancel()
        await asyncio.wait([self._reading])
        self._hang_up()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                number, _, words = line.decode().rstrip("\n").partition(" ")
                future = self._asked.pop(int(number), None)
                if future is not None and not future.done():
                    future.set_result(words)
        except ConnectionError:
            pass
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the connection ended before the answer"))
        self._asked.clear()
