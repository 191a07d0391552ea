"""Lines of the telnet door: `put` and the other commands."""

from __future__ import annotations

import pytest
from memory_tables import MemoryTables

from outlast import Fault, Kind
from outlast.tables._model import PointOutcome, PointRefusal
from outlast.tables._telnet.lines import HTTP, Batch, Lines, error_line, throttled, unknown

TIMES = "write seconds up to 4294967295, or milliseconds up to 9223372036853"
MAX = 16_384


def read(*lines: bytes) -> Batch:
    return Lines(MemoryTables().as_tables).read(lines, MAX)


def points(*lines: bytes) -> list[tuple[object, ...]]:
    """Table, tags, time, value and place of each point; none may be refused."""
    parsed = read(*lines).parsed
    assert parsed.refused == []
    found = [
        (row[0].table, dict(row[0].tags), row[1], row[2], place)
        for rows in parsed.rows
        for row, place in zip(rows.rows, rows.places, strict=True)
    ]
    return sorted(found, key=lambda point: point[4])


def refusal(line: bytes) -> str:
    (found,) = read(line).parsed.refused
    return error_line(found)


@pytest.mark.parametrize(
    "line",
    [
        b"put cpu 1700000000 0.5 host=a dc=b",
        b"put cpu 1700000000 0.5 host=a dc=b\r",
        b"  put  cpu\t1700000000  0.5 host=a   dc=b  ",
        b"PUT cpu 1700000000 0.5 dc=b host=a",
        b"put cpu 1700000000000 5e-1 host=a host=a dc=b",
        # The bytes with which a telnet client begins: will and do, an option with a parameter, a lone command.
        b"\xff\xfd\x01\xff\xfb\x1f\xff\xfa\x1f\x00\x50\xff\xf0\xff\xf4put cpu 1700000000 0.5 host=a dc=b",
    ],
)
def test_a_point(line: bytes) -> None:
    assert points(line) == [("cpu", {"host": "a", "dc": "b"}, 1_700_000_000_000_000_000, 0.5, 0)]


def test_lines_of_collectors_as_they_are() -> None:
    """collectd writes two blanks between tags and one behind the last; an integer and a float take turns."""
    assert points(
        b"put load.load.shortterm 1796079589 0.27099609375 fqdn=shop  dc=home",
        b"put load.load.shortterm 1796079599 961744896 fqdn=shop ",
        b"put icinga.host.load 1796079681 0.500000 host=shop1",
    ) == [
        ("load.load.shortterm", {"fqdn": "shop", "dc": "home"}, 1_796_079_589_000_000_000, 0.27099609375, 0),
        ("load.load.shortterm", {"fqdn": "shop"}, 1_796_079_599_000_000_000, 961_744_896, 1),
        ("icinga.host.load", {"host": "shop1"}, 1_796_079_681_000_000_000, 0.5, 2),
    ]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"a:b", "a:b"),
        (b"a=b", "a=b"),
        ("grün".encode(), "grün"),
        # A space of Unicode is a character like another; a blank is not.
        ("a\u00a0b".encode(), "a\u00a0b"),
        (b'"q"', '"q"'),
    ],
)
def test_more_characters_than_the_original_takes(value: bytes, wanted: str) -> None:
    ((_, tags, *_),) = points(b"put cpu 1700000000 1 host=" + value)
    assert tags == {"host": wanted}


