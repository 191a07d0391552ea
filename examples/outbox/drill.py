"""Hurt the peer of a running outbox, and measure from outside: lines, attempts, messages. `python3 drill.py [SECONDS]`.

Prints a row for each trouble, and exits with 1 when a promise is missed: no message lost, four lines and one attempt of each
sender in an outage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
SENDERS: Final = 4
LINES_MAX: Final = 4
LIMIT_S: Final = 60.0


class Peer(ThreadingHTTPServer):
    """The peer: answers as `trouble` says, and counts what it is asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.trouble = "none"
        self.asked = Counter[str]()
        self.refused: set[str] = set()
        self.taken: set[str] = set()
        self.lock = threading.Lock()
        """Protects the counts from the threads of the requests."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Peer

    def do_HEAD(self) -> None:
        """Answer a probe."""
        self.answer("")

    def do_POST(self) -> None:
        """Answer a message."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(self.headers["Idempotency-Key"])

    def answer(self, key: str) -> None:
        """Answer as the trouble says, and count it."""
        peer = self.server
        with peer.lock:
            trouble = peer.trouble
            peer.asked[self.command] += 1
            if trouble == "refuses one message" and key and not peer.refused:
                peer.refused.add(key)
            status = 503 if trouble == "asks for time" else 400 if key in peer.refused else 200
            if key and status == 200 and trouble != "hangs":
                peer.taken.add(key)
        if trouble == "hangs":
            time.sleep(LIMIT_S)
            return
        self.send_response(status)
        if trouble == "asks for time":
            self.send_header("Retry-After", "3")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Log nothing."""


def until(condition: Callable[[], bool]) -> bool:
    """Wait until it is so, for at most `LIMIT_S`; return whether it is."""
    end = time.monotonic() + LIMIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def accepted(folder: Path) -> set[str]:
    """Return the keys of what the outbox has acknowledged."""
    return {line for line in (folder / "accepted").read_text(encoding="ascii").splitlines() if len(line) == 32}


def hurt(peer: Peer, trouble: str, seconds: float, folder: Path) -> tuple[Peer, bool]:
    """Hurt the peer for so long, heal it, print the figures; return the peer that is there now, and whether all was kept."""
    port, lines = peer.server_address[1], (folder / "log").read_text(encoding="utf-8").count("\n")
    before = Counter(peer.asked)
    if trouble == "is gone":
        peer.shutdown()
        peer.server_close()
    peer.trouble = trouble
    time.sleep(seconds)
    asked = peer.asked - before
    if trouble == "is gone":
        taken, peer = peer.taken, Peer(port)
        peer.taken = taken
    peer.trouble = "none"
    have = accepted(folder)
    until(lambda: have <= peer.taken | peer.refused)
    time.sleep(1.0)
    written = (folder / "log").read_text(encoding="utf-8").count("\n") - lines
    lost = have - peer.taken - peer.refused
    posts = asked["POST"] if trouble in {"hangs", "asks for time"} else 0
    kept = not lost and written <= LINES_MAX and posts <= SENDERS
    print(f"{trouble:20} {len(have):8} {len(lost):5} {written:5} {posts:8} {asked['HEAD']:6}  {'kept' if kept else 'MISSED'}")
    return peer, kept


def main(seconds: float) -> int:
    """Run the drill; return the exit code."""
    peer, kept = Peer(), True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "accepted").touch()
        places = {"OUTBOX": f"{name}/journal", "ACCEPTED": f"{name}/accepted"}
        environment = {**os.environ, **places, "PEER": f"http://127.0.0.1:{peer.server_address[1]}/"}
        with (folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "outlast", "up", "demo:service"]
            process = subprocess.Popen(command, cwd=HERE, env=environment, stderr=log)
        try:
            until(lambda: len(peer.taken) > 0)
            print(f"{'the peer':20} accepted  lost lines attempts probes")
            for trouble in ("is gone", "hangs", "asks for time", "refuses one message"):
                peer, each = hurt(peer, trouble, seconds, folder)
                kept = kept and each
        finally:
            process.terminate()
            kept = process.wait(LIMIT_S) == 0 and kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0))
