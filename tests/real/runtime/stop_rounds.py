"""Starts a service as a process, signals it, watches its readiness from outside, and tells how it ended."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOP = Path(__file__).parent / "stopping_shop.py"
LIMIT_S = 60.0


@dataclass(frozen=True)
class Round:
    """How one process ended."""

    code: int
    said: str
    """Its stderr."""
    out: str
    """Its stdout."""
    unready_s: float | None
    """From the signal to the first answer of /readyz that was not 200."""
    took_s: float
    """From the (first) signal to the end."""

    def lines(self, *levels: str) -> list[str]:
        """Give the lines of these levels."""
        return [line for line in self.said.splitlines() if line.startswith(levels)]


class Shop:
    """One process of the shop; what it writes is read as it comes."""

    def __init__(self, *, argv: list[str] | None = None, env: dict[str, str] | None = None, **wanted: Any) -> None:
        environment = {**os.environ, "SHOP": json.dumps(wanted), **(env or {})}
        self.process = subprocess.Popen(
            argv or [sys.executable, str(SHOP)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        self.out: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stderr, self.said)),
            threading.Thread(target=self._read, args=(self.process.stdout, self.out)),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, into: list[str]) -> None:
        for line in stream:
            with self._news:
                into.append(line)
                self._news.notify_all()
        stream.close()

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line on either stream."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found[:] = [match for line in (*self.said, *self.out) if (match := re.search(pattern, line))]
            return bool(found)

        with self._news:
            assert self._news.wait_for(look, LIMIT_S), f"no line matched {pattern!r}: {''.join(self.said)}"
        return found[0]

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; gives the time."""
        self.process.send_signal(number)
        return time.monotonic()

    def end(self, signalled_at: float, unready_s: float | None = None) -> Round:
        """Wait for its end."""
        try:
            code = self.process.wait(LIMIT_S)
            took_s = time.monotonic() - signalled_at
        finally:
            self.process.kill()
            for reader in self._readers:
                reader.join(LIMIT_S)
        return Round(code, "".join(self.said), "".join(self.out), unready_s, took_s)


def is_ready(port: int) -> bool:
    """Ask /readyz."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def one(seed: int, **wanted: Any) -> Round:
    """Start the shop, let it work, send SIGTERM at a random instant, and watch."""
    shop = Shop(seed=seed, listen="127.0.0.1:0", **wanted)
    port = int(shop.until(r"health on port (\d+)").group(1))
    shop.until("shop started")
    time.sleep(random.Random(seed).uniform(0.0, 0.3))
    assert is_ready(port)
    signalled_at = shop.signal(signal.SIGTERM)
    while is_ready(port):
        pass
    return shop.end(signalled_at, time.monotonic() - signalled_at)


def rounds(count: int, *, parallel: int, **wanted: Any) -> list[Round]:
    """Do many of them, some at a time."""
    with ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(lambda seed: one(seed, **wanted), range(count)))
