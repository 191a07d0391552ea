"""The stream of a walsender, on a scripted libpq: batches, positions, pauses, the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from psycopg import pq

from outlast._core.faults import attached
from outlast.postgres import Postgres
from outlast.postgres.replication import Replication, StreamEndedError
from outlast.postgres.replication import _stream as replication_stream
from outlast.postgres.replication._stream import CopyStream

if TYPE_CHECKING:
    from outlast.postgres import Connection


class ScriptedLibpq:
    """What the stream uses of `PGconn`. What is `put` here comes out of `get_copy_data`; status updates are kept."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.incoming: deque[bytes | None] = deque()
        """None: bytes that complete no message."""
        self.arrived: deque[bytes] = deque()
        self.statuses: list[tuple[int, int, int, bool]] = []
        self.reads = 0
        self.ended = False
        self.closed = False
        self.broken: psycopg.Error | None = None
        self.ssl_in_use = False
        self.status = pq.ConnStatus.OK
        self.flushes_pending = 0

    @property
    def socket(self) -> int:
        return self.ours.fileno()

    def put(self, *messages: bytes | None) -> None:
        self.incoming.extend(messages)
        self.theirs.send(b"x")

    def consume_input(self) -> None:
        self.reads += 1
        if self.broken is not None:
            raise self.broken
        self.ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.ours.recv(4096)
        if self.incoming and (message := self.incoming.popleft()) is not None:
            self.arrived.append(message)

    def get_copy_data(self, _: int) -> tuple[int, memoryview]:
        if self.arrived:
            data = self.arrived.popleft()
            return len(data), memoryview(data)
        return (-1 if self.ended and not self.incoming else 0), memoryview(b"")

    def put_copy_data(self, data: bytes) -> None:
        _, written, flushed, applied, _, asked = struct.unpack(">cQQQqB", data)
        self.statuses.append((written, flushed, applied, bool(asked)))

    def put_copy_end(self) -> None:
        self.ended = True
        self.theirs.send(b"x")

    def flush(self) -> int:
        self.flushes_pending = max(0, self.flushes_pending - 1)
        return self.flushes_pending

    def is_busy(self) -> int:
        return 0

    def get_result(self) -> None:
        return None

    def finish(self) -> None:
        self.closed = True
        self.ours.close()
        self.theirs.close()


class ScriptedConnection:
    def __init__(self) -> None:
        self.pgconn = ScriptedLibpq()
        self.aborted_for = None


def data_message(end: int, payload: bytes = b"B") -> bytes:
    return struct.pack(">cQQq", b"w", end, end, 7) + payload


def keepalive_message(end: int, *, asks: bool = False) -> bytes:
    return struct.pack(">cQqB", b"k", end, 7, asks)


def stream_on(conn: ScriptedConnection, **options: Any) -> CopyStream:
    return CopyStream(cast("Connection", conn), timeout_s=options.pop("timeout_s", 600.0), **options)


def on_real_loop(main: Any) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(limited())


def test_messages_come_in_batches_with_the_keepalive_behind_them() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        conn.pgconn.put(data_message(10), data_message(20, b"I1"), keepalive_message(30))
        assert await stream.next() == [b"B", b"I1"]
        assert (stream.keepalive_lsn, stream.received_lsn) == (30, 20)
        conn.pgconn.put(keepalive_message(40, asks=True))
        assert await stream.next() == []
        assert stream.keepalive_lsn == 40
        # It was asked, so it answered; nothing is confirmed, so nothing but what was written.
        assert conn.pgconn.statuses[-1] == (40, 0, 0, False)
        stream.close()
        assert conn.pgconn.closed

    on_real_loop(main)


def test_a_stream_that_never_stops_is_read_at_intervals_and_a_few_messages_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication_stream, "REST_S", 0.2)

    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        reads: list[int] = []
        for end in range(1, 101):
            conn.pgconn.put(data_message(end))
            for _ in range(3):
                await asyncio.sleep(0)
            reads.append(conn.pgconn.reads)
        assert len(set(reads[:5])) == 5, "the first ones are read as they come"
        assert len(set(reads)) < 50, "it wakes up for each message"
        got: list[bytes] = []
        while len(got) < 100:
            got += await stream.next()
        # Once there was nothing to read the descriptor is watched again.
        monkeypatch.setattr(replication_stream, "REST_S", 3_600.0)
        while stream._resting is not None:
            await asyncio.sleep(0)
        conn.pgconn.put(data_message(101))
        assert await stream.next() == [b"B"]
        stream.close()

    on_real_loop(main)


def test_what_openssl_holds_back_is_asked_for_again() -> None:
    """It took it from the socket, which is silent from then on; libpq takes only what it has room for."""

    async def main() -> None:
        conn = ScriptedConnection()
        conn.pgconn.ssl_in_use = True
        stream = stream_on(conn)
        await asyncio.sleep(0)
        conn.pgconn.put(None, None, None, data_message(10))
        assert await stream.next() == [b"B"]
        stream.close()

    on_real_loop(main)


