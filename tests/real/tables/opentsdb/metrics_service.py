"""A service with tables in a SQLite file, the telnet door and the doors over HTTP; and clients on sockets of their own."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from served import LIMIT_S, Client

import outlast
from outlast.http import Server
from outlast.sqlite import Sqlite
from outlast.tables import Range, Tables
from outlast.tables._http.app import TablesApp
from outlast.tables._telnet.limits import PutLimits
from outlast.tables._telnet.server import PutServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@dataclass
class Metrics:
    """The parts of the service, at work."""

    service: outlast.Service
    stop: outlast.Stop
    tables: Tables
    server: Server
    put: PutServer

    @property
    def door(self) -> Any:
        return self.put._door

    async def telnet(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.put.port)

    async def say(self, data: bytes) -> bytes:
        """Send bytes on a connection of its own, end it, and return all that is answered."""
        reader, writer = await self.telnet()
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            answer = await reader.read()
        writer.close()
        return answer

    async def ask(self, method: str, target: str, body: object = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Send one request, and return status, JSON and headers of its answer."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Length: {len(raw)}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        async with Client(*await asyncio.open_connection("127.0.0.1", self.server.port)) as client:
            client.send("\r\n".join([*head, "", ""]).encode() + raw)
            answer = await client.answer()
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(answer.body) if is_json and answer.body else answer.body, answer.headers

    async def read(self, table: str) -> list[tuple[dict[str, str], int, Any]]:
        """Return tags, seconds and value of each point, in the order of time."""
        points = [point async for point in self.tables.read(Range(table))]
        found = [(dict(point.tags), point.time_ns // 10**9, point.fields["value"]) for point in points]
        return sorted(found, key=lambda point: point[1])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def metrics(folder: Path, *, db: object = None, deadline_s: float = 10.0, **limits: Any) -> AsyncIterator[Metrics]:
    """Run the service until the block ends; it must stop cleanly. `db`: instead of a SQLite file in `folder`."""
    service = outlast.Service("metrics", deadline_s=deadline_s)
    tables = Tables(db or Sqlite(folder / "metrics.db"), journal_path=folder / "metrics.journal")
    tables.attach(service)
    server = Server(TablesApp(tables).attach(service), "127.0.0.1:0").attach(service)
    put = PutServer(tables, "127.0.0.1:0", limits=PutLimits(**limits)).attach(service)
    stop = outlast.Stop()
    running = asyncio.create_task(service.run(stop))
    await asyncio.wait({running, asyncio.ensure_future(service.until_ready())}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield Metrics(service, stop, tables, server, put)
    finally:
        stop.fire("the test is over")
        code = await running
    assert code == 0, service.report
