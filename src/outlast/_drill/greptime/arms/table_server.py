"""The shared part of the arms of the greptime drill: settings, the data node, and a server that asks an arm for each write."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from outlast._drill.greptime.datanode import STEPS, STORE
from outlast._drill.greptime.wire import DONE, FAILED, PENDING, REFUSED, LineClient, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ADDRESS_VARIABLE = "OUTLAST_DRILL_ADDRESS"
NODE_VARIABLE = "OUTLAST_DRILL_DATA_NODE"
STORE_VARIABLE = "OUTLAST_DRILL_STORE"
SEED_VARIABLE = "OUTLAST_DRILL_SEED"
STATE_VARIABLE = "OUTLAST_DRILL_STATE"

TASKS_PREFIX: Final = "/tasks/"
"""The keys of tasks in etcd begin so, in arms without a store of their own; the table and the task's number follow."""
WAIT_S: Final = 3.0
"""Seconds that an arm waits for a table before it tells the client that it goes on without it."""
STEP_S_MAX: Final = 0.5
"""Seconds that a step may take in an arm that knows time-outs of steps: a data node that hangs is no reason to hang with it."""
UNDER_WAY_MAX: Final = 2000
"""Writes that an arm has under way at most: further ones are refused, as servers do."""


@dataclass(frozen=True, slots=True)
class TableSettings:
    """The settings of every arm, in environment variables."""

    address: str
    """The path of the Unix socket on which it answers."""
    node: str
    """The path of the data node's."""
    store: str
    """The URL of etcd, or the DSN of PostgreSQL."""
    seed: int
    state: str
    """A directory in which the arm may keep what it likes."""

    @classmethod
    def from_environment(cls) -> TableSettings:
        """Read the settings; a missing variable is a KeyError that names it."""
        variables = (ADDRESS_VARIABLE, NODE_VARIABLE, STORE_VARIABLE, SEED_VARIABLE, STATE_VARIABLE)
        address, node, store, seed, state = (os.environ[variable] for variable in variables)
        return cls(address, node, store, int(seed), state)

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` reads the same settings."""
        return {
            ADDRESS_VARIABLE: self.address,
            NODE_VARIABLE: self.node,
            STORE_VARIABLE: self.store,
            SEED_VARIABLE: str(self.seed),
            STATE_VARIABLE: self.state,
        }


class NotDoneError(Exception):
    """The data node refused a step; the text is its own."""


class Refused(Exception):  # noqa: N818  the answer that a client gets
    """The write is not stored, and nothing was tried for it; the text is what the client is told."""


class Failed(Exception):  # noqa: N818  the answer that a client gets
    """The write is not stored: what was tried for it has failed; the text is what the client is told."""


class Pending(Exception):  # noqa: N818  the answer that a client gets
    """The write is not stored; the table that it needs is still being made. The text says by whom."""


class NodeClient:
    """The data node, as an arm reaches it."""

    def __init__(self, client: LineClient) -> None:
        self._client = client

    async def step(self, name: str, table: str) -> None:
        """Carry out one of the steps in which a table is made. Raises NotDoneError."""
        await self._ask(f"{name} {table}")

    async def store(self, table: str, number: int) -> None:
        """Store a write. Raises NotDoneError."""
        await self._ask(f"{STORE} {table} {number}")

    async def _ask(self, words: str) -> None:
        what, _, text = (await self._client.ask(words)).partition(" ")
        if what != DONE:
            raise NotDoneError(text)


class Tables(Protocol):
    """The part of an arm that is its own: how a table comes to be."""

    async def ensure(self, table: str, columns: int) -> None:
        """Return when the table exists. Raises Refused, Failed or Pending."""
        ...

    async def clear(self, table: str) -> None:
        """Forget that the table failed, if that is remembered."""
        ...


def definition(table: str, columns: int) -> dict[str, object]:
    """Return the definition of a table, as every arm hands it to its tasks."""
    return {"table": table, "columns": [{"name": f"field_{index}", "type": "double"} for index in range(columns)]}


@lru_cache(maxsize=128)
def definition_json(table: str, columns: int) -> str:
    """Return it as a text."""
    return json.dumps(definition(table, columns))


class TableServer:
    """Answers writes: makes sure that there is the table, then stores the write in it."""

    def __init__(self, tables: Tables, node: NodeClient) -> None:
        self._tables = tables
        self._node = node
        self._existing: set[str] = set()
        self._under_way = 0

    async def serve(self, path: str, stop: Callable[[], Awaitable[object]]) -> None:
        """Answer on the path until `stop` returns."""
        async with serving(path, self.answer):
            await stop()

    async def answer(self, words: list[str]) -> str:
        """Answer one request: `write table columns number` or `clear table`."""
        if words[0] == "clear":
            await self._tables.clear(words[1])
            return DONE
        if self._under_way >= UNDER_WAY_MAX:
            return f"{REFUSED} busy: {UNDER_WAY_MAX} writes are under way"
        self._under_way += 1
        try:
            return await self._write(words[1], int(words[2]), int(words[3]))
        finally:
            self._under_way -= 1

    async def _write(self, table: str, columns: int, number: int) -> str:
        try:
            if table not in self._existing:
                await self._tables.ensure(table, columns)
                self._existing.add(table)
            await self._node.store(table, number)
        except Pending as exc:
            return f"{PENDING} {one_line(exc)}"
        except Refused as exc:
            return f"{REFUSED} {one_line(exc)}"
        except (Failed, NotDoneError) as exc:
            return f"{FAILED} {one_line(exc)}"
        except Exception as exc:  # noqa: BLE001  the client is told, whatever it is
            return f"{FAILED} {type(exc).__name__}: {one_line(exc)}"
        return DONE


async def make_table(node: NodeClient, table: str) -> None:
    """Carry out all steps. Raises NotDoneError."""
    for step in STEPS:
        await node.step(step, table)


def one_line(exc: BaseException) -> str:
    """Return the text of an exception as one line."""
    return str(exc).replace("\n", "\\n")


def plain_logger(name: str) -> logging.Logger:
    """Return a logger that writes a line on stderr for each record."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("httpx2", "httpcore2", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return logging.getLogger(name)


def stopping() -> asyncio.Event:
    """Return an event that SIGTERM sets."""
    event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event
