"""The clients of `streams_http.py`, in a process of their own: sockets and epoll, so that they cost a fraction of a server.

It reads one command in JSON a line and prints its outcome as one line. `append`: some connections, on each one request at a
time, for some seconds. `follow`: many readers of one event stream, and appends at a steady rate beside them.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from array import array
from typing import Any, Final

LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
NUMBERED: Final = re.compile(rb'"number": ?(\d+)')
RECEIVED_BYTES: Final = 65_536
PATIENCE_S: Final = 10.0
"""The seconds that what is under way may take at the end of a turn."""


def connect(port: int) -> socket.socket:
    """Return a connection that sends at once what it is given."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def answered(data: bytes) -> int:
    """Return the status of an answer if `data` is all of it, or else 0."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return 0
    status = int(head[9:12])
    if status == 204:
        return status
    found = LENGTH.search(head)
    return status if (body.endswith(b"0\r\n\r\n") if found is None else len(body) >= int(found[1])) else 0


def ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
    """Return the status of one request."""
    with connect(port) as sock:
        sock.sendall(head_of(method, path, headers, len(body)) + b"\r\n" + body)
        data = b""
        while not (status := answered(data)):
            more = sock.recv(RECEIVED_BYTES)
            assert more, f"{method} {path}: the connection ended after {data!r}"
            data += more
        return status


def head_of(method: str, path: str, headers: dict[str, str], length: int) -> bytes:
    """Return the head of a request, without the blank line at its end."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", *(f"{name}: {value}" for name, value in headers.items())]
    if length:
        lines.append(f"Content-Length: {length}")
    return "".join(f"{line}\r\n" for line in lines).encode()


class Appender:
    """One connection that appends, one request at a time, as a producer if it has an id."""

    def __init__(self, sock: socket.socket, head: bytes, body: bytes, producer: str | None) -> None:
        self._sock = sock
        self._producer = producer
        self._rest = b"\r\n" + body
        self._head = head
        if producer is not None:
            self._head += f"Producer-Id: {producer}\r\nProducer-Epoch: 0\r\nProducer-Seq: ".encode()
        self._plain = self._head + self._rest
        self._sequence = 0
        self._data = b""

    def send(self) -> None:
        """Send the next request."""
        if self._producer is None:
            self._sock.send(self._plain)
        else:
            self._sock.send(b"%b%d\r\n%b" % (self._head, self._sequence, self._rest))
            self._sequence += 1

    def heard(self) -> int:
        """Read what is there: return the status of the answer once all of it is, or else 0."""
        more = self._sock.recv(RECEIVED_BYTES)
        assert more, f"the server ended a connection after {self._data!r}"
        data = self._data + more if self._data else more
        status = answered(data)
        self._data = b"" if status else data
        return status


def append(port: int, path: str, seconds: float, connections: int, size: int, producers: str | None) -> dict[str, Any]:
    """Append for some seconds from all connections; return how many were acknowledged in what time."""
    head = head_of("POST", path, {"Content-Type": "application/octet-stream"}, size)
    by_file: dict[int, Appender] = {}
    socks = [connect(port) for _ in range(connections)]
    poll = select.epoll()
    for number, sock in enumerate(socks):
        name = None if producers is None else f"{producers}-{number}"
        by_file[sock.fileno()] = Appender(sock, head, bytes([number]) * size, name)
        poll.register(sock, select.EPOLLIN)
    began_s, spent_s = time.monotonic(), time.process_time()
    until_s = began_s + seconds
    for appender in by_file.values():
        appender.send()
    count, left = 0, connections
    while left:
        found = poll.poll(PATIENCE_S)
        assert found, f"{left} requests were not answered within {PATIENCE_S} s"
        goes_on = time.monotonic() < until_s
        for file, _ in found:
            appender = by_file[file]
            status = appender.heard()
            if not status:
                continue
            assert 200 <= status < 300, f"an append was answered {status}"
            count += 1
            if goes_on:
                appender.send()
            else:
                left -= 1
    took_s = time.monotonic() - began_s
    for sock in socks:
        sock.close()
    return {"count": count, "took_s": took_s, "spent_s": time.process_time() - spent_s}


