"""The example of a system of one's own: a bounded outbox, written through the two doors."""

from __future__ import annotations

import ast
import asyncio
import errno
import io
import logging
import re
import sys
import tokenize
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from outlast import Kind, Service, State, Stop, Stopping, Unavailable, extend
from outlast.http import HttpPeer
from outlast.testing import run_virtual

pytestmark = pytest.mark.expected_logs
HERE = Path(__file__).parents[3] / "examples" / "outbox"
sys.path.insert(0, str(HERE))

import outbox  # noqa: E402 - from the folder of the example

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Trouble = Callable[[bytes], httpx2.Response | None]


class Peer(HttpPeer):
    """A peer without a network: `trouble` raises, or returns its answer."""

    def __init__(self) -> None:
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer), trust_env=False)
        super().__init__("http://peer", name="peer", client=client, deadline_s=5.0)
        self.trouble: Trouble | None = None
        self.hangs = False
        self.got: list[bytes] = []
        self.keys: list[str] = []
        self.posts = self.probes = 0

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.posts += request.method == "POST"
        self.probes += request.method == "HEAD"
        await asyncio.sleep(0.01)
        if self.hangs:
            await asyncio.sleep(3600)
        answer = None if self.trouble is None else self.trouble(request.content)
        if answer is None and request.method == "POST":
            self.got.append(request.content)
            self.keys.append(request.headers["idempotency-key"])
        return answer or httpx2.Response(200)


def refuses(_body: bytes) -> None:
    raise httpx2.ConnectError("connection refused")


def busy(_body: bytes) -> httpx2.Response:
    return httpx2.Response(503, headers={"retry-after": "30"})


def dislikes_one(body: bytes) -> httpx2.Response | None:
    return httpx2.Response(400) if body == b"bad" else None


@asynccontextmanager
async def running(path: Path, peer: Peer, **options: Any) -> AsyncIterator[outbox.Outbox]:
    """Run an outbox in a service of its own for the time of the block."""
    box, service, stop = outbox.Outbox(peer, path / "journal", **options), Service("shop"), Stop()
    box.attach(service)
    life = asyncio.create_task(service.run(stop))
    await service.until_ready()
    try:
        yield box
    finally:
        stop.fire("test")
        assert await life == 0


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.1)


