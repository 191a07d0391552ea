"""The writers: clients of an arm that write at a fixed rate, whatever the answers are.

Twenty write to a new table of their own each time, one after another; that is what the arm has to do besides. All others write to
one table, from the beginning of the fault on.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast._drill.greptime.wire import LineClient

if TYPE_CHECKING:
    from outlast._drill.greptime.background import Background

BAD_TABLE: Final = "broken"
BAD_COLUMNS: Final = 200
"""A wide table: its definition has some 8 KiB."""
OTHERS: Final = 20
OTHERS_PER_S: Final = 20.0
"""New tables a second, of all of them together. Every arm makes several times as many."""
OTHER_COLUMNS: Final = 4
_TICK_S: Final = 0.005
_BEHIND_S_MAX: Final = 0.5
"""A writer that is further behind its rate than this leaves the rest out."""
HUNG_UP: Final = "hung up"


class Answered(NamedTuple):
    """The answer to one write."""

    number: int
    table: str
    sent_s: float
    at_s: float
    what: str
    """The first word of the answer; `HUNG_UP` if none came."""
    text: str


class Writers:
    """Writes to one arm from the thread of a `Background`."""

    def __init__(self, background: Background, path: str, bad_per_s: float) -> None:
        """Write to the arm that listens on `path`; to the bad table so many times a second."""
        self.answers: list[Answered] = []
        """In the order in which they came. May be read from other threads."""
        self.sent = 0
        self._background = background
        self._path = path
        self._bad_per_s = bad_per_s
        self._bad_since_s: float | None = None
        self._client: LineClient | None = None
        self._writing: asyncio.Task[None] | None = None

    def connect(self) -> bool:
        """Connect if the arm is there, and begin; return whether it was."""
        if self._client is None:
            try:
                self._background.run(self._begin())
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def write_to_bad_table(self) -> None:
        """Begin with the writes to the table that is not there."""
        self._bad_since_s = time.monotonic()

    def clear(self, table: str) -> None:
        """Let the arm know that the cause of its failures with this table is gone."""
        self._background.run(self._clear(table))

    def stop(self, limit_s: float) -> None:
        """Write no more, and wait for the answers that are due, `limit_s` seconds at most."""
        if self._client is not None:
            self._background.run(self._end(limit_s))
            self._client = None

    async def _begin(self) -> None:
        self._client = await LineClient.connect(self._path)
        self._writing = asyncio.create_task(self._write(self._client))

    async def _clear(self, table: str) -> None:
        if self._client is not None:
            # Nobody waits for the answer, and none comes from an arm that has died.
            self._client.ask(f"clear {table}").add_done_callback(lambda asked: asked.exception())

    async def _end(self, limit_s: float) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        deadline_s = time.monotonic() + limit_s
        while len(self.answers) < self.sent and time.monotonic() < deadline_s:  # noqa: ASYNC110  a few turns, once
            await asyncio.sleep(_TICK_S)
        if self._client is not None:
            await self._client.close()
            # Its futures have failed by now; their callbacks run in the next turn.
            await asyncio.sleep(0)

    async def _write(self, client: LineClient) -> None:
        began_s = time.monotonic()
        others = bad = 0
        while True:
            now_s = time.monotonic()
            due = int((now_s - began_s) * OTHERS_PER_S) + 1
            for number in range(max(others, due - int(_BEHIND_S_MAX * OTHERS_PER_S)), due):
                self._send(client, f"other_{number % OTHERS}_{number // OTHERS}", OTHER_COLUMNS)
            others = due
            if self._bad_since_s is not None:
                due = int((now_s - self._bad_since_s) * self._bad_per_s)
                for _ in range(max(bad, due - int(_BEHIND_S_MAX * self._bad_per_s)), due):
                    self._send(client, BAD_TABLE, BAD_COLUMNS)
                bad = due
            await asyncio.sleep(_TICK_S)

    def _send(self, client: LineClient, table: str, columns: int) -> None:
        self.sent += 1
        number, sent_s = self.sent, time.monotonic()

        def take(future: asyncio.Future[str]) -> None:
            what, _, text = (HUNG_UP, "", "") if future.exception() is not None else future.result().partition(" ")
            self.answers.append(Answered(number, table, sent_s, time.monotonic(), what, text))

        client.ask(f"write {table} {columns} {number}").add_done_callback(take)