def test_what_came_with_the_answer_to_the_command_is_given_though_the_socket_is_silent() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        conn.pgconn.arrived.append(data_message(10))
        stream = stream_on(conn)
        assert await stream.next() == [b"B"]
        stream.close()

    on_real_loop(main)


def test_leaving_the_loop_over_batches_leaves_the_session_open_and_a_cancel_closes_it() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        session = Replication(Postgres("postgresql://localhost/shop"), cast("Connection", conn), timeout_s=600.0, rule=None)
        session.stream = stream_on(conn)
        conn.pgconn.put(data_message(10))
        async for batch in session.batches():
            assert batch
            break
        for _ in range(10):
            await asyncio.sleep(0)
        assert not conn.pgconn.closed
        task = asyncio.ensure_future(anext(session.batches()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert conn.pgconn.closed

    on_real_loop(main)


def test_confirmations_are_sent_together_and_move_forward_only() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        conn.pgconn.put(*(data_message(end) for end in (10, 20, 30)))
        await stream.next()
        for end in (10, 20, 15, 30, 30):
            stream.confirm(end)
        while not conn.pgconn.statuses:
            await asyncio.sleep(0)
        assert conn.pgconn.statuses == [(30, 30, 30, False)]
        with pytest.raises(ValueError, match="0/1F cannot be confirmed: the server has come to 0/1E only"):
            stream.confirm(31)
        stream.close()

    on_real_loop(main)


@pytest.mark.parametrize(
    "later",
    [[data_message(0x48, b"B"), data_message(0, b"R")], [data_message(0x30, b"B")]],
    ids=["a table is described", "ran beside it"],
)
def test_the_end_of_a_transaction_may_be_confirmed_whatever_position_came_after_it(later: list[bytes]) -> None:
    """As PostgreSQL sends it: a table's description has no position, and a transaction may begin before the commit of another."""

    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        conn.pgconn.arrived.extend([data_message(0x28, b"I"), data_message(0x40, b"C"), *later])
        await stream.next()
        stream.confirm(0x40)
        stream.close()

    on_real_loop(main)


def test_what_a_read_brought_that_failed_half_way_may_be_confirmed() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        conn.pgconn.arrived.extend([data_message(0x20, b"I"), data_message(0x40, b"C"), b"z" + bytes(20)])
        assert await stream.next() == [b"I", b"C"]
        stream.confirm(0x40)
        with pytest.raises(psycopg.OperationalError, match="unknown type b'z'"):
            await stream.next()
        stream.close()

    on_real_loop(main)


def test_a_slow_consumer_pauses_the_reading_at_its_bound() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn, buffer_bytes_max=5 * len(data_message(0, b"10")))
        conn.pgconn.put(*(data_message(end, b"%d" % end) for end in range(1, 101)))
        for _ in range(50):
            await asyncio.sleep(0)
        reads = conn.pgconn.reads
        assert reads < 16
        for _ in range(50):
            await asyncio.sleep(0)
        assert conn.pgconn.reads == reads, "it reads although it is full"
        ends: list[int] = []
        while len(ends) < 100:
            batch = await stream.next()
            assert 0 < len(batch) <= 6
            ends += map(int, batch)
        assert ends == list(range(1, 101))
        stream.close()

    on_real_loop(main)


def test_what_came_before_the_end_is_given_before_the_error() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        failures: list[psycopg.Error] = []
        stream = stream_on(conn, on_failure=failures.append)
        conn.pgconn.put(data_message(10))
        conn.pgconn.ended = True
        assert await stream.next() == [b"B"]
        for _ in range(2):
            with pytest.raises(StreamEndedError, match="being shut down"):
                await stream.next()
        assert len(failures) == 1
        assert attached(failures[0]) is not None
        stream.close()

    on_real_loop(main)


def test_a_broken_connection_wakes_who_waits_and_says_so_once() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        waiting = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        conn.pgconn.broken = psycopg.OperationalError("the server closed the connection unexpectedly")
        conn.pgconn.put(data_message(10))
        with pytest.raises(psycopg.OperationalError, match="unexpectedly"):
            await waiting
        stream.close()
        stream.close()

    on_real_loop(main)


def test_a_cancelled_wait_loses_nothing() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        waiting = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        waiting.cancel()
        conn.pgconn.put(data_message(10))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await stream.next() == [b"B"]
        stream.close()

    on_real_loop(main)


def test_finishing_sends_the_last_position_and_throws_the_rest_away() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        conn.pgconn.put(data_message(10))
        await stream.next()
        stream.confirm(10)
        conn.pgconn.put(data_message(20))
        assert await stream.finish(10.0)
        assert conn.pgconn.statuses[-1][1:3] == (10, 10)
        assert conn.pgconn.closed
        with pytest.raises(StreamEndedError):
            await stream.next()

    on_real_loop(main)


def test_an_unknown_message_of_the_walsender_is_said_so() -> None:
    async def main() -> None:
        conn = ScriptedConnection()
        stream = stream_on(conn)
        conn.pgconn.put(b"z" + bytes(20))
        with pytest.raises(psycopg.OperationalError, match="unknown type b'z'"):
            await stream.next()
        stream.close()

    on_real_loop(main)
