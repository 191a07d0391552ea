"""How it is known that a session which was given up has ended: its socket, the server's own list, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg

from outlast.extend import Pacer
from outlast.postgres._pool.endings import DRAIN_BYTES_MAX, WAITS_S, Endings
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence


class Peer:
    """A server that says which sessions it has, and one connection to it."""

    def __init__(self) -> None:
        self.reachable = True
        self.ages: dict[int, float] | None = {}
        self.asked: list[float] = []
        self.ended = 0
        self.endings = Endings(Pacer(), lambda: self.reachable, self.ask)
        self.ours, self.theirs = socket.socketpair()

    async def ask(self, pids: Sequence[int]) -> dict[int, float]:
        self.asked.append(asyncio.get_running_loop().time())
        if self.ages is None:
            raise psycopg.OperationalError("no login")
        return {pid: self.ages[pid] for pid in pids if pid in self.ages}

    def give_up(self, pid: int = 7, opened_at: float = 0.0, *, watch: bool = True) -> None:
        def count(_: object) -> None:
            self.ended += 1

        def no_cancel() -> Any:
            raise psycopg.OperationalError("staged")

        pgconn = SimpleNamespace(
            backend_pid=pid, socket=self.ours.fileno(), transaction_status=1, cancel_conn=no_cancel, get_cancel=no_cancel
        )
        self.endings.take(SimpleNamespace(pgconn=pgconn, opened_at=opened_at), count, watch=watch)  # type: ignore[arg-type]
        # As libpq does: what is left is our own descriptor.
        self.ours.close()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def test_it_has_ended_when_the_server_closes_its_side() -> None:
    async def main() -> None:
        peer = Peer()
        peer.give_up()
        await asyncio.sleep(0.1)
        assert peer.theirs.recv(1) == b"", "the server sees that nothing more will come"
        peer.theirs.send(b"an error, and what else is still to be said")
        await asyncio.sleep(0.1)
        assert (peer.ended, len(peer.endings)) == (0, 1)
        peer.theirs.close()
        await asyncio.sleep(0.1)
        assert (peer.ended, len(peer.endings), peer.asked) == (1, 0, [])
        peer.close()

    run_virtual(main())


def test_it_has_ended_when_the_server_does_not_know_it_any_more() -> None:
    async def main() -> None:
        peer = Peer()
        peer.ages = {7: 1000.0}
        peer.give_up(opened_at=asyncio.get_running_loop().time())
        await asyncio.sleep(sum(WAITS_S) + 0.1)
        assert (peer.ended, len(peer.asked)) == (0, 4)
        peer.ages = None
        await asyncio.sleep(WAITS_S[-1])
        assert peer.ended == 0, "no answer is no news"
        peer.ages = {}
        await asyncio.sleep(WAITS_S[-1])
        assert (peer.ended, len(peer.endings)) == (1, 0)
        peer.close()

    run_virtual(main())


def test_a_younger_session_with_its_process_id_is_another_one() -> None:
    async def main() -> None:
        peer = Peer()
        opened_at = asyncio.get_running_loop().time()
        await asyncio.sleep(100)
        peer.ages = {7: 50.0}
        peer.give_up(opened_at=opened_at)
        await asyncio.sleep(WAITS_S[0] + 0.1)
        assert peer.ended == 1
        peer.close()

    run_virtual(main())


def test_while_the_server_is_down_nobody_asks_and_when_it_is_back_at_once() -> None:
    async def main() -> None:
        peer, loop = Peer(), asyncio.get_running_loop()
        peer.reachable = False
        peer.give_up(watch=False)
        await asyncio.sleep(100)
        assert peer.asked == []
        peer.reachable = True
        peer.endings.back()
        back_at = loop.time()
        await asyncio.sleep(0.1)
        assert (peer.asked, peer.ended) == ([back_at], 1)
        peer.close()

    run_virtual(main())


def test_a_session_that_goes_on_sending_is_not_read_for_ever() -> None:
    async def main() -> None:
        peer = Peer()
        peer.ages = {7: 1000.0}
        peer.give_up()
        peer.theirs.setblocking(False)
        sent, broken = 0, False
        while not broken and sent < 4 * DRAIN_BYTES_MAX:
            try:
                sent += peer.theirs.send(bytes(65_536))
            except BlockingIOError:
                await asyncio.sleep(0)
            except OSError:
                broken = True
        assert broken, "the server's next write fails"
        assert (peer.ended, len(peer.endings)) == (0, 1), "that it has ended only its own list says"
        peer.ages = {}
        await asyncio.sleep(WAITS_S[0] + 0.1)
        assert peer.ended == 1
        peer.close()

    run_virtual(main())


def test_closing_waits_no_longer_than_it_may_and_forgets_what_is_left() -> None:
    async def main() -> None:
        peer, loop = Peer(), asyncio.get_running_loop()
        peer.ages = {7: 1000.0}
        peer.give_up()
        began_at = loop.time()
        await peer.endings.close(0.3)
        assert 0.3 <= loop.time() - began_at < 0.4
        assert (peer.ended, len(peer.endings)) == (1, 0)
        peer.close()

    run_virtual(main())
