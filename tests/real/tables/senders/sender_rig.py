"""Tables served to senders that nobody here wrote: the command as a process, what goes by on the wire, and what can be read."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from line_protocol_parser import parse_line

from outlast.sqlite import Sqlite
from outlast.tables import Range, Tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECOND_NS = 1_000_000_000
VALUE = "value"
"""The field that has the value of a point of OpenTSDB."""

Name = tuple[str, frozenset[tuple[str, str]], int]
Points = dict[Name, dict[str, Any]]
"""Fields by table, tags and time in nanoseconds."""


@dataclass
class Served:
    """The command as it runs, and the file that it writes."""

    process: subprocess.Popen[str]
    path: Path
    url: str
    port: int
    put: int
    errors: list[str] = field(default_factory=list)

    def stop(self) -> None:
        """Ask for its end, wait for it, and keep what it has logged."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate()
        self.errors = errors.splitlines()


@contextlib.contextmanager
def serving(path: Path, *words: str) -> Iterator[Served]:
    """Start `outlast tables serve` on a file, at free ports; yield once it serves."""
    command = [sys.executable, "-m", "outlast", "tables", "serve", "--store", str(path), "--json"]
    command += ["--listen", "127.0.0.1:0", "--put", "127.0.0.1:0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            said = json.loads(line)
            yield Served(process, path, said["url"], said["port"], said["put"])
        finally:
            process.kill()


def stored(path: Path) -> Points:
    """Read every point of a file, beside whatever serves it."""

    async def read() -> Points:
        found: Points = {}
        async with Tables(Sqlite(path), make=False) as tables:
            for record in await tables.tables(count=10_000):
                async for point in tables.read(Range(record.name)):
                    found[record.name, frozenset(point.tags), point.time_ns] = dict(point.fields)
        return found

    return asyncio.run(read())


class Tap:
    """A proxy in front of a port, which keeps what clients send and what they are answered, by connection."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent: list[bytearray] = []
        self.answered: list[bytearray] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no further clients, and end those that are left."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def settle(self) -> None:
        """Wait until the server has ended every connection whose client is gone: it has read all of it, and answered."""
        for thread in self._threads[1:]:
            thread.join(60)
            assert not thread.is_alive(), "the server holds a connection whose client has gone"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            self._open |= {client, server}
            sent, answered = bytearray(), bytearray()
            self.sent.append(sent)
            self.answered.append(answered)
            answers = threading.Thread(target=self._pump, args=(server, client, answered))
            answers.start()
            self._pump(client, server, sent)
            answers.join()
            self._open -= {client, server}

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                kept += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def statuses(self) -> list[int]:
        """Return the statuses of all answers over HTTP."""
        return [
            int(line.split(b" ")[1])
            for answers in self.answered
            for line in bytes(answers).split(b"\r\n")
            if line.startswith(b"HTTP/1.")
        ]

    def bodies(self, path: bytes) -> list[bytes]:
        """Return the bodies of the requests to a path, inflated."""
        found: list[bytes] = []
        for sent in map(bytes, self.sent):
            rest = sent
            while b"\r\n\r\n" in rest:
                head, _, rest = rest.partition(b"\r\n\r\n")
                request, *lines = head.split(b"\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
                size = int(headers.get(b"content-length", b"0"))
                body, rest = rest[:size], rest[size:]
                if request.split(b" ")[1].partition(b"?")[0] == path and len(body) == size:
                    found.append(gzip.decompress(body) if headers.get(b"content-encoding") == b"gzip" else body)
        return found

    # What was sent, as points.

    def of_puts(self) -> Points:
        """Return the points of whole lines of `put`."""
        found: Points = {}
        for sent in map(bytes, self.sent):
            for line in sent.split(b"\n")[:-1]:
                word, metric, at, value, *tags = line.decode().split()
                assert word == "put"
                _add(found, metric, tags, int(at), float(value))
        return found

    def of_json(self) -> Points:
        """Return the points of the bodies of /api/put."""
        found: Points = {}
        for body in self.bodies(b"/api/put"):
            sent = json.loads(body)
            for point in sent if isinstance(sent, list) else [sent]:
                tags = [f"{name}={value}" for name, value in point["tags"].items()]
                _add(found, point["metric"], tags, int(point["timestamp"]), float(point["value"]))
        return found

    def of_lines(self, path: bytes) -> Points:
        """Return the points of bodies of line protocol with times in seconds, as a parser in C reads them."""
        found: Points = {}
        for body in self.bodies(path):
            for line in filter(None, body.decode().split("\n")):
                parsed = parse_line(line)
                name = parsed["measurement"], frozenset(parsed["tags"].items()), parsed["time"] * SECOND_NS
                found.setdefault(name, {}).update(parsed["fields"])
        return found


def _add(found: Points, metric: str, tags: list[str], at: int, value: float) -> None:
    pairs = frozenset((name, text) for name, _, text in (tag.partition("=") for tag in tags))
    found[metric, pairs, at * SECOND_NS] = {VALUE: value}
