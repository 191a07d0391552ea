"""The server of `overload.py` and of `admission.py`: one process, a small application, a store that sets its capacity.

    python bench/_overload_server.py outlast --port 8080

It prints a line when it listens. The store does 8 at once in 20 ms each, 400 a second, whatever the process that asks it
does: it is a machine of its own, with a clock of its own, and works off in turn what it was asked. What nobody waits for any
more it does all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import outlast
from outlast.admission import Rate
from outlast.http import Ask, Limits, Server, Token, ask
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

AT_ONCE = 8
BATCH_S = 0.02
CAPACITY = AT_ONCE / BATCH_S


class Store:
    """Does `AT_ONCE` pieces of work at once, `BATCH_S` each, in the order in which it was asked."""

    def __init__(self) -> None:
        self._free_at = [0.0] * AT_ONCE

    async def save(self, _row: str) -> None:
        now = asyncio.get_running_loop().time()
        done_at = max(now, self._free_at[0]) + BATCH_S
        heapq.heapreplace(self._free_at, done_at)
        await asyncio.sleep(done_at - now)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an order."""

    sku: str
    count: int
    price_cents: int
    note: str

    def __post_init__(self) -> None:
        if self.count < 1 or self.price_cents < 0:
            raise ValueError(f"{self.sku}: {self.count} pieces at {self.price_cents}")

    @classmethod
    def of(cls, line: dict[str, Any]) -> Line:
        """Return the line that a client sent."""
        return cls(str(line["sku"]), int(line["count"]), int(line["price_cents"]), str(line["note"]))


@dataclass(frozen=True, slots=True)
class Order:
    """A customer's order."""

    id: str
    customer: str
    currency: str
    lines: list[Line]

    def total_cents(self) -> int:
        """Return what it comes to."""
        return sum(line.count * line.price_cents for line in self.lines)


def application(save: Callable[[str], Awaitable[None]]) -> Starlette:
    """Return an application with one realistic request: a body of JSON is parsed, checked, stored and answered."""

    async def order(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            lines = [
                Line(str(line["sku"]), int(line["count"]), int(line["price_cents"]), str(line["note"])) for line in body["lines"]
            ]
            accepted = Order(str(body["id"]), str(body["customer"]), str(body["currency"]), lines)
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"title": "this is no order", "detail": str(error)}, 400)
        row = json.dumps(asdict(accepted))
        await save(row)
        return JSONResponse(asdict(accepted) | {"total_cents": accepted.total_cents()}, 201)

    return Starlette(routes=[Route("/orders", order, methods=["POST"])])


def behind_semaphore(save: Callable[[str], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
    """Return the store as most protect it: whoever finds it taken waits, however long."""
    semaphore = asyncio.Semaphore(AT_ONCE)

    async def save_in_turn(row: str) -> None:
        async with semaphore:
            await save(row)

    return save_in_turn


async def nothing(_row: str) -> None:
    """Save to nowhere, so that only the server costs."""


class Orders:
    """A table of orders in PostgreSQL."""

    def __init__(self, db: Postgres) -> None:
        self._db = db

    async def save(self, row: str) -> None:
        async with self._db.connection() as conn:
            await conn.execute("INSERT INTO orders (body) VALUES (%s)", (row,))


def by_tenant(method: str, path: str, headers: list[tuple[bytes, bytes]], client: str, token: Token | None) -> Ask:
    """Ask as the default does; the tenant stands in a header, where a real one stands in a token."""
    asked = ask(method, path, headers, client, token)
    for name, value in headers:
        if name == b"x-tenant":
            tenant = value.decode()
            return Ask(tenant, tenant, asked.criticality, asked.cost, asked.size_bytes, asked.deadline_s)
    return asked


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("arm", choices=["outlast", "semaphore", "bare", "admitted", "refusing"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dsn", help="a PostgreSQL with a table orders (body text), for bare and admitted (default: none)")
    options = parser.parse_args()
    service = outlast.Service("bench")
    save: Callable[[str], Awaitable[None]] = Store().save if options.arm in {"outlast", "semaphore"} else nothing
    if options.dsn is not None:
        db = Postgres(options.dsn)
        service.needs(db)
        save = Orders(db).save
    app: Any = application(behind_semaphore(save) if options.arm == "semaphore" else save)
    admission = None
    if options.arm in {"outlast", "admitted", "refusing"}:
        # A rate of one request in ten minutes: all but the first are refused, and may come back.
        admission = outlast.Admission("orders", rate=Rate(1 / 600, burst=1) if options.arm == "refusing" else None)
        admission.attach(service)
    limits = Limits(connections_max=None, connections_per_client_max=None)
    asks = ask if options.arm == "admitted" else by_tenant
    Server(app, f"127.0.0.1:{options.port}", limits=limits, admission=admission, ask=asks).attach(service)

    @service.task()
    async def say(stop: outlast.Stop) -> None:
        sys.stdout.write(f"listening on {options.port}\n")
        sys.stdout.flush()
        await stop.wait()

    asyncio.run(service.run())


if __name__ == "__main__":
    main()
