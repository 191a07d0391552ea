"""Connections of the telnet door, in virtual time and without sockets: batches, back pressure, outages, ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from memory_tables import MemoryTables
from telnet_rig import HeldTables, Rig, put, settle

from outlast import ConfigurationError, Fault, Kind, Service, Unavailable
from outlast.tables._model import PointOutcome, PointRefusal
from outlast.tables._telnet.datapoints import TIMES_ALLOWED
from outlast.tables._telnet.limits import PutLimits
from outlast.tables._telnet.server import PutServer
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


AWAY = Unavailable("metrics.db", Fault(Kind.TRANSIENT, "57P01", "the server ends"), 1.0, 2.0)
THROTTLE = "put: Please throttle writes: 57P01 the server ends\n"
VERSION = "net.opentsdb.tools 2.4.0 built at revision outlast (MINT)\nBuilt for outlast.tables, which speaks as it does\n"


def test_a_stored_line_is_not_answered() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        rig.send(connection, put(1) + put(2))
        await settle()
        assert (rig.times, wire.said, wire.ended, len(rig.gate)) == ([1, 2], b"", "", 0)

    run_virtual(main)


def test_one_byte_at_a_time() -> None:
    async def main() -> None:
        rig = Rig()
        connection, _ = rig.connect()
        for byte in b"\xff\xfd\x01" + put(1) + put(2):
            rig.send(connection, bytes([byte]))
            await settle()
        assert (rig.times, rig.tables.writes) == ([1, 2], [1, 1])

    run_virtual(main)


def test_what_comes_during_a_write_is_the_next_batch() -> None:
    async def main() -> None:
        tables = HeldTables()
        rig = Rig(tables, batch_max=300)
        connection, _ = rig.connect()
        rig.send(connection, put(1))
        await settle()
        for number in range(2, 702):
            rig.send(connection, put(number))
        tables.gate.set()
        await settle()
        assert tables.writes == [1, 300, 300, 100]
        assert rig.times == list(range(1, 702))

    run_virtual(main)


def test_a_sender_is_not_read_while_much_waits() -> None:
    async def main() -> None:
        tables = HeldTables()
        rig = Rig(tables, ahead_bytes_max=1_000)
        connection, wire = rig.connect()
        sent = 0
        while wire.is_reading_now:
            sent += 1
            rig.send(connection, put(sent))
            await settle()
        # The first line is being written; the others fill what may wait, and no more than one piece over it.
        assert sent in range(40, 70)
        other, other_wire = rig.connect("192.0.2.2")
        assert other_wire.is_reading_now
        tables.gate.set()
        await settle()
        assert wire.is_reading_now
        assert rig.times == list(range(1, sent + 1))
        rig.send(other, b"version\n")
        await settle()
        assert other_wire.said.decode() == VERSION

    run_virtual(main)


def test_others_have_their_turn_between_two_batches_of_bad_lines() -> None:
    async def main() -> None:
        rig = Rig(batch_max=100)
        connection, _ = rig.connect()
        rig.send(connection, b"\n" * 5_000)
        turns = 0
        while rig.door.workers:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 50

    run_virtual(main)


def test_an_error_for_each_bad_line_in_their_order() -> None:
    async def main() -> None:
        tables = MemoryTables(
            refused=[PointRefusal(3, PointOutcome.PERSON, Fault(Kind.PERMANENT, "name taken", "a view has it"))]
        )
        rig = Rig(tables)
        connection, wire = rig.connect()
        rig.send(connection, put(1) + b"put cpu x 1 h=a\n" + b"help\n" + put(4) + b"put cpu 5 one h=a\nsing\n")
        await settle()
        assert wire.said.decode().splitlines() == [
            f'put: illegal argument: Invalid timestamp: "x"; {TIMES_ALLOWED}, or 1700000000.123',
            "available commands: exit help put stats version ",
            "put: storage error: a view has it",
            'put: invalid value: Unable to parse value to a number: "one"; write 42, 4.2 or 4.2e1',
            "unknown command: sing.  Try `help'.",
        ]
        assert (rig.times, rig.door.refused) == ([1], {"never": 2, "later": 0, "person": 1})

    run_virtual(main)


def test_version_is_answered_after_all_before_it_is_stored() -> None:
    async def main() -> None:
        tables = HeldTables()
        rig = Rig(tables)
        connection, wire = rig.connect()
        rig.send(connection, put(1) + b"version\n")
        await settle()
        assert wire.said == b""
        tables.gate.set()
        await settle()
        assert (rig.times, wire.said.decode()) == ([1], VERSION)

    run_virtual(main)


def test_the_figures_that_stats_shows() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        rig.send(connection, put(1) + b"put\nstats\n")
        await settle()
        lines = [line.split() for line in wire.said.decode().splitlines()[1:]]
        assert [(name, count, tag) for name, _, count, tag in lines] == [
            ("tsd.connectionmgr.connections", "1", "type=open"),
            ("tsd.rpc.received", "2", "type=put"),
            ("tsd.rpc.errors", "1", "type=never"),
            ("tsd.rpc.errors", "0", "type=later"),
            ("tsd.rpc.errors", "0", "type=person"),
        ]

    run_virtual(main)


# Ends.


def test_half_a_line_at_the_end_is_not_stored_and_whole_ones_are() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        # A number that was cut off would be another number.
        rig.send(connection, put(1) + b"put cpu 2 12")
        assert connection.eof_received()
        await settle()
        assert (rig.times, rig.door.halves, wire.ended, rig.door.connections) == ([1], 1, "closed", set())

    run_virtual(main)


def test_the_answers_come_before_the_end_of_one_who_has_sent_all() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        rig.send(connection, b"put\n")
        connection.eof_received()
        await settle()
        assert wire.said.startswith(b"put: illegal argument: not enough arguments")
        assert wire.ended == "closed"

    run_virtual(main)


def test_exit_ends_the_connection_after_what_came_before() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        rig.send(connection, put(1) + b"exit\n" + put(2))
        await settle()
        assert (rig.times, wire.ended) == ([1], "closed")

    run_virtual(main)


def test_a_page_in_a_browser_cannot_write_lines() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        rig.send(connection, b"POST / HTTP/1.1\r\nHost: 127.0.0.1:4242\r\nOrigin: null\r\n\r\n" + put(1) + b"version\n")
        await settle()
        said = "put: illegal argument: a request of HTTP on the port of put lines, which ends here; HTTP has another port\n"
        assert (rig.times, wire.said.decode(), wire.ended) == ([], said, "closed")

    run_virtual(main)


def test_lines_of_a_client_that_left_are_stored() -> None:
    async def main() -> None:
        tables = HeldTables()
        rig = Rig(tables)
        connection, _ = rig.connect()
        rig.send(connection, put(1) + put(2))
        await settle()
        connection.connection_lost(None)
        tables.gate.set()
        await settle()
        assert (rig.times, rig.door.open, len(rig.gate)) == ([1, 2], 0, 0)

    run_virtual(main)


def test_a_line_that_is_too_long_is_told_and_thrown_away_to_its_end() -> None:
    async def main() -> None:
        rig = Rig(line_bytes_max=100)
        connection, wire = rig.connect()
        for piece in (b"put cpu 1 1 host=", b"a" * 90, b"b" * 90, b"c" * 90 + b"\n" + put(2), put(3)):
            rig.send(connection, piece)
            await settle()
        assert (rig.times, wire.ended) == ([2, 3], "")
        assert wire.said == b"put: illegal argument: a line of more than 100 bytes; it has at most 100\n"
        assert rig.door.refused["never"] == 1

    run_virtual(main)


def test_errors_that_nobody_reads_end_the_connection_and_no_other() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        other, other_wire = rig.connect("192.0.2.2")
        wire.client_reads = False
        while wire.is_reading_now:
            rig.send(connection, b"put\n" * 1_000)
            rig.send(other, put(1))
            await settle()
        # It is not read any more, and not answered: what waits for it does not grow.
        said = len(wire.said)
        await asyncio.sleep(9.0)
        assert (len(wire.said), wire.ended) == (said, "")
        assert 65_536 < said < 2 * 65_536
        await asyncio.sleep(2.0)
        assert (wire.ended, other_wire.ended, rig.door.cuts) == ("aborted", "", {"reader too slow": 1})
        rig.send(other, put(2))
        await settle()
        assert rig.times == [1, 2]

    run_virtual(main)


def test_a_client_that_reads_its_errors_late_goes_on() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        wire.client_reads = False
        while wire.is_reading_now:
            rig.send(connection, b"put\n" * 1_000)
            await settle()
        await asyncio.sleep(9.0)
        wire.read_all()
        await asyncio.sleep(2.0)
        assert (wire.is_reading_now, wire.ended, rig.door.cuts) == (True, "", {})
        wire.said = b""
        rig.send(connection, put(1) + b"version\n")
        await settle()
        assert (rig.times, wire.said.decode()) == ([1], VERSION)

    run_virtual(main)


def test_a_stop_does_not_wait_for_who_does_not_read() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        wire.client_reads = False
        rig.send(connection, b"put\n" * 3_000)
        rig.stop.fire("a stop")
        rig.door.refuse()
        await settle()
        assert (wire.ended, len(rig.gate), rig.door.refused["never"]) == ("closed", 0, 3_000)

    run_virtual(main)


def test_who_sends_nothing_is_closed() -> None:
    async def main() -> None:
        rig = Rig(idle_s=60.0)
        _, idle = rig.connect()
        busy, busy_wire = rig.connect()
        await asyncio.sleep(40.0)
        rig.send(busy, b"\n")
        await asyncio.sleep(30.0)
        rig.door.close_idle()
        await settle()
        assert (idle.ended, busy_wire.ended, rig.door.cuts) == ("aborted", "", {"idle": 1})

    run_virtual(main)


# Outages.


def outage(rig: Rig, until_s: float) -> Callable[[], None]:
    """What fails every write until a time."""

    def fail() -> None:
        if rig.door.now() < until_s:
            raise AWAY

    return fail


def test_lines_are_held_over_a_short_outage() -> None:
    async def main() -> None:
        rig = Rig(hold_s=10.0)
        rig.tables.fails = outage(rig, rig.door.now() + 7.0)
        connection, wire = rig.connect()
        rig.send(connection, put(1) + put(2))
        await asyncio.sleep(6.0)
        assert (rig.times, wire.said) == ([], b"")
        await asyncio.sleep(3.0)
        assert (rig.times, wire.said) == ([1, 2], b"")

    run_virtual(main)


def test_after_a_while_lines_are_refused_at_once_with_the_first_cause() -> None:
    async def main() -> None:
        rig = Rig(hold_s=10.0)
        rig.tables.fails = outage(rig, rig.door.now() + 60.0)
        connection, wire = rig.connect()
        rig.send(connection, put(1) + b"put\n" + put(2))
        await asyncio.sleep(11.0)
        # What can never be stored says so, whatever the store does.
        assert wire.said.decode() == (THROTTLE + "put: illegal argument: not enough arguments (need least 4, got 0)\n" + THROTTLE)
        wire.said = b""
        rig.send(connection, put(3))
        await settle()
        assert wire.said.decode() == THROTTLE
        assert rig.door.refused == {"never": 1, "later": 3, "person": 0}
        await asyncio.sleep(60.0)
        wire.said = b""
        rig.send(connection, put(4))
        await settle()
        assert (rig.times, wire.said) == ([4], b"")
        # It has taken some: the next outage is held over again.
        rig.tables.fails = outage(rig, rig.door.now() + 5.0)
        rig.send(connection, put(5))
        await asyncio.sleep(7.0)
        assert (rig.times, wire.said) == ([4, 5], b"")

    run_virtual(main)


def broken() -> None:
    raise LookupError("a bug")


def test_a_bug_ends_one_connection_and_is_said_once(expected_logs: Any) -> None:
    expected_logs(r"put 127.0.0.1:4242: a batch of lines failed \(said once\)")

    async def main() -> None:
        rig = Rig()
        rig.tables.fails = broken
        ends = []
        for _ in range(3):
            connection, wire = rig.connect()
            rig.send(connection, put(1))
            await settle()
            ends.append(wire.ended)
        assert (ends, rig.door.cuts, len(rig.gate)) == (["aborted"] * 3, {"bug": 3}, 0)

    run_virtual(main)


# The stop.


def test_a_stop_writes_what_was_read_and_takes_no_more() -> None:
    async def main() -> None:
        tables = HeldTables()
        rig = Rig(tables, batch_max=2)
        connection, wire = rig.connect()
        rig.send(connection, put(1) + put(2) + put(3) + put(4) + b"put cpu 5")
        await settle()
        rig.stop.fire("a stop")
        rig.gate.close("a stop")
        rig.door.refuse()
        rig.send(connection, b" 1 host=a\n")
        assert (wire.is_reading_now, wire.ended) == (False, "")
        tables.gate.set()
        await rig.gate.empty()
        await settle()
        assert (rig.times, wire.ended, wire.said) == ([1, 2, 3, 4], "closed", b"")

    run_virtual(main)


def test_an_outage_is_not_sat_out_during_a_stop() -> None:
    async def main() -> None:
        rig = Rig(hold_s=10.0)
        rig.tables.fails = outage(rig, rig.door.now() + 60.0)
        connection, wire = rig.connect()
        rig.send(connection, put(1))
        await settle()
        rig.stop.fire("a stop")
        rig.gate.close("a stop")
        rig.door.refuse()
        await settle()
        assert (wire.said.decode(), wire.ended, len(rig.gate)) == (THROTTLE, "closed", 0)

    run_virtual(main)


def test_lines_that_come_as_the_gate_closes_are_told() -> None:
    async def main() -> None:
        rig = Rig()
        connection, wire = rig.connect()
        rig.gate.close("a stop")
        rig.send(connection, put(1) + put(2))
        await settle()
        await asyncio.sleep(1.0)
        assert wire.said.startswith(b"put: Please throttle writes: ")
        assert (rig.times, rig.door.refused["later"]) == ([], 2)

    run_virtual(main)


def test_the_end_cancels_what_does_not_end() -> None:
    async def main() -> None:
        rig = Rig(HeldTables())
        connection, wire = rig.connect()
        rig.send(connection, put(1))
        await settle()
        await rig.door.end()
        await settle()
        assert (wire.ended, rig.door.connections, rig.door.workers, len(rig.gate)) == ("closed", set(), set(), 0)

    run_virtual(main)


# Settings.


def test_beyond_loopback_it_wants_to_be_told() -> None:
    tables = MemoryTables().as_tables
    with pytest.raises(ConfigurationError, match=r"^0\.0\.0\.0:4242 is open to other machines, and put has no tokens; listen on"):
        PutServer(tables, "0.0.0.0:4242")
    assert PutServer(tables, "0.0.0.0:4242", open_to_all=True).address == "0.0.0.0:4242"
    assert PutServer(tables, "[::1]:4242").address == "[::1]:4242"


def test_a_server_belongs_to_one_service() -> None:
    server = PutServer(MemoryTables().as_tables, "127.0.0.1:0").attach(Service("one"))
    with pytest.raises(ConfigurationError, match=r"^the server on 127\.0\.0\.1:0 is part of one already; make one server for"):
        server.attach(Service("two"))
    assert (server.health().well, server.health().state) == (False, "not serving")
    assert [figure.name for figure in server.figures()] == [
        "open_connections", "connections_limit", "points", "refused_points", "half_lines", "cut",
    ]  # fmt: skip


def test_bounds_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"^idle_s must be a number above 0, not 0$"):
        PutLimits(idle_s=0)
    with pytest.raises(ValueError, match=r"^batch_max is at most 1000, so that each bad line has its answer, not 1001$"):
        PutLimits(batch_max=1_001)
