"""Batches of a watch: whole revisions alone, bounded, from messages however they were divided."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import Kind, OutlastError
from outlast.etcd._gateway.codec import Codec, text
from outlast.etcd._watching import watch as watching
from outlast.etcd._watching.watch import PROGRESS, Watch
from outlast.extend import attached
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.etcd import WatchBatch


class Stream:
    """A watch's stream in memory: pieces that come, and what was sent."""

    def __init__(self, pieces: Sequence[bytes], *, silent: bool = False) -> None:
        self.pieces = list(pieces)
        self.sent: list[bytes] = []
        self.silent = silent

    def send(self, piece: bytes) -> None:
        self.sent.append(piece)

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if not self.pieces and self.silent:
            await asyncio.Event().wait()
        return self.pieces.pop(0) if self.pieces else b""

    def abort(self) -> None: ...


def watch(stream: Stream) -> Watch:
    async def failed(exc: Exception) -> Exception:
        return exc

    codec = Codec(b"", "etcd")
    return Watch(stream, codec, asked="etcd: watch", after=0, epoch=0, heartbeat_s=1.0, failed=failed)  # type: ignore[arg-type]


def message(revisions: Sequence[int], *, fragment: bool = False, **more: Any) -> bytes:
    events = [{"kv": {"key": text(b"k"), "mod_revision": str(each)}} for each in revisions]
    told = {"header": {"revision": str(max(revisions, default=0))}, "events": events, "fragment": fragment, **more}
    return json.dumps({"result": told}).encode() + b"\n"


async def batches(stream: Stream) -> list[WatchBatch]:
    """All batches until the stream has ended, which is an error."""
    found: list[WatchBatch] = []
    one = watch(stream)
    ending = ""
    while not ending:
        try:
            found.append(await anext(one))
        except ConnectionError as error:
            ending = str(error)
    assert ending == "etcd: watch: the stream ended without a word"
    return found


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
    st.lists(st.integers(1, 5), min_size=1, max_size=20),
    st.integers(1, 7),
    st.integers(1, 40),
)
def test_revisions_are_whole_whatever_the_messages(sizes: list[int], cuts: list[int], most: int, piece: int) -> None:
    revisions = [number for number, size in enumerate(sizes, 1) for _ in range(size)]
    messages, at = b"", 0
    for cut in [*cuts, len(revisions)]:
        part = revisions[at : at + cut]
        at += cut
        if part:
            # etcd marks a message whose revision, or later ones, go on in the next.
            messages += message(part, fragment=at < len(revisions))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "EVENTS_MAX", most)
        pieces = [messages[start : start + piece] for start in range(0, len(messages), piece)]
        found = run_virtual(lambda: batches(Stream(pieces)))
    assert [event.kv.mod_revision for batch in found for event in batch.events] == revisions
    for batch in found:
        whole = {event.kv.mod_revision for event in batch.events}
        assert max(whole) == batch.revision
        assert len(batch.events) == sum(sizes[number - 1] for number in whole), "no revision is divided"
        assert len(batch.events) <= most or len(whole) == 1


def test_a_notice_in_its_turn_moves_the_revision_and_an_answer_that_may_overtake_does_not() -> None:
    told = [
        message([], header={"revision": "7"}, watch_id="-1"),
        message([], header={"revision": "5"}),
        message([6]),
    ]
    found = run_virtual(lambda: batches(Stream(told)))
    assert [(len(batch.events), batch.revision) for batch in found] == [(0, 5), (1, 6)]


def test_silence_is_asked_once_and_ends_it_after_the_same_time() -> None:
    async def main() -> None:
        stream = Stream([], silent=True)
        one = watch(stream)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError, match="silent for 2 s"):
            await anext(one)
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)
        assert stream.sent == [PROGRESS]
        with pytest.raises(TimeoutError):
            await anext(one)

    run_virtual(main)


def test_a_message_beyond_its_bound_ends_it() -> None:
    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watching, "LINE_BYTES_MAX", 1000)
            with pytest.raises(OutlastError) as caught:
                await anext(watch(Stream([b"x" * 1001])))
        fault = attached(caught.value)
        assert fault is not None
        assert fault.kind is Kind.REJECTED

    run_virtual(main)


@pytest.mark.parametrize("line", [b"no JSON\n", b"[]\n"])
def test_what_is_no_message_ends_it(line: bytes) -> None:
    async def main() -> None:
        with pytest.raises(ConnectionError, match="no JSON"):
            await anext(watch(Stream([line])))

    run_virtual(main)
