"""The outbox of the examples, killed again and again beside a real HTTP peer: what was accepted arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parents[3] / "examples" / "outbox"


class Peer(ThreadingHTTPServer):
    """A peer that takes everything, or answers 503."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.bodies: dict[str, bytes] = {}


class Handler(BaseHTTPRequestHandler):
    server: Peer

    def do_HEAD(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.bodies[self.headers["Idempotency-Key"]] = body
        self.do_HEAD()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    threading.Thread(target=peer.serve_forever, daemon=True).start()
    yield peer
    peer.shutdown()
    peer.server_close()


def until(condition: object, what: str, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            pytest.fail(f"it did not come about in time: {what}")
        time.sleep(0.02)


def test_what_was_accepted_before_a_kill_arrives_after_the_restart(peer: Peer, tmp_path: Path) -> None:
    accepted = tmp_path / "accepted"
    accepted.touch()
    environment = {
        **os.environ,
        "PEER": f"http://127.0.0.1:{peer.server_address[1]}/",
        "OUTBOX": str(tmp_path / "journal"),
        "ACCEPTED": str(accepted),
    }

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "stderr").open("ab") as stderr:
            command = [sys.executable, "-m", "outlast", "up", "demo:service"]
            return subprocess.Popen(command, cwd=HERE, env=environment, stderr=stderr)

    def keys() -> list[str]:
        return [line for line in accepted.read_text(encoding="ascii").splitlines() if len(line) == 32]

    process = start()
    try:
        for round_number in range(3):
            # Twice while the peer takes messages, once while it is away.
            peer.status = 503 if round_number == 1 else 200
            have = len(keys())
            until(lambda have=have: len(keys()) >= have + 8, (tmp_path / "stderr").read_text(encoding="utf-8")[-2000:])  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start()
        peer.status = 200
        before = keys()
        until(lambda: set(before) <= set(peer.bodies), "what was accepted arrived")
        until(lambda: len(keys()) > len(before), "the last process works")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert set(before) <= set(peer.bodies)
    assert all(body.startswith(b"order ") for body in peer.bodies.values())


@pytest.mark.long
def test_the_drill_of_the_outbox_keeps_its_promises() -> None:
    done = subprocess.run([sys.executable, HERE / "drill.py"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kept") == 4