class Reader:
    """One reader of an event stream: every event is to come once and in order."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.next = 0
        """The number of the event that is to come."""
        self._rest = b""
        self._began = False

    def heard(self) -> list[int]:
        """Read what is there; return the numbers of the events of which all has come."""
        more = self.sock.recv(RECEIVED_BYTES)
        assert more, "the server ended an event stream"
        data = self._rest + more
        if not self._began:
            head, blank, data = data.partition(b"\r\n\r\n")
            assert head[9:12] == b"200", f"the answer to a reader began with {head!r}"
            self._began = bool(blank)
        whole, end, self._rest = data.rpartition(b"\n\n") if self._began else (b"", b"", head)
        numbers = [int(number) for number in NUMBERED.findall(whole + end)]
        assert numbers == list(range(self.next, self.next + len(numbers))), f"events {numbers} came after {self.next - 1}"
        self.next += len(numbers)
        return numbers


class Crowd:
    """Many readers of one stream."""

    def __init__(self, port: int, path: str, readers: int) -> None:
        self._poll = select.epoll()
        self._by_file: dict[int, Reader] = {}
        head = head_of("GET", path, {"Accept": "text/event-stream"}, 0) + b"\r\n"
        for _ in range(readers):
            sock = connect(port)
            sock.sendall(head)
            self._by_file[sock.fileno()] = Reader(sock)
            self._poll.register(sock, select.EPOLLIN)
        self.numbers, self.read_at = array("l"), array("d")
        """The events that were read, and when."""

    def __len__(self) -> int:
        return len(self._by_file)

    def begin(self) -> None:
        """Return when each of them was answered."""
        begun: set[int] = set()
        while len(begun) < len(self):
            found = self._poll.poll(PATIENCE_S)
            assert found, f"only {len(begun)} of {len(self)} readers had an answer"
            for file, _ in found:
                self._by_file[file].heard()
                begun.add(file)

    def watch(self, sock: socket.socket) -> None:
        """Return from `hear` also when there is something for this socket."""
        self._poll.register(sock, select.EPOLLIN)

    def hear(self, wait_s: float) -> bool:
        """Read what came within that time at most; return whether there is something for the other socket."""
        other = False
        for file, _ in self._poll.poll(wait_s):
            reader = self._by_file.get(file)
            if reader is None:
                other = True
                continue
            for number in reader.heard():
                self.numbers.append(number)
                self.read_at.append(time.monotonic())
        return other

    def close(self) -> None:
        for reader in self._by_file.values():
            reader.sock.close()


def follow(port: int, path: str, query: str, readers: int, per_s: float, count: int, size: int) -> dict[str, Any]:
    """Append at a steady rate to a stream that many read, and return the seconds until each event was read by each."""
    crowd = Crowd(port, f"{path}?{query}", readers)
    crowd.begin()
    writer = connect(port)
    crowd.watch(writer)
    sent_at, acknowledged_at = [], []
    data = b""
    spent_s, due_at = time.process_time(), time.monotonic()
    while len(crowd.numbers) < count * readers:
        now = time.monotonic()
        assert now < due_at + PATIENCE_S, f"{count * readers - len(crowd.numbers)} events were not read within {PATIENCE_S} s"
        is_free = len(sent_at) == len(acknowledged_at) < count
        if is_free and now >= due_at:
            body = (b'{"number": %d, "text": "' % len(sent_at)).ljust(size - 2, b"x") + b'"}'
            writer.sendall(head_of("POST", path, {"Content-Type": "application/json"}, len(body)) + b"\r\n" + body)
            # Not when it was sent: a server that is late with one append delays the next.
            sent_at.append(due_at)
            due_at += 1 / per_s
        elif crowd.hear(max(0.0, due_at - now) if is_free else PATIENCE_S):
            data += writer.recv(RECEIVED_BYTES)
            if status := answered(data):
                assert 200 <= status < 300, f"an append was answered {status}"
                acknowledged_at.append(time.monotonic())
                data = b""
    spent_s = time.process_time() - spent_s
    crowd.close()
    found: dict[str, Any] = {"spent_s": spent_s}
    for name, since in (("from sent", sent_at), ("from acknowledged", acknowledged_at)):
        found[name] = centiles(sorted(at - since[number] for number, at in zip(crowd.numbers, crowd.read_at, strict=True)))
    return found


def centiles(values: list[float]) -> list[float]:
    """Return the median, the 99th percentile and the most."""
    return [values[len(values) // 2], values[len(values) * 99 // 100], values[-1]]


def main() -> None:
    """Do what each line says."""
    works = {"ask": lambda **given: {"status": ask(**given)}, "append": append, "follow": follow}
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(works[command.pop("do")](**command)), flush=True)  # type: ignore[operator]


if __name__ == "__main__":
    main()
