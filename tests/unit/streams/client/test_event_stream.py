"""Server-sent events as a client reads them: the same events wherever the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.streams._client.decisions.event_stream import Batches, EventParser, StreamEvent

RECORDED = (
    b"\xef\xbb\xbf: hello\r\n"
    b'event: data\r\ndata: [\r\ndata: {"k":"\xf0\x9f\x90\x8e"}\r\ndata: ]\r\n\r\n'
    b"event:control\rdata:x\rdata:\r\r"
    b"id: 7\nretry: 10\ndata\n\n"
    b"event: nothing\n\n"
    b"data: a\ndata:  b\n\n"
    b"event: data\ndata: cut in the midst"
)
EVENTS = [
    StreamEvent("data", '[\n{"k":"\U0001f40e"}\n]'),
    StreamEvent("control", "x\n"),
    StreamEvent("message", ""),
    StreamEvent("message", "a\n b"),
]


def read(*pieces: bytes) -> list[StreamEvent]:
    parser = EventParser(1 << 20)
    return [event for piece in pieces for event in parser.feed(piece)]


def test_the_events_are_the_same_for_every_cut_in_two_and_byte_by_byte() -> None:
    assert read(RECORDED) == EVENTS
    assert read(*(bytes([byte]) for byte in RECORDED)) == EVENTS
    for cut in range(len(RECORDED) + 1):
        assert read(RECORDED[:cut], RECORDED[cut:]) == EVENTS, cut
        assert read(RECORDED[:cut], b"", RECORDED[cut:]) == EVENTS, cut


def test_an_event_that_has_not_ended_is_none() -> None:
    assert read(b"event: data\ndata: x\n") == []
    assert read(b"event: data\ndata: x\n", b"\n") == [StreamEvent("data", "x")]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=5), st.data())
def test_any_text_comes_back_line_by_line_from_any_pieces(texts: list[str], data: st.DataObject) -> None:
    lines = [line for text in texts for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    ending = data.draw(st.sampled_from(["\n", "\r", "\r\n"]))
    raw = "".join(f"data: {line}{ending}" for line in lines).encode() + ending.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert read(*pieces) == [StreamEvent("message", "\n".join(lines))]


def test_an_event_that_never_ends_is_an_error_and_does_not_fill_the_memory() -> None:
    parser = EventParser(1000)
    for _ in range(17):
        assert list(parser.feed(b"data: " + b"x" * 50 + b"\n")) == []
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        list(parser.feed((b"data: " + b"x" * 50 + b"\n") * 2))
    with pytest.raises(ValueError, match="larger than"):
        list(EventParser(10).feed(b"x" * 11))


def test_data_counts_once_a_control_event_says_where_it_ends() -> None:
    batches = Batches("application/json", base64_encoded=False)
    assert batches.take(StreamEvent("data", "[1,2]")) is None
    assert batches.take(StreamEvent("data", "[]")) is None
    assert batches.take(StreamEvent("data", "[3]")) is None
    assert batches.take(StreamEvent("message", "?")) is None
    got = batches.take(StreamEvent("control", '{"streamNextOffset":"a","streamCursor":"c","upToDate":true}'))
    assert got is not None
    assert (got[0].messages, got[0].next, got[0].up_to_date, got[0].closed, got[1]) == ([1, 2, 3], "a", True, False, "c")
    last = batches.take(StreamEvent("control", '{"streamNextOffset":"b","streamClosed":true}'))
    assert last is not None
    assert (last[0].data, last[0].closed, last[0].up_to_date, last[1]) == (b"", True, True, "")


def test_bytes_come_in_base64_over_several_lines() -> None:
    batches = Batches("application/octet-stream", base64_encoded=True)
    batches.take(StreamEvent("data", "AQID\nBAUG\r\nBwgJ"))
    got = batches.take(StreamEvent("control", '{"streamNextOffset":"a"}'))
    assert got is not None
    assert got[0].data == bytes(range(1, 10))
    with pytest.raises(ValueError, match=r".*"):
        batches.take(StreamEvent("data", "no base64!"))


@pytest.mark.parametrize("data", ["", "[]", "null", "{}", '{"streamNextOffset":7}', "{"])
def test_a_control_event_that_names_no_offset_is_an_error(data: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Batches("text/plain", base64_encoded=False).take(StreamEvent("control", data))
