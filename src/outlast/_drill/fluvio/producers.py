"""The producers: clients of an arm that append as fast as they are let, and one that reads, all on one thread of the harness."""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

from outlast._drill.fluvio.wire import Answer, Request, id_of, record
from outlast._drill.lab.errors import DrillError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from outlast._drill.fluvio.wire import Answers, Reply, Talk

    Floats: TypeAlias = "array[float]"

HEALTHY_PER_S: Final = 500.0
"""Records a second, of all producers together, while they are stored: so many that the disk does not fill by itself."""
READ_EVERY_S: Final = 0.05
ANSWERS_S_MAX: Final = 10.0
"""Seconds that the last answers may take once no more is sent; what has none then is unknown."""
_TICK_S: Final = 0.02
_PRODUCER_BITS: Final = 40
_ERRORS_MAX: Final = 20
"""Different errors that are kept."""


@dataclass(slots=True)
class Notes:
    """All that clients were told. Ids and times stand in the order of the answers."""

    positions: dict[int, int] = field(default_factory=dict[int, int])
    """The position of each record that was acknowledged."""
    acknowledged_s: Floats = field(default_factory=lambda: array("d"))
    append_s: Floats = field(default_factory=lambda: array("d"))
    """The seconds from the request to the acknowledgement."""
    refused: array[int] = field(default_factory=lambda: array("Q"))
    refused_s: Floats = field(default_factory=lambda: array("d"))
    refusal_s: Floats = field(default_factory=lambda: array("d"))
    """The seconds from the request to the refusal."""
    unknown: list[int] = field(default_factory=list[int])
    errors: Counter[str] = field(default_factory=Counter[str])
    """The texts of refusals."""
    reads_s: Floats = field(default_factory=lambda: array("d"))
    """The times of the records that were read and were the right ones."""
    reads_failed_s: Floats = field(default_factory=lambda: array("d"))
    read_errors: Counter[str] = field(default_factory=Counter[str])


@dataclass(slots=True)
class _Client:
    """One client. `asked` is the id of the record that it sent or asked for; None: it waits for its next turn."""

    number: int
    reads: bool
    due_s: float
    socket: socket.socket
    answers: Answers
    """Reads those that come on that connection."""
    sequence: int = 0
    asked: int | None = None
    sent_s: float = 0.0


