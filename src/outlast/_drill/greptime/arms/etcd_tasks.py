"""Tasks in etcd, one for each write to a table that is not there: what the arms *naive* and *capped* have in common.

A task is a record, `/tasks/table/number`. It is written when the task is taken on, after each step and after each failed attempt,
and removed at its end. A step that fails is tried again after 0.5 s, doubled up to a minute, twelve times.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
from typing import TYPE_CHECKING, Final

import httpx2

from outlast._drill.greptime.arms.table_server import (
    TASKS_PREFIX,
    WAIT_S,
    Failed,
    NodeClient,
    NotDoneError,
    Pending,
    Refused,
    TableServer,
    TableSettings,
    definition,
    plain_logger,
    stopping,
)
from outlast._drill.greptime.datanode import STEPS
from outlast._drill.greptime.wire import LineClient

if TYPE_CHECKING:
    import logging

RETRIES: Final = 12
RETRY_S_MIN: Final = 0.5
RETRY_S_MAX: Final = 60.0
JITTER: Final = 0.25
"""Twelve waits of 0.5 s doubled up to a minute, and up to a quarter more: 6 to 7.5 minutes, as in the service of the incident."""
CONNECTIONS_MAX: Final = 16
REQUEST_S_MAX: Final = 10.0


class EtcdError(Exception):
    """etcd refused a write; the text is its own."""


class Etcd:
    """etcd behind its JSON gateway."""

    def __init__(self, url: str) -> None:
        limits = httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        self._http = httpx2.AsyncClient(base_url=url, limits=limits, timeout=REQUEST_S_MAX)
        # The client's own pool takes longer the more wait for it.
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)

    async def put(self, key: str, value: str) -> None:
        """Write a record. Raises EtcdError, or an error of httpx2."""
        await self._ask("put", {"key": _encoded(key), "value": _encoded(value)})

    async def delete(self, key: str) -> None:
        """Remove a record. Raises EtcdError, or an error of httpx2."""
        await self._ask("deleterange", {"key": _encoded(key)})

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _ask(self, what: str, body: dict[str, str]) -> None:
        async with self._room:
            answer = await self._http.post(f"/v3/kv/{what}", json=body)
        if not answer.is_success:
            raise EtcdError(answer.json().get("error", answer.text))


class TasksInEtcd:
    """Makes tables by tasks, one for each caller. `running_max`: so many at a time, None for any number."""

    def __init__(self, etcd: Etcd, node: NodeClient, log: logging.Logger, running_max: int | None) -> None:
        self._etcd = etcd
        self._node = node
        self._log = log
        self._running_max = running_max
        self._numbers = itertools.count(1)
        self._running: set[asyncio.Task[None]] = set()

    async def ensure(self, table: str, columns: int) -> None:
        """Record a task that makes the table, and wait for it a while."""
        if self._running_max is not None and len(self._running) >= self._running_max:
            self._log.error("cannot create table %s: too many running procedures: %d", table, len(self._running))
            msg = f"too many running procedures: the maximum is {self._running_max}"
            raise Refused(msg)
        number = next(self._numbers)
        record: dict[str, object] = {**definition(table, columns), "step": "", "attempt": 0, "error": ""}
        task = asyncio.create_task(self._carry_out(number, table, record))
        self._running.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait([task], timeout=WAIT_S)
        if not done:
            msg = f"no answer within {WAIT_S:g} s; task {number} goes on"
            raise Pending(msg)
        try:
            await task
        except (EtcdError, httpx2.HTTPError, NotDoneError) as exc:
            msg = f"cannot create table {table}: {exc}"
            raise Failed(msg) from exc

    async def clear(self, table: str) -> None:
        """Do nothing: nothing is remembered."""

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # The error is in the log already; its client may have left.
            task.exception()

    async def _carry_out(self, number: int, table: str, record: dict[str, object]) -> None:
        key = f"{TASKS_PREFIX}{table}/{number}"
        try:
            await self._etcd.put(key, json.dumps(record))
        except (EtcdError, httpx2.HTTPError) as exc:
            self._log.error("cannot create table %s: cannot record task %d: %s", table, number, exc)
            raise
        steps: list[str] = [*STEPS]
        wait_s = RETRY_S_MIN
        for attempt in range(RETRIES + 1):
            try:
                await self._attempt(key, table, record, steps)
            except (EtcdError, httpx2.HTTPError, NotDoneError) as exc:
                self._log.error("task %d, table %s, step %s, attempt %d: %s", number, table, steps[0], attempt + 1, exc)
                if attempt == RETRIES:
                    raise
                await asyncio.sleep(wait_s * (1.0 + random.random() * JITTER))
                wait_s = min(RETRY_S_MAX, wait_s * 2)
            else:
                return

    async def _attempt(self, key: str, table: str, record: dict[str, object], steps: list[str]) -> None:
        """Carry out the steps that are left, and record each; the record of a failed attempt says why."""
        while steps:
            try:
                await self._node.step(steps[0], table)
            except NotDoneError as exc:
                record |= {"attempt": int(str(record["attempt"])) + 1, "error": str(exc)}
                await self._etcd.put(key, json.dumps(record))
                raise
            record["step"] = steps[0]
            if len(steps) > 1:
                await self._etcd.put(key, json.dumps(record))
            else:
                await self._etcd.delete(key)
            del steps[0]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def serve(name: str, running_max: int | None) -> None:
    """Run the arm until SIGTERM."""
    stop, log, settings = stopping(), plain_logger(name), TableSettings.from_environment()
    random.seed(settings.seed)
    node, etcd = NodeClient(await LineClient.connect(settings.node)), Etcd(settings.store)
    await TableServer(TasksInEtcd(etcd, node, log, running_max), node).serve(settings.address, stop.wait)
    await etcd.close()
