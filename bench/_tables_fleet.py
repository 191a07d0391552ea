"""A fleet of `influxdb-client`, unchanged: a process that writes numbered points by its batching API, as its standard input says.

Each collector has a client and a batching writer of its own, with retries as the client does them by itself. It hands over whole
batches at its rate, whatever becomes of those before them: what is not taken waits in the client. The time of each try is taken
around the one call of urllib3 that carries it out.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Any

import urllib3
from influxdb_client import InfluxDBClient, WriteOptions
from reactivex.scheduler import ThreadPoolScheduler

TIME_NS = 1_700_000_000_000_000_000
NUMBERS = 10**9
"""More than one process writes points: the numbers of each begin at a multiple of it."""


def options(points: int) -> WriteOptions:
    """Return the settings of a collector: it has one batch under way, as one that is alone in its process."""
    return WriteOptions(
        batch_size=points,
        flush_interval=1_000,
        retry_interval=1_000,
        max_retries=20,
        max_retry_delay=5_000,
        max_retry_time=60_000,
        # By default all of a process share one.
        write_scheduler=ThreadPoolScheduler(max_workers=1),
    )


class Fleet:
    """The collectors of this process, and what they saw."""

    def __init__(self, port: int, collectors: int, points: int, process: int) -> None:
        self._points = points
        self._number = process * NUMBERS
        self._lock = threading.Lock()
        self.tries: list[tuple[float, float, int]] = []
        """The end of each try (monotonic), the seconds that it took, its status; 0 for none."""
        self.acknowledged: list[tuple[float, int, int]] = []
        """The time at which each batch was acknowledged, its first number, and how many points it had."""
        self.given_up = 0
        self._time_tries()
        named = {"token": "any", "org": "any", "timeout": 30_000}
        self._clients = [InfluxDBClient(f"http://127.0.0.1:{port}", **named) for _ in range(collectors)]
        self._writers = [
            client.write_api(write_options=options(points), success_callback=self._stored, error_callback=self._failed)
            for client in self._clients
        ]

    def _time_tries(self) -> None:
        carry_out = urllib3.HTTPConnectionPool._make_request  # noqa: SLF001 - each try passes here

        def timed(pool: Any, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - as urllib3 has it
            began_s, status = time.monotonic(), 0
            try:
                response = carry_out(pool, *args, **named)
                status = response.status
                return response
            finally:
                now_s = time.monotonic()
                self.tries.append((now_s, now_s - began_s, status))

        urllib3.HTTPConnectionPool._make_request = timed  # type: ignore[method-assign]  # noqa: SLF001

    def _stored(self, _key: object, data: bytes) -> None:
        first = int(data[data.index(b" n=") + 3 : data.index(b"i,")])
        # Fewer than a whole batch where the time to flush came first.
        self.acknowledged.append((time.monotonic(), first, data.count(b"\n") + 1))

    def _failed(self, _key: object, _data: object, _error: Exception) -> None:
        self.given_up += 1

    def run(self, began_at: float, phases: list[tuple[float, float]]) -> list[int]:
        """Hand over so many batches a second for so many seconds, phase by phase; return how many were handed over in each."""
        counts = []
        for seconds, per_s in phases:
            done = 0
            while (now := time.monotonic()) < began_at + seconds:
                due = int(max(0.0, now - began_at) * per_s)
                for _ in range(due - done):
                    self._hand_over()
                done = max(done, due)
                time.sleep(0.01)
            counts.append(done)
            began_at += seconds
        return counts

    def _hand_over(self) -> None:
        # The client counts what it is handed over: a batch of so many records is sent as one body.
        numbers = range(self._number, self._number + self._points)
        self._number += self._points
        writer = self._writers[(numbers[0] // self._points) % len(self._writers)]
        writer.write(
            "bench", "o", [f"fleet,writer=w{number % 50} n={number}i,value=0.5 {TIME_NS + number}" for number in numbers]
        )

    def leave(self) -> None:
        """Let go of what waits."""
        self._clients.clear()


def main() -> None:
    """Read what to do, do it, and print what was seen."""
    # It logs each of its retries.
    logging.disable(logging.CRITICAL)
    task = json.loads(sys.stdin.readline())
    fleet = Fleet(task["port"], task["collectors"], task["points"], task["process"])
    counts = fleet.run(task["began_at"], task["phases"])
    time.sleep(task["settle_s"])
    seen = {"handed_over": counts, "tries": fleet.tries, "acknowledged": fleet.acknowledged, "given_up": fleet.given_up}
    sys.stdout.write(json.dumps(seen))
    sys.stdout.flush()
    # Batches that wait for their next try would keep the process for minutes.
    import os

    os._exit(0)


if __name__ == "__main__":
    main()
