"""PostgreSQL keeps the promises of an adapter: a real server behind a proxy that refuses and stands still."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from adapter_contract import AdapterContract, Failure, Rig
from psycopg.conninfo import conninfo_to_dict

from outlast import HealthPolicy, Kind, Scope
from outlast.postgres import Connection, Postgres
from outlast.testing import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from conftest import RunAsync

SECRET = "hunter2-of-the-shop"
HELD = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'outlast%'"
WORKING = f"{HELD} AND state = 'active' AND query LIKE '%pg_sleep%'"


def raising(code: str, kind: Kind) -> Failure:
    async def call(db: Postgres) -> None:
        async with db.connection() as conn:
            await conn.execute(f"DO $$ BEGIN RAISE 'as the test says' USING ERRCODE = '{code}'; END $$".encode())

    return Failure(call, kind, Scope.CALL)


class PostgresRig(Rig):
    secret = SECRET

    def __init__(self, dsn: str, proxy: FaultProxy, run_async: RunAsync, admin: psycopg.Connection) -> None:
        self.dialled: list[float] = []
        self._dbname = conninfo_to_dict(dsn)["dbname"]
        self._proxy = proxy
        self._run = run_async
        self._admin = admin

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._run(main)

    def adapter(self) -> Postgres:
        dsn = f"postgresql://postgres:{SECRET}@127.0.0.1:{self._proxy.port}/{self._dbname}?sslmode=disable"
        return Postgres(dsn, operation_timeout_s=0.3, connect_timeout_s=2.0, policy=HealthPolicy())

    @contextlib.asynccontextmanager
    async def session(self, adapter: Postgres) -> AsyncIterator[Connection]:
        conn = await adapter.connect()
        try:
            yield conn
        finally:
            await conn.close()

    async def use(self, session: Connection) -> None:
        await session.execute("SELECT 1")

    async def call(self, adapter: Postgres) -> None:
        async with adapter.connection() as conn:
            await conn.execute("SELECT 1")

    async def slow(self, adapter: Postgres) -> None:
        async with adapter.connection() as conn:
            await conn.execute("SELECT pg_sleep(60)")

    def failures(self) -> dict[str, Failure]:
        return {
            "a unique key": raising("23505", Kind.REJECTED),
            "a missing table": raising("42P01", Kind.PERMANENT),
            "a lock": raising("55P03", Kind.CONTENDED),
            "a full tablespace": raising("53100", Kind.EXHAUSTED),
            "a deadlock": raising("40P01", Kind.TRANSIENT),
            "corruption": raising("XX001", Kind.FATAL),
        }

    def refuse(self) -> None:
        self._proxy.mode = "refuse"
        self._proxy.cut()

    def freeze(self) -> None:
        self._proxy.mode = "blackhole"

    def heal(self) -> None:
        self._proxy.mode = "pass"

    def held(self) -> int:
        return self._count(HELD)

    def working(self) -> int:
        return self._count(WORKING)

    def _count(self, query: str) -> int:
        return int((self._admin.execute(query.encode()).fetchone() or (0,))[0])


class TestPostgres(AdapterContract):
    @pytest.fixture
    def rig(self, database: str, run_async: RunAsync, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresRig]:
        server = conninfo_to_dict(database)
        with (
            FaultProxy("127.0.0.1", int(str(server["port"]))) as proxy,
            psycopg.connect(database, autocommit=True) as admin,
        ):
            rig = PostgresRig(database, proxy, run_async, admin)
            connect = Connection.connect

            async def noted(*args: Any, **options: Any) -> Connection:
                rig.dialled.append(asyncio.get_running_loop().time())
                return await connect(*args, **options)

            monkeypatch.setattr(Connection, "connect", noted)
            yield rig
