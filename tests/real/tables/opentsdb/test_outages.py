"""The doors of OpenTSDB while PostgreSQL is away: what senders are told, and what is stored afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from metrics_service import metrics
from served import LIMIT_S

from outlast.postgres import Postgres

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync
    from outlast.testing import PostgresServer

pytestmark = pytest.mark.expected_logs


def put(at: int) -> bytes:
    return f"put cpu {at} 1 host=a\n".encode()


def test_a_restart_is_held_over_and_a_long_outage_is_told(run_async: RunAsync, tmp_path: Path, server: PostgresServer) -> None:
    async def main() -> None:
        async with metrics(tmp_path, db=Postgres(server.dsn()), hold_s=20.0) as at:
            reader, writer = await at.telnet()
            writer.write(put(1) + b"version\n")
            async with asyncio.timeout(LIMIT_S):
                assert (await reader.readline()).startswith(b"net.opentsdb")
                await reader.readline()
            await asyncio.to_thread(server.stop)
            writer.write(b"".join(put(number) for number in range(2, 1_502)) + b"version\n")
            # HTTP is told at once, before its body is read, with the first cause.
            await at.until(lambda: not at.tables.dependency.passable)
            status, found, headers = await at.ask("POST", "/api/put", {"metric": "cpu"})
            assert (status, found["error"]["code"]) == (503, 503)
            assert int(headers["retry-after"]) >= 1
            status, _, _ = await at.ask("GET", "/api/query?start=1&m=sum:cpu")
            assert status == 503
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(LIMIT_S):
                # No error came before it, and so all is stored.
                assert (await reader.readline()).startswith(b"net.opentsdb")
                await reader.readline()
            assert [number for _, number, _ in await at.read("cpu")] == list(range(1, 1_502))
            at.door.limits = type(at.door.limits)(hold_s=0.2)
            await asyncio.to_thread(server.stop)
            writer.write(put(2_000) + b"put cpu x 1 host=a\n" + put(2_001))
            async with asyncio.timeout(LIMIT_S):
                said = [await reader.readline() for _ in range(3)]
            assert [line.split(b": ")[1] for line in said] == [
                b"Please throttle writes",
                b"illegal argument",
                b"Please throttle writes",
            ]
            writer.close()
            await asyncio.to_thread(server.start)

    run_async(main, limit_s=120.0)
