"""The stream of a walsender: messages in batches, status updates on time, whatever the consumer does.

Everything here runs in callbacks of the event loop: nothing is awaited but the next batch, so a cancel has nothing to
interrupt, and a slow consumer stops the reading, never the heartbeat.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import errors, pq

from outlast import Fault, Kind, Scope
from outlast.extend import attach
from outlast.postgres._connection import Connection, DeadlineExceededError
from outlast.postgres.replication._heartbeat import Beat, Heartbeat
from outlast.postgres.replication._lsn import format_lsn

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH_S: Final = 946_684_800
"""2000-01-01 00:00 UTC in Unix seconds: where PostgreSQL counts its microseconds from."""
CONFIRM_S: Final = 0.02
"""Confirmations that come closer together are sent as one: the server may write a file to disk for each."""
READS_A_TURN: Final = 16
"""libpq reads about 16 KiB at a time: after 256 KiB, some milliseconds of work, others on the loop have their turn."""
READS_TLS_MIN: Final = 8
"""OpenSSL may hold bytes that the socket no longer shows, at most a record of 16 KiB. libpq takes at least 2 KiB at a time."""
REST_S: Final = 0.001
"""The pause between two reads of a stream that never stops: the server writes message by message, and to wake up for each costs
more than to read it. So a change of such a stream comes a millisecond or two later."""
REST_AFTER: Final = 8
"""So many reads in a row, each within twice `REST_S` of the last, that found something: a few changes are never late."""
_DATA, _KEEPALIVE = b"wk"
NO_LINGER: Final = struct.pack("ii", 1, 0)
_STATUS: Final = struct.Struct(">cQQQqB")
HEAD_BYTES: Final = 25
"""The head of the walsender before each message of the plugin: `w`, where it begins and ends in the log, when it was sent."""


class StreamEndedError(psycopg.OperationalError):
    """The server ended the stream in good order: it is being shut down, or we finished."""


class CopyStream:
    """A connection in COPY BOTH, after START_REPLICATION. Belongs to one consumer on one event loop.

    At most `buffer_bytes_max` bytes, and what libpq read in one go on top, wait for the consumer; then reading pauses, and
    TCP makes the server wait. So a batch holds no more than that.
    """

    def __init__(
        self,
        conn: Connection,
        *,
        timeout_s: float,
        start_lsn: int = 0,
        buffer_bytes_max: int = 4 << 20,
        on_failure: Callable[[psycopg.Error], None] = lambda _: None,
    ) -> None:
        """Begin to read and to speak; `timeout_s` is the session's wal_sender_timeout."""
        if buffer_bytes_max < 1:
            raise ValueError(f"buffer_bytes_max must be at least 1, not {buffer_bytes_max}")
        self.received_lsn = self.flushed_lsn = self.applied_lsn = start_lsn
        self.keepalive_lsn = 0
        """The position up to which the server had read, by the last keepalive before the end of the last batch that was taken."""
        self.error: psycopg.Error | None = None
        self._conn = conn
        self._pgconn = conn.pgconn
        self._descriptor = self._pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(timeout_s, self._loop.time())
        self._bytes_max = buffer_bytes_max
        self._reads_min = READS_TLS_MIN if self._pgconn.ssl_in_use else 1
        self._on_failure = on_failure
        self._buffer: list[bytes] = []
        self._size = 0
        self._keepalive = 0
        self._waiter: asyncio.Future[None] | None = None
        self._reading = self._writing = False
        self._finishing = self._ending = self._released = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._resting: asyncio.TimerHandle | None = None
        """Set while the descriptor is not watched because the next read has its time."""
        self._read_at = self._loop.time()
        self._reads_in_a_row = 0
        self._timer: asyncio.TimerHandle | None = None
        self._confirm_timer: asyncio.TimerHandle | None = None
        self._confirmed_at = float("-inf")
        self._read_on()
        # What came together with the answer to START_REPLICATION is in libpq already: the socket does not show it.
        self._loop.call_soon(self._readable)
        self._beat()

    # The consumer's side.

    async def next(self) -> list[bytes]:
        """Return the plugin's messages that have come, in order, as soon as there is one; reading goes on meanwhile.

        The list is empty when only a keepalive came: see `keepalive_lsn`. Raises what ended the stream, after everything that
        came before it was given. A cancelled wait loses nothing.
        """
        while not self._buffer and not self._keepalive:
            if self.error is not None:
                raise self.error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        batch, self._buffer, self._size = self._buffer, [], 0
        if self._keepalive:
            self.keepalive_lsn, self._keepalive = self._keepalive, 0
        if not self._reading and self.error is None:
            self._heartbeat.resume(self._loop.time())
            self._read_on()
            self._loop.call_soon(self._readable)
        return batch

    def confirm(self, flushed_lsn: int, applied_lsn: int | None = None) -> None:
        """Confirm, within 20 ms, that everything up to `flushed_lsn` is durable here; the server never sends that again.

        It only moves forward: a lower position is ignored. `applied_lsn` is `flushed_lsn` unless given. Raises `ValueError` for a
        position that the server has not reached yet: confirmed, it would be lost.
        """
        reached = max(self.received_lsn, self._keepalive, self.keepalive_lsn)
        applied_lsn = flushed_lsn if applied_lsn is None else applied_lsn
        if max(flushed_lsn, applied_lsn) > reached:
            wrong = format_lsn(max(flushed_lsn, applied_lsn))
            raise ValueError(f"{wrong} cannot be confirmed: the server has come to {format_lsn(reached)} only")
        if flushed_lsn <= self.flushed_lsn and applied_lsn <= self.applied_lsn:
            return
        self.flushed_lsn = max(self.flushed_lsn, flushed_lsn)
        self.applied_lsn = max(self.applied_lsn, applied_lsn)
        if self._confirm_timer is None and self.error is None:
            self._confirm_timer = self._loop.call_at(max(self._loop.time(), self._confirmed_at + CONFIRM_S), self._send_confirmed)

    async def finish(self, timeout_s: float) -> bool:
        """Say goodbye: send the last confirmed position and wait until the server has taken it; close in any case.

        Return whether the server said so within `timeout_s` seconds. Whatever it still sends is thrown away: it is not
        confirmed, so it comes again. Cancelled, it closes at once.
        """
        try:
            if self.error is None:
                self._send(ask=False)
                self._say_goodbye()
                await asyncio.wait({self._ended}, timeout=timeout_s)
            return self._ended.done() and not self._ended.cancelled() and isinstance(self.error, StreamEndedError)
        finally:
            self.close()

    def close(self, *, reset: bool = False) -> None:
        """Close the connection, at once and without waiting for the server. Safe to call twice. See `shut_down`."""
        if self.error is None:
            self.error = psycopg.OperationalError("the replication session is closed")
        self._let_go()
        shut_down(self._pgconn, reset=reset)
        self._pgconn.finish()

    # Reading.

    def _read_on(self) -> None:
        if not self._reading and self.error is None:
            self._reading = True
            self._loop.add_reader(self._descriptor, self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._end_rest()
            self._loop.remove_reader(self._descriptor)
            self._heartbeat.pause()

    def _rest(self) -> None:
        """Decide when to read again, now that everything was read: in a stream that never stops, not before `REST_S`."""
        now = self._loop.time()
        self._reads_in_a_row = self._reads_in_a_row + 1 if now < self._read_at + 2 * REST_S else 0
        self._read_at = now
        if self._reads_in_a_row < REST_AFTER:
            self._watch_again()
            return
        if not self._end_rest():
            self._loop.remove_reader(self._descriptor)
        self._resting = self._loop.call_at(now + REST_S, self._readable)

    def _watch_again(self) -> None:
        if self._end_rest():
            self._loop.add_reader(self._descriptor, self._readable)

    def _end_rest(self) -> bool:
        """Cancel the timer of the next read; return whether there was one. The descriptor is not watched then."""
        if self._resting is None:
            return False
        self._resting.cancel()
        self._resting = None
        return True

    def _readable(self) -> None:
        if not self._reading or self._ending:
            return
        try:
            self._drain()
        except psycopg.Error as exc:
            self._fail(exc)
        if self._waiter is not None and not self._waiter.done() and (self._buffer or self._keepalive):
            self._waiter.set_result(None)

    def _drain(self) -> None:
        """Read what is there, while it is this callback's turn."""
        vain = 0
        for turn in range(READS_A_TURN):
            self._pgconn.consume_input()
            size, is_over = self._take_whole()
            if is_over:
                self._end()
                return
            vain = 0 if size else vain + 1
            if vain >= self._reads_min:
                if turn >= vain:
                    self._rest()
                else:
                    self._watch_again()
                return
            if self._size >= self._bytes_max:
                self._pause()
                return
        # More may be there that the socket does not show.
        self._loop.call_soon(self._readable)

    def _take_whole(self) -> tuple[int, bool]:
        """Take the messages that have come whole; return their size, and whether the stream is over. Loops once a message."""
        get, keep = self._pgconn.get_copy_data, self._buffer.append
        size, newest = 0, b""
        try:
            while True:
                count, data = get(1)
                if count <= 0:
                    return size, count < 0
                message = data.tobytes()
                if message[0] == _DATA:
                    # Its bytes and nothing more: whatever is made of each is made half a million times a second.
                    keep(message[HEAD_BYTES:])
                    size += count
                    # The last is not always the furthest: pgoutput describes a table at position 0/0, and a transaction that ran
                    # beside an earlier one begins before that one's end. The position is what tells two heads apart.
                    if message > newest:  # noqa: PLR1730 - `max` is a call
                        newest = message
                else:
                    self._told(message)
                    size += 1
        finally:
            # Also of a read that fails half-way: what it has brought is returned, and may be confirmed.
            if size:
                self._take_note(size, newest)

    def _take_note(self, size: int, newest: bytes) -> None:
        self._heartbeat.heard(self._loop.time())
        if self._finishing:
            self._buffer.clear()
            return
        self._size += size
        self.received_lsn = max(self.received_lsn, int.from_bytes(newest[9:17]))

    def _told(self, data: bytes) -> None:
        """Take a keepalive: how far the server has read, and whether it wants an answer."""
        if data[0] != _KEEPALIVE:
            raise psycopg.OperationalError(f"the walsender sent a message of unknown type {data[:1]!r}")
        self._heartbeat.heard(self._loop.time())
        self._keepalive = max(self._keepalive, int.from_bytes(data[1:9], "big"))
        if data[17] and not self._finishing:
            self._send(ask=False)

    def _end(self) -> None:
        """End the stream with its reason, as soon as that has come."""
        self._ending = True
        if self._pgconn.is_busy():
            # The reason is still under way.
            self._loop.add_reader(self._descriptor, self._await_reason)
            return
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            self._fail(errors.error_from_result(result, "utf-8"))
            return
        reason = "we finished" if self._finishing else "the server ended the stream: it is being shut down"
        error = StreamEndedError(reason)
        attach(error, Fault(Kind.TRANSIENT, "stream ended", reason, scope=Scope.CALL))
        self._fail(error)

    def _await_reason(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.Error as exc:
            self._fail(exc)
            return
        if not self._pgconn.is_busy():
            self._end()

    # Speaking.

    def _beat(self) -> None:
        """Do what is due, and set the timer for what may be due next."""
        now = self._loop.time()
        match self._heartbeat.due(now):
            case Beat.DEAD:
                seconds = f"{self._heartbeat.timeout_s:g} s"
                error = DeadlineExceededError(f"the server sent nothing for {seconds} (wal_sender_timeout), and did not answer")
                attach(error, Fault(Kind.TRANSIENT, "timeout", str(error), scope=Scope.CALL))
                self._fail(error)
                return
            case Beat.ASK:
                self._send(ask=True)
            case Beat.TELL:
                self._send(ask=False)
            case None:
                pass
        if self.error is None:
            self._timer = self._loop.call_at(self._heartbeat.next_at(), self._beat)

    def _send_confirmed(self) -> None:
        self._confirm_timer = None
        self._confirmed_at = self._loop.time()
        self._send(ask=False)

    def _send(self, *, ask: bool) -> None:
        """Send a status update. `time.time` is for the server's records only."""
        if self.error is not None:
            return
        written = max(self.received_lsn, self._keepalive, self.keepalive_lsn)
        now_us = int((time.time() - EPOCH_S) * 1e6)
        try:
            self._pgconn.put_copy_data(_STATUS.pack(b"r", written, self.flushed_lsn, self.applied_lsn, now_us, ask))
            self._flush()
        except psycopg.Error as exc:
            self._fail(exc)
            return
        self._heartbeat.told(self._loop.time(), asked=ask)

    def _say_goodbye(self) -> None:
        """End our half of the stream: nothing is said after that."""
        self._finishing = True
        self._buffer, self._size = [], 0
        self._stop_timers()
        if self.error is not None:
            return
        try:
            self._pgconn.put_copy_end()
            self._flush()
        except psycopg.Error as exc:
            self._fail(exc)
        self._read_on()

    def _flush(self) -> None:
        pending = bool(self._pgconn.flush())
        if pending and not self._writing:
            self._writing = True
            self._loop.add_writer(self._descriptor, self._writable)
        elif not pending and self._writing:
            self._writing = False
            self._loop.remove_writer(self._descriptor)

    def _writable(self) -> None:
        try:
            self._flush()
        except psycopg.Error as exc:
            self._fail(exc)

    # The end.

    def _fail(self, error: psycopg.Error) -> None:
        if self.error is not None:
            return
        if self._conn.aborted_for is not None:
            attach(error, self._conn.aborted_for)
        self.error = error
        self._let_go()
        shut_down(self._pgconn, reset=True)
        if not self._finishing:
            self._on_failure(error)

    def _let_go(self) -> None:
        """Stop watching, and wake whoever waits. Only once: later the descriptor may be somebody else's."""
        if self._released:
            return
        self._released = True
        self._end_rest()
        self._reading = self._writing = False
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._stop_timers()
        if not self._ended.done():
            self._ended.set_result(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._confirm_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._confirm_timer = None


def shut_down(pgconn: pq.abc.PGconn, *, reset: bool = False) -> None:
    """Shut the socket down without closing the descriptor, which an event loop may still watch.

    With `reset` the server gets an RST, once the socket is closed: an ordinary end waits behind what was sent and is not
    acknowledged, forever when nothing comes back any more. Whatever is still to be sent is lost, and the server logs one line.
    """
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(pgconn.socket)) as shared:
        if reset:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        shared.shutdown(socket.SHUT_RDWR)
