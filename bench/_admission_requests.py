"""The middleware half of `admission.py`: what admission adds to a request, in processor time of a real server process."""

from __future__ import annotations

import math
import socket
import statistics
from dataclasses import dataclass

import psycopg
from _overload_clients import wire
from _overload_process import processor_s, server

from outlast.testing import PostgresServer

CONNECTIONS = 4
WARM = 400
"""Requests before it is counted: in these Python learns which instructions to specialise."""
TURNS = 5
"""The turns that the two of a pair take."""
T_95 = {5: 2.571, 10: 2.228, 15: 2.131, 20: 2.093, 30: 2.042, 40: 2.021, 60: 2.0}
"""Student's t for two-sided 95 %, by at least so many degrees of freedom (a table of any textbook; fewer are rounded down)."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of its processor time that a server spends for admission: the mean of the pairs, and its 95 % interval."""

    mean: float
    low: float
    high: float
    bare_us: float
    """Processor time of a request without admission, in microseconds: the median."""
    pairs: int


def requests(port: int, count: int) -> None:
    """Send `count` requests over a few connections, each once the answer before it is there."""
    payload = wire("tenant-1", 5.0)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    try:
        for _ in range(count // CONNECTIONS):
            for connection in connections:
                connection.sendall(payload)
            for connection in connections:
                answer = connection.recv(65_536)
                while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                    answer += connection.recv(65_536)
                assert answer.startswith(b"HTTP/1.1 201"), answer
    finally:
        for connection in connections:
            connection.close()


def measure(pairs: int, count: int) -> tuple[Share, Share]:
    """Return the share for a request that stores a row in PostgreSQL, and for one that stores nothing."""
    with PostgresServer() as postgres:
        with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
            conn.execute("CREATE TABLE orders (id bigserial PRIMARY KEY, body text NOT NULL)")
        stored = compare(pairs, count, postgres.dsn())
    return stored, compare(pairs, count, None)


def compare(pairs: int, count: int, dsn: str | None) -> Share:
    """Compare both servers in `pairs` interleaved pairs of `count` requests each; who begins changes from pair to pair.

    Each pair has processes of its own: where code and data happen to lie makes a process dearer by some per cent for all of its
    life, and pairs of the same two would all have that.
    """
    logs, bare = [], []
    for number in range(pairs):
        with server("bare", dsn) as without, server("admitted", dsn) as with_:
            spent: dict[int, float] = {}
            arms = (without, with_) if number % 2 else (with_, without)
            for arm in arms:
                requests(arm.port, WARM)
            for _ in range(TURNS):
                for arm in arms:
                    before = processor_s(arm.pid)
                    requests(arm.port, count // TURNS)
                    spent[arm.pid] = spent.get(arm.pid, 0.0) + processor_s(arm.pid) - before
            logs.append(math.log(spent[with_.pid] / spent[without.pid]))
            bare.append(spent[without.pid] / (count // TURNS * TURNS) * 1e6)
    mean = statistics.fmean(logs)
    half = t_95(pairs - 1) * statistics.stdev(logs) / math.sqrt(pairs)
    return Share(*(math.expm1(value) for value in (mean, mean - half, mean + half)), statistics.median(bare), pairs)


def t_95(freedom: int) -> float:
    """Return Student's t for two-sided 95 %."""
    return T_95[max((known for known in T_95 if known <= freedom), default=5)]