def test_what_is_accepted_is_on_disk_and_reaches_the_peer_once(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        async with running(tmp_path, peer) as box:
            peer.trouble = refuses
            keys = [await box.put(b"order %d" % number) for number in range(20)]
            data = (tmp_path / "journal").read_bytes()
            assert all(key.encode() in data for key in keys)
            peer.trouble = None
            await until(lambda: not box.open)
        assert sorted(peer.keys) == sorted(keys)
        assert (tmp_path / "journal").read_bytes() == b""

    run_virtual(main)


@pytest.mark.parametrize("trouble", ["refuses", "hangs", "asks to come back in 30 s"])
def test_an_outage_costs_no_message_few_lines_and_few_attempts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        peer = Peer()
        peer.hangs = trouble == "hangs"
        peer.trouble = {"refuses": refuses, "hangs": None}.get(trouble, busy)
        async with running(tmp_path, peer) as box:
            keys = [await box.put(b"%d" % number) for number in range(200)]
            await until(lambda: peer.state is State.DOWN)
            posts = peer.posts
            await asyncio.sleep(120)
            assert peer.posts == posts <= 4, "one attempt of each sender; then the prober asks, alone"
            assert 0 < peer.probes <= (5 if trouble.startswith("asks") else 200)
            assert box.health().well is False
            assert box.lag().seconds is not None
            peer.trouble, peer.hangs = None, False
            await until(lambda: not box.open)
            await asyncio.sleep(60)
        assert sorted(peer.keys) == sorted(keys)
        assert box.counts == {"accepted": 200, "delivered": 200, "dropped": 0, "turned_away": 0}

    run_virtual(main)
    said = [record for record in caplog.records if "peer" in record.getMessage() and record.name != "httpx2"]
    assert len(said) <= 6, [record.getMessage() for record in said]
    assert sum(record.levelno >= logging.WARNING for record in said) <= 4


def test_a_message_that_the_peer_refuses_stops_no_other_and_waits_for_a_person(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        peer = Peer()
        peer.trouble = dislikes_one
        async with running(tmp_path, peer) as box:
            for body in (b"bad", b"good", b"bad", b"good", b"bad"):
                await box.put(body)
            await until(lambda: len(box.refused) == 3 and len(box.open) == 3)
            assert (peer.got, peer.posts, peer.state) == ([b"good", b"good"], 5, State.UP)
            again, drop = box.acts()
            assert (again.concerns, drop.concerns, drop.destructive) == (3, 3, True)
            assert await again.run() == 3
            await until(lambda: len(box.refused) == 3)
            assert peer.posts == 8
            assert await drop.run() == 3
            assert not box.open
            assert [act.concerns for act in box.acts()] == [0, 0]
        assert box.counts == {"accepted": 5, "delivered": 2, "dropped": 3, "turned_away": 0}

    run_virtual(main)
    said = [record for record in caplog.records if "set aside" in record.getMessage()]
    assert len(said) == 2, "once, and once again after a person had them tried again"


def test_a_full_outbox_refuses_all_alike_says_so_once_and_has_room_again_below_a_share(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        peer = Peer()
        peer.trouble = refuses
        async with running(tmp_path, peer, messages_max=10) as box:
            keys = [await box.put(b"%d" % number) for number in range(10)]
            await until(lambda: peer.state is State.DOWN)
            for _ in range(50):
                with pytest.raises(Unavailable) as refused:
                    await box.put(b"one too many")
                fault = refused.value.fault
                assert (fault.kind, fault.code, fault.source) == (Kind.EXHAUSTED, "outbox full", "outbox")
                assert refused.value.retry_after_s > 0
                assert refused.value.since_s >= 0
                assert refused.value.__cause__ is None
                await asyncio.sleep(1)
            assert box.health().well is False
            peer.trouble = None
            await until(lambda: not box.open)
            keys.append(await box.put(b"more"))
            await until(lambda: not box.open)
        assert sorted(peer.keys) == sorted(keys), "what was refused never comes"
        assert box.counts["turned_away"] == 50

    run_virtual(main)
    messages = [record.getMessage() for record in caplog.records if record.name == "outbox"]
    assert sum("is full" in message for message in messages) == 1
    assert sum("has room again" in message for message in messages) == 1


def test_what_a_stop_leaves_goes_on_after_the_next_start_and_nothing_comes_in_between(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        peer.trouble = refuses
        async with running(tmp_path, peer) as box:
            keys = [await box.put(b"%d" % number) for number in range(5)]
        with pytest.raises(Stopping):
            await box.put(b"too late")
        assert peer.got == []
        peer = Peer()
        async with running(tmp_path, peer) as box:
            assert list(box.open) == keys
            await until(lambda: not box.open)
        assert sorted(peer.keys) == sorted(keys)

    run_virtual(main)


def test_a_message_that_the_disk_does_not_take_is_refused_and_never_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        peer = Peer()
        async with running(tmp_path, peer) as box:

            def full(_messages: list[outbox.Message]) -> None:
                raise OSError(errno.ENOSPC, "no space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(box._journal, "append", full)
                codes = set()
                for _ in range(20):
                    with pytest.raises(Unavailable) as refused:
                        await box.put(b"lost")
                    codes.add((refused.value.fault.kind, refused.value.fault.code))
                assert codes == {(Kind.EXHAUSTED, "ENOSPC")}, "the same for the first and the last"
                assert box.health().state == "waiting for outbox disk"
            await asyncio.sleep(60)
            await box.put(b"kept")
            await until(lambda: not box.open)
        assert peer.got == [b"kept"]

    run_virtual(main)
    assert sum(record.levelno >= logging.WARNING and "disk" in record.getMessage() for record in caplog.records) <= 3


def test_a_caller_that_gives_up_leaves_the_outbox_whole(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        async with running(tmp_path, peer) as box:
            for _ in range(20):
                call = asyncio.create_task(box.put(b"given up"))
                await asyncio.sleep(0)
                call.cancel()
            await until(lambda: not box.open and box.counts["accepted"] == box.counts["delivered"])
            await asyncio.sleep(5)
            assert (tmp_path / "journal").read_bytes() == b""
        assert len(peer.got) == box.counts["accepted"]

    run_virtual(main)


def test_a_damaged_journal_is_left_for_a_person(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        peer.trouble = refuses
        async with running(tmp_path, peer) as box:
            for number in range(3):
                await box.put(b"%d" % number)
        data = bytearray((tmp_path / "journal").read_bytes())
        data[data.index(b"\n") + 30] ^= 1
        (tmp_path / "journal").write_bytes(data)
        service = Service("shop")
        outbox.Outbox(Peer(), tmp_path / "journal").attach(service)
        with pytest.raises(outbox.ConfigurationError, match="damaged in 1 places"):
            await service.run(Stop())
        assert (tmp_path / "journal").read_bytes() == data

    run_virtual(main)


def test_it_comes_in_by_the_two_doors() -> None:
    allowed = {"outlast", "outlast.extend", "outlast.http", "__future__"}
    for node in ast.walk(ast.parse((HERE / "outbox.py").read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert name in allowed or name.partition(".")[0] in sys.stdlib_module_names, f"it imports {name}"


def test_it_has_less_than_150_lines_of_code() -> None:
    text = (HERE / "outbox.py").read_text(encoding="utf-8")
    texts = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {token.start[0] for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in quiet}
    assert len(lines - texts) < 150


def test_the_page_about_the_second_door_explains_each_of_its_names() -> None:
    text = (HERE.parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([A-Za-z_]+)[`(.]", text))
    assert set(extend.__all__) - explained == set()
