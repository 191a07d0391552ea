"""The proxy that counts and fails, on real sockets: an echo server behind it, and PostgreSQL."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from outlast.testing import FaultProxy
from outlast.testing._network.fault_proxy import peak
from outlast.testing._network.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outlast.testing import PostgresServer

LIMIT_S = 60.0


class Echo:
    """A TCP server that sends back what it gets, in a thread of its own, and knows how many clients it has."""

    def __init__(self) -> None:
        self.clients = 0
        self.seen = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        starting = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self.serve, "127.0.0.1", free_port(), backlog=2048), self.loop
        )
        self.server = starting.result(LIMIT_S)
        self.port = int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        self.seen += 1
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            # Python 3.11 logs an error for a stream's task that ends as cancelled.
            pass
        finally:
            self.clients -= 1
            writer.close()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result(LIMIT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(LIMIT_S)
        self.loop.close()

    async def end(self) -> None:
        self.server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.port) as running:
        yield running


def dial(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), LIMIT_S)


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    return data


def silent(client: socket.socket, for_s: float = 0.2) -> bool:
    client.settimeout(for_s)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(LIMIT_S)
    return False


def is_reset(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b"never"
    except ConnectionResetError:
        return True


def newcomer_is_reset(proxy: FaultProxy) -> bool:
    """The reset may be so quick that the system call which connects reports it."""
    try:
        with dial(proxy) as client:
            return is_reset(client)
    except ConnectionResetError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.mark.short
def test_it_forwards_both_ways_and_counts(proxy: FaultProxy, echo: Echo) -> None:
    began_s = time.monotonic()
    with dial(proxy) as one, dial(proxy) as two:
        for client in (one, two):
            client.sendall(b"hello")
            assert receive(client, 5) == b"hello"
        assert proxy.live == 2
    wait_until(lambda: proxy.live == 0)
    wait_until(lambda: echo.clients == 0)
    assert proxy.attempt_count == len(proxy.attempts) == proxy.since(began_s) == 2
    assert began_s <= proxy.attempts[0] <= proxy.attempts[1] <= time.monotonic()
    assert proxy.peak_in(10.0) == 2
    assert proxy.peak_in(10.0, since=time.monotonic()) == 0


def test_ten_megabytes_arrive_whole_through_a_client_that_reads_late(proxy: FaultProxy) -> None:
    sent = bytes(range(256)) * 40_960
    with dial(proxy) as client:
        writer = threading.Thread(target=client.sendall, args=(sent,))
        writer.start()
        time.sleep(0.2)
        assert receive(client, len(sent)) == sent
        writer.join(LIMIT_S)


def test_a_half_closed_connection_still_gets_its_answer(proxy: FaultProxy) -> None:
    with dial(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 100) == b"last words"


def test_refuse_resets_newcomers_and_leaves_the_others_alone(proxy: FaultProxy, echo: Echo) -> None:
    with dial(proxy) as old:
        old.sendall(b"a")
        assert receive(old, 1) == b"a"
        proxy.mode = "refuse"
        assert newcomer_is_reset(proxy)
        old.sendall(b"b")
        assert receive(old, 1) == b"b"
        proxy.mode = "pass"
        with dial(proxy) as new:
            new.sendall(b"c")
            assert receive(new, 1) == b"c"
    assert proxy.attempt_count == 3
    assert echo.seen == 2


def test_blackhole_keeps_what_it_got_and_forwards_it_when_it_heals(proxy: FaultProxy, echo: Echo) -> None:
    with dial(proxy) as old:
        old.sendall(b"a")
        assert receive(old, 1) == b"a"
        proxy.mode = "blackhole"
        with dial(proxy) as new:
            old.sendall(b"old")
            new.sendall(b"new")
            assert silent(old)
            assert silent(new)
            assert (proxy.live, echo.seen) == (2, 1)
            proxy.mode = "pass"
            assert receive(old, 3) == b"old"
            assert receive(new, 3) == b"new"


def test_mute_forwards_the_work_and_keeps_the_answer(proxy: FaultProxy, echo: Echo) -> None:
    with dial(proxy) as one:
        proxy.mode = "mute"
        one.sendall(b"work")
        assert silent(one)
        assert echo.seen == 1
        proxy.mode = "pass"
        assert receive(one, 4) == b"work"


def test_blackhole_does_not_tell_one_side_that_the_other_left(proxy: FaultProxy, echo: Echo) -> None:
    with dial(proxy) as client:
        client.sendall(b"a")
        assert receive(client, 1) == b"a"
        proxy.mode = "blackhole"
    wait_until(lambda: proxy.live == 0)
    time.sleep(0.1)
    assert echo.clients == 1
    proxy.mode = "pass"
    wait_until(lambda: echo.clients == 0)


def test_clients_that_give_up_in_the_dark_are_not_kept(proxy: FaultProxy, echo: Echo) -> None:
    proxy.mode = "blackhole"
    for _ in range(200):
        with dial(proxy) as client:
            client.sendall(b"anybody?")
    # The last of them may wait in the kernel, while the proxy has no more of those that it took.
    wait_until(lambda: proxy.attempt_count == 200 and not proxy._links)
    proxy.mode = "pass"
    assert (proxy.attempt_count, echo.seen) == (200, 0)


@pytest.mark.parametrize("mode", ["pass", "blackhole"])
def test_cut_resets_all_in_every_mode(proxy: FaultProxy, echo: Echo, mode: str) -> None:
    with dial(proxy) as first:
        first.sendall(b"a")
        assert receive(first, 1) == b"a"
        proxy.mode = mode  # type: ignore[assignment]
        with dial(proxy) as second:
            wait_until(lambda: proxy.live == 2)
            proxy.cut()
            assert is_reset(first)
            assert is_reset(second)
    wait_until(lambda: echo.clients == 0)
    assert proxy.live == 0


def test_when_the_target_refuses_the_client_is_reset_at_once() -> None:
    with FaultProxy("127.0.0.1", free_port()) as proxy:
        assert newcomer_is_reset(proxy)
        assert proxy.attempt_count == 1


def test_delay_is_added_each_way(proxy: FaultProxy) -> None:
    with dial(proxy) as client:
        proxy.delay_s = 0.1
        began_s = time.monotonic()
        client.sendall(b"slow")
        assert receive(client, 4) == b"slow"
        assert time.monotonic() - began_s >= 0.2


def test_a_thousand_clients(proxy: FaultProxy, echo: Echo) -> None:
    async def one(number: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        connected.append(number)
        if len(connected) == 1000:
            everyone.set()
        await everyone.wait()
        writer.write(b"x" * 1000)
        whole = await reader.readexactly(1000) == b"x" * 1000
        writer.close()
        return whole

    async def main() -> list[bool]:
        async with asyncio.timeout(60):
            return await asyncio.gather(*(one(number) for number in range(1000)))

    connected: list[int] = []
    everyone = asyncio.Event()
    assert all(asyncio.run(main()))
    assert proxy.attempt_count == echo.seen == 1000
    assert proxy.peak_in(60.0) == 1000
    wait_until(lambda: proxy.live == 0)


def test_postgresql_through_it(postgres: PostgresServer) -> None:
    with FaultProxy("127.0.0.1", postgres.port) as proxy:
        dsn = postgres.dsn(port=proxy.port)
        with psycopg.connect(dsn) as conn:
            assert conn.execute("SELECT repeat('x', 1000000)").fetchone() == ("x" * 1_000_000,)
            proxy.cut()
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        proxy.mode = "refuse"
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn, connect_timeout=5)
        proxy.mode = "blackhole"
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(dsn, connect_timeout=2)
        proxy.mode = "pass"
        psycopg.connect(dsn).close()


def test_stop_resets_everyone_and_frees_the_port(echo: Echo) -> None:
    proxy = FaultProxy("127.0.0.1", echo.port)
    port = proxy.start()
    with dial(proxy) as client:
        client.sendall(b"a")
        assert receive(client, 1) == b"a"
        proxy.stop()
        assert is_reset(client)
    proxy.stop()
    with FaultProxy("127.0.0.1", echo.port) as again:
        assert again.port != port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), LIMIT_S)


def test_peak_counts_a_half_open_window() -> None:
    assert peak([], 1.0) == 0
    assert peak([0.0, 0.05, 0.1], 0.1) == 2
    assert peak([0.0, 1.0, 1.01, 1.02, 5.0], 0.1) == 3