@pytest.mark.parametrize(
    ("time", "wanted_ns"),
    [
        (b"4294967295", 4_294_967_295_000_000_000),
        (b"4294967296", 4_294_967_296_000_000),
        (b"9999999999", 9_999_999_999_000_000),
        (b"10000000000", 10_000_000_000_000_000),
        (b"1700000000.123", 1_700_000_000_123_000_000),
        (b"1700000000.5", 1_700_000_000_500_000_000),
    ],
)
def test_times_by_the_rule_of_the_original(time: bytes, wanted_ns: int) -> None:
    ((_, _, at_ns, *_),) = points(b"put cpu " + time + b" 1 host=a")
    assert at_ns == wanted_ns


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"put", "put: illegal argument: not enough arguments (need least 4, got 0)\n"),
        (b"put cpu 1700000000 1", "put: illegal argument: not enough arguments (need least 4, got 3)\n"),
        (b"put cpu 1.5 1 h=a", f'put: illegal argument: Invalid timestamp: "1.5"; {TIMES}, or 1700000000.123\n'),
        (b"put cpu now 1 h=a", f'put: illegal argument: Invalid timestamp: "now"; {TIMES}, or 1700000000.123\n'),
        (b"put cpu 0 1 h=a", f"put: illegal argument: Invalid timestamp: 0; {TIMES}\n"),
        (b"put cpu -5 1 h=a", f"put: illegal argument: Invalid timestamp: -5; {TIMES}\n"),
        (b"put cpu 1700000000 one h=a", 'put: invalid value: Unable to parse value to a number: "one"; write 42, 4.2 or 4.2e1\n'),
        (b"put cpu 1700000000 nan h=a", 'put: invalid value: Unable to parse value to a number: "nan"; write 42, 4.2 or 4.2e1\n'),
        (b"put cpu 1700000000 1 h", 'put: illegal argument: invalid tag: "h"; write name=value\n'),
        (b"put cpu 1700000000 1 h=", 'put: illegal argument: invalid tag: "h="; write name=value\n'),
        (b"put cpu 1700000000 1 =a", 'put: illegal argument: invalid tag: "=a"; write name=value\n'),
        (b"put cpu 1700000000 1 h=a h=b", 'put: illegal argument: duplicate tag: "h=b", beside "h=a"\n'),
        (b"put cpu 1700000000 1 h=\xff\xfd\x01a", "put: illegal argument: the line is no UTF-8; send text in UTF-8\n"),
        (b"put cpu 1700000000 1 h=\xc3", "put: illegal argument: the line is no UTF-8; send text in UTF-8\n"),
        (
            b"put c\x01u 1700000000 1 h=a",
            "put: illegal argument: the name of the metric holds the control character U+0001 at character 2; remove it\n",
        ),
        (b"put cpu 1700000000 1 h=" + b"a" * MAX, "put: illegal argument: a line of 16407 bytes; it has at most 16384\n"),
    ],
    ids=range(16),
)
def test_a_bad_line_says_why(line: bytes, said: str) -> None:
    assert refusal(line) == said


def test_a_bad_line_costs_itself_alone() -> None:
    parsed = read(b"put cpu 1700000000 1 h=a", b"put cpu x 1 h=a", b"", b"put cpu 1700000001 1 h=a").parsed
    assert [rows.places for rows in parsed.rows] == [[0, 3]]
    assert [(each.place, each.text, each.outcome) for each in parsed.refused] == [(1, "put cpu x 1 h=a", PointOutcome.NEVER)]
    assert parsed.points == 3


def test_other_commands_and_the_end() -> None:
    batch = read(b"version\r", b"put cpu 1700000000 1 h=a", b"sing a song", b"exit", b"put cpu 1700000001 1 h=a")
    assert batch.asked == [(0, "version"), (2, "sing"), (3, "exit")]
    assert batch.parsed.points == 1
    assert unknown("sing") == "unknown command: sing.  Try `help'.\n"
    assert unknown("si\nng" + "g" * 100).count("\n") == 1


@pytest.mark.parametrize("line", [b"POST /put HTTP/1.1\r", b"PUT / HTTP/1.0", b"PRI * HTTP/2.0"])
def test_nothing_is_read_behind_a_request_of_http(line: bytes) -> None:
    batch = read(b"put cpu 1700000000 1 h=a", line, b"Host: a", b"", b"put cpu 1700000001 1 h=a")
    assert (batch.asked, batch.parsed.points) == ([(1, HTTP)], 1)


def test_the_same_head_is_the_same_series() -> None:
    lines = Lines(MemoryTables().as_tables)
    first = lines.read([b"put cpu 1700000000 1 h=a d=b", b"put cpu 1700000000 1 d=b h=a"], MAX).parsed.rows[0].rows
    again = lines.read([b"put cpu 1700000009 1 h=a d=b"], MAX).parsed.rows[0].rows
    assert first[0][0] is first[1][0] is again[0][0]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (PointOutcome.LATER, "put: Please throttle writes: the disk is full\n"),
        (PointOutcome.PERSON, "put: storage error: the disk is full\n"),
        (PointOutcome.NEVER, "put: illegal argument: the disk is full\n"),
    ],
)
def test_what_was_not_stored_says_whether_to_come_back(outcome: PointOutcome, said: str) -> None:
    assert error_line(PointRefusal(0, outcome, Fault(Kind.EXHAUSTED, "ENOSPC", "the disk is\nfull"))) == said


def test_no_secret_is_told() -> None:
    assert "hunter2" not in throttled("connection to postgresql://shop:hunter2@db/shop failed")