class Producers:
    """A thread that is all clients of one arm. Each has one request under way, and never sends a record again."""

    def __init__(self, talk: Talk, count: int, seed: int) -> None:
        """Prepare `count` producers and a reader of the arm that `talk` reaches."""
        self.notes = Notes()
        self.broken = 0
        """Connections that the arm has ended without an answer. A client then connects again; one that cannot sends no more."""
        self._talk = talk
        self._count = count
        self._rng = Random(seed)
        self._pace_s: float | None = count / HEALTHY_PER_S
        self._selector = selectors.DefaultSelector()
        self._clients: list[_Client] = []
        self._ids: list[int] = []
        self._seen: set[int] = set()
        self._stop = threading.Event()
        self._on_refusal: Callable[[], None] | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="drill-producers", daemon=True)

    def connect(self) -> bool:
        """Connect if the server is there, and begin; return whether it was."""
        if self._clients:
            return True
        try:
            if not self._talk.greet():
                return False
            self._clients = [self._dial(number) for number in range(self._count + 1)]
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        self._thread.start()
        return True

    @property
    def ready(self) -> int:
        """The number of producers that have had a record stored."""
        return len(self._seen)

    def unleash(self) -> None:
        """Append as fast as they are let, also while records are stored."""
        self._pace_s = None

    def rein_in(self) -> None:
        """Pause after a record that was stored. One that was refused is followed by the next at once, always."""
        self._pace_s = self._count / HEALTHY_PER_S

    def at_refusal(self, function: Callable[[], None]) -> None:
        """Call `function` once, on the thread of the producers, at the next refusal."""
        self._on_refusal = function

    def stop(self) -> None:
        """Send no more, and wait for the answers that are due; raises what the thread failed with, if it failed."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        for client in self._clients:
            client.socket.close()
        self._selector.close()
        if self._failure is not None:
            raise self._failure

    def _dial(self, number: int) -> _Client:
        client = _Client(number, number == self._count, time.monotonic(), self._talk.dial(), self._talk.answers())
        self._selector.register(client.socket, selectors.EVENT_READ, client)
        return client

    def _dial_again(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        try:
            client.socket, client.answers = self._talk.dial(), self._talk.answers()
        except OSError:
            self._clients.remove(client)
        else:
            self._selector.register(client.socket, selectors.EVENT_READ, client)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn(self._send_due())
            deadline_s = time.monotonic() + ANSWERS_S_MAX
            while any(client.asked is not None for client in self._clients) and time.monotonic() < deadline_s:
                self._turn(_TICK_S)
            self.notes.unknown += [each.asked for each in self._clients if each.asked is not None and not each.reads]
        except BaseException as exc:  # noqa: BLE001  raised again by stop()
            self._failure = exc

    def _send_due(self) -> float:
        """Send what is due; return the seconds until the next is."""
        now_s, wait_s = time.monotonic(), _TICK_S
        for client in self._clients:
            if client.asked is None:
                if client.due_s <= now_s:
                    self._send(client)
                else:
                    wait_s = min(wait_s, client.due_s - now_s)
        return wait_s

    def _turn(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            client: _Client = key.data
            try:
                data = client.socket.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                self._take_end(client)
            elif (reply := client.answers.feed(data)) is not None:
                self._take(client, reply)
                if reply.last:
                    self._dial_again(client)

    def _take_end(self, client: _Client) -> None:
        self.broken += 1
        if client.asked is not None and not client.reads:
            self.notes.unknown.append(client.asked)
        client.asked = None
        self._dial_again(client)

    def _send(self, client: _Client) -> None:
        if client.reads:
            if not self._ids:
                return
            number = self._rng.choice(self._ids)
            data = self._talk.request(Request.READ, b"", self.notes.positions[number])
        else:
            number = client.number << _PRODUCER_BITS | client.sequence
            client.sequence += 1
            data = self._talk.request(Request.APPEND, record(number), 0)
        client.asked, client.sent_s = number, time.monotonic()
        # A connection that has ended is found to be so when it is read.
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(data)

    def _take(self, client: _Client, reply: Reply) -> None:
        number, client.asked, now_s = client.asked, None, time.monotonic()
        if number is None:
            msg = f"an arm of the drill sent an answer to client {client.number} that nobody had asked for: {reply.body[:100]!r}"
            raise DrillError(msg)
        if client.reads:
            client.due_s = now_s + READ_EVERY_S
            self._take_read(number, reply, now_s)
        elif reply.what is Answer.DONE:
            self._take_acknowledgement(client, number, reply.position, now_s)
        elif reply.what is Answer.REFUSED:
            self._take_refusal(client, number, reply.body, now_s)
        else:
            self.notes.unknown.append(number)
            client.due_s = now_s

    def _take_read(self, number: int, reply: Reply, now_s: float) -> None:
        done = reply.what is Answer.DONE
        if done and id_of(reply.body) == number:
            self.notes.reads_s.append(now_s)
            return
        self.notes.reads_failed_s.append(now_s)
        text = "another record" if done else reply.body.decode(errors="replace")
        if len(self.notes.read_errors) < _ERRORS_MAX:
            self.notes.read_errors[text] += 1

    def _take_acknowledgement(self, client: _Client, number: int, position: int, now_s: float) -> None:
        self.notes.positions[number] = position
        self.notes.acknowledged_s.append(now_s)
        self.notes.append_s.append(now_s - client.sent_s)
        self._ids.append(number)
        self._seen.add(client.number)
        pace_s = self._pace_s
        client.due_s = now_s if pace_s is None else max(now_s, client.due_s + pace_s)

    def _take_refusal(self, client: _Client, number: int, body: bytes, now_s: float) -> None:
        notes = self.notes
        notes.refused.append(number)
        notes.refused_s.append(now_s)
        notes.refusal_s.append(now_s - client.sent_s)
        text = body.decode(errors="replace")
        if text in notes.errors or len(notes.errors) < _ERRORS_MAX:
            notes.errors[text] += 1
        client.due_s = now_s
        if self._on_refusal is not None:
            function, self._on_refusal = self._on_refusal, None
            function()
