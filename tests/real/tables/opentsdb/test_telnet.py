"""The telnet door over sockets, on a SQLite file."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from metrics_service import metrics
from served import LIMIT_S

from outlast import ConfigurationError, Service, Stop
from outlast.tables import Range
from outlast.tables._telnet.server import PutServer

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync


def put(at: int, value: object = 1, metric: str = "cpu") -> bytes:
    return f"put {metric} {at} {value} host=a\n".encode()


@pytest.mark.short
def test_lines_are_durable_when_the_command_behind_them_is_answered(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            said = await at.say(put(1, 1) + put(2, 0.5) + b"put cpu 3 x host=a\nversion\n")
            assert said.decode().splitlines() == [
                'put: invalid value: Unable to parse value to a number: "x"; write 42, 4.2 or 4.2e1',
                "net.opentsdb.tools 2.4.0 built at revision outlast (MINT)",
                "Built for outlast.tables, which speaks as it does",
            ]
            # The field took an integer first, and then a float: both are as they came.
            assert await at.read("cpu") == [({"host": "a"}, 1, 1), ({"host": "a"}, 2, 0.5)]

    run_async(main)


def test_a_number_that_is_cut_at_the_end_is_not_stored(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            assert await at.say(put(1) + b"put cpu 2 12345 host=a\n"[:-14]) == b""
            assert await at.read("cpu") == [({"host": "a"}, 1, 1)]

    run_async(main)


def test_a_byte_a_packet_and_options_first(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            reader, writer = await at.telnet()
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"\xff\xfd\x03\xff\xfb\x18" + put(1) + b"version\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(LIMIT_S):
                assert (await reader.readline()).startswith(b"net.opentsdb")
            writer.close()
            assert await at.read("cpu") == [({"host": "a"}, 1, 1)]

    run_async(main)


def test_a_hundred_thousand_bad_lines_that_nobody_reads_hurt_no_other(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path, unread_s=0.5) as at:
            deaf = socket.create_connection(("127.0.0.1", at.put.port))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()

            async def shout() -> None:
                try:
                    for _ in range(100):
                        await loop.sock_sendall(deaf, b"put cpu now 1 h=a\n" * 1_000)
                except OSError:
                    return

            shouting = asyncio.create_task(shout())
            for number in range(1, 51):
                assert b"net.opentsdb" in await at.say(put(number) + b"version\n")
            await at.until(lambda: "reader too slow" in at.door.cuts)
            await shouting
            deaf.close()
            assert len(await at.read("cpu")) == 50

    run_async(main)


def test_connections_beyond_the_bounds_are_told_and_closed(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path, connections_per_client_max=2) as at:
            kept = [await at.telnet() for _ in range(2)]
            await at.until(lambda: at.door.open == 2)
            reader, writer = await at.telnet()
            async with asyncio.timeout(LIMIT_S):
                said = await reader.read()
            assert said == b"put: Please throttle writes: too many connections; use one for many lines, or come back later\n"
            writer.close()
            assert at.door.cuts == {"too many": 1}
            for _, other in kept:
                other.close()
            await at.until(lambda: at.door.open == 0)
            assert await at.say(put(1)) == b""

    run_async(main)


def test_many_senders_at_once(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            senders = [
                at.say(b"".join(f"put cpu.{sender % 3} {at_s} {at_s} host=h{sender}\n".encode() for at_s in range(1, 301)))
                for sender in range(12)
            ]
            assert await asyncio.gather(*senders) == [b""] * 12
            for table in ("cpu.0", "cpu.1", "cpu.2"):
                found = [point async for point in at.tables.read(Range(table))]
                assert len(found) == 4 * 300
                assert all(point.fields["value"] == point.time_ns // 10**9 for point in found)

    run_async(main)


def test_a_stop_stores_what_was_read(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            reader, writer = await at.telnet()
            writer.write(put(1) + b"version\n")
            async with asyncio.timeout(LIMIT_S):
                assert b"net.opentsdb" in await reader.readline()
                await reader.readline()
            writer.write(b"".join(put(number) for number in range(2, 2_001)))
            await at.until(lambda: at.door.points > 1)
            at.stop.fire("a stop")
            async with asyncio.timeout(LIMIT_S):
                # No word: nothing that was read is refused. What lay in the kernel was not read.
                assert await reader.read() == b""
            writer.close()
            read = at.door.points
            assert at.door.refused == {"never": 0, "later": 0, "person": 0}
        assert 1 < read <= 2_000
        async with metrics(tmp_path) as at:
            assert [number for _, number, _ in await at.read("cpu")] == list(range(1, read + 1))

    run_async(main)


def test_an_address_that_is_taken(run_async: RunAsync, tmp_path: Path) -> None:
    async def main() -> None:
        async with metrics(tmp_path) as at:
            other = Service("other")
            PutServer(at.tables, f"127.0.0.1:{at.put.port}").attach(other)
            with pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{at.put.port}: .* in use; another"):
                await other.run(Stop())

    run_async(main)
