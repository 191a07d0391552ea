"""Tables over HTTP for clients that nobody here wrote: what they sent, what they were told, and what can be read."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from served import LIMIT_S, Served, post, serving

from outlast.http import Tokens
from outlast.sqlite import Sqlite
from outlast.tables import Range, Tables
from outlast.tables._http.app import TablesApp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path

    from served import Answer

    from outlast.tables import TableLimits

T = TypeVar("T")
SECRET = "collector-secret-0123456789"
SCHEMES = ("bearer", "token", "basic", "query")


@dataclass
class Sent:
    """One request, and the status of its answer; 0 until there is one."""

    method: str
    path: str
    query: str
    body: bytes = b""
    status: int = 0

    @property
    def lines(self) -> list[str]:
        body = gzip.decompress(self.body) if self.body.startswith(b"\x1f\x8b") else self.body
        return body.decode().splitlines()


@dataclass
class Recorder:
    """An application around another: it notes each request and the status of its answer."""

    app: TablesApp
    sent: list[Sent] = field(default_factory=list[Sent])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Sent(scope["method"], scope["path"], scope["query_string"].decode())
        self.sent.append(sent)

        async def note_body() -> Any:
            message = await receive()
            sent.body += message.get("body", b"")
            return message

        async def note_status(message: Any) -> None:
            if message["type"] == "http.response.start":
                sent.status = message["status"]
            await send(message)

        await self.app(scope, note_body, note_status)


@dataclass
class Door:
    """Tables that are served."""

    tables: Tables
    served: Served
    recorder: Recorder

    @property
    def url(self) -> str:
        return self.served.server.url

    @property
    def writes(self) -> list[Sent]:
        return [sent for sent in self.recorder.sent if "write" in sent.path]

    async def send(self, body: bytes, path: str, *headers: str) -> Answer:
        """Send a body on a connection of its own."""
        async with await self.served.connect() as client:
            client.send(post(body, f"Authorization: Token {SECRET}", *headers, path=path))
            return await client.answer()

    async def values(self, table: str = "cpu") -> list[Any]:
        """Read the field `v` of a table in the order of time."""
        return [fields.get("v") for _, _, fields in sorted(await self.read(table), key=lambda point: point[1])]

    async def read(self, table: str) -> list[tuple[dict[str, str], int, dict[str, Any]]]:
        """Read all points of a table: tags, time and fields, by series and time."""
        return [(dict(point.tags), point.time_ns, dict(point.fields)) async for point in self.tables.read(Range(table))]

    async def read_at_least(self, table: str, count: int) -> list[tuple[dict[str, str], int, dict[str, Any]]]:
        """Read all points of a table once there are so many."""
        async with asyncio.timeout(LIMIT_S):
            while len(found := await self.read(table)) < count:
                await asyncio.sleep(0.02)
        return found

    async def count(self) -> int:
        """Count all points of all tables, by reading them."""
        return sum([len(await self.read(record.name)) for record in await self.tables.tables()])


@asynccontextmanager
async def door(
    folder: Path, *, databases: Collection[str] | None = None, limits: TableLimits | None = None, **more: Any
) -> AsyncIterator[Door]:
    """Serve tables in a file of `folder`; `more` is for the application."""
    async with Tables(Sqlite(folder / "metrics.db"), limits=limits, journal_path=folder / "journal") as tables:
        app = TablesApp(tables, databases=databases, **more)
        recorder = Recorder(app)
        tokens = Tokens([f"collector write {SECRET}"], needs=app.needed_scope, schemes=SCHEMES)
        async with serving(recorder, tokens=tokens) as served:
            yield Door(tables, served, recorder)


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Let a client that blocks work in a thread, beside the server."""
    return await asyncio.to_thread(work, *args)
