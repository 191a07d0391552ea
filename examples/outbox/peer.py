"""A peer to try the outbox with: `python3 peer.py [PORT]`. A line on standard input is the status that it answers from then on.

With "503 20" it answers 503 and asks to come back in 20 seconds; with "hang" it answers nothing; with "200" all is well again.
"""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG_S = 60.0
answer = ["200"]
seen: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    """Answers every request as the last line of standard input says."""

    def do_HEAD(self) -> None:
        """Answer a probe."""
        self.reply()

    def do_POST(self) -> None:
        """Take a message, or refuse it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.reply():
            key = self.headers["Idempotency-Key"]
            print(key, body.decode(), "(again)" if key in seen else "", flush=True)
            seen.add(key)

    def reply(self) -> bool:
        """Send the answer, and return whether it is that all is well."""
        if answer[0] == "hang":
            time.sleep(HANG_S)
        self.send_response(int(answer[0]) if answer[0].isdigit() else 200)
        if len(answer) > 1:
            self.send_header("Retry-After", answer[1])
        self.end_headers()
        return answer[0] == "200"

    def log_message(self, *_args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8099), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in sys.stdin:
        answer[:] = line.split() or ["200"]
    threading.Event().wait()
