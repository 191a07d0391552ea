"""Server-sent events of streams: no payload forges one, and what was sent comes back."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sse_reader import Got, controls, events, of

from outlast.streams._node.live.frames import control_frame, data_frame, error_frame, joined

FORGED = b'x\revent: control\rdata: {"streamNextOffset":"9"}\r\r'
texts = st.lists(st.text(st.sampled_from("a: \r\n\0é\ufeff"), max_size=12).map(str.encode), min_size=1, max_size=4)


def test_a_text_with_carriage_returns_forges_no_event() -> None:
    frame = data_frame([FORGED], is_json=False, is_text=True)
    assert events(frame) == [Got("data", FORGED.replace(b"\r", b"\n"))]


@given(texts)
def test_a_text_comes_back_with_a_line_feed_for_every_line_end(records: list[bytes]) -> None:
    frame = data_frame(records, is_json=False, is_text=True) + control_frame("1", cursor=1, up_to_date=False, closed=False)
    assert [event.event for event in events(frame)] == ["data", "control"]
    assert of(frame, "data") == [re.sub(rb"\r\n|\r", b"\n", b"".join(records))]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_bytes_come_back_as_they_are(records: list[bytes]) -> None:
    frame = data_frame(records, is_json=False, is_text=False)
    (data,) = of(frame, "data")
    assert base64.b64decode(data, validate=True) == b"".join(records)


def test_messages_come_back_as_an_array_each_as_it_was_sent() -> None:
    messages = [b"9007199254740993", b"1.0", b"1E2", b"-0", b"1e400", b'{"a":1,\n  "a":2}', b'" \\r"']
    frame = data_frame(messages, is_json=True, is_text=True)
    assert of(frame, "data") == [b"[" + b",".join(messages) + b"]"]


@pytest.mark.parametrize(("is_json", "body"), [(True, b"[]"), (False, b"")])
def test_no_records_are_an_empty_body(*, is_json: bool, body: bytes) -> None:
    assert joined([], is_json=is_json) == body


@pytest.mark.parametrize(
    ("up_to_date", "closed", "members"),
    [
        (False, False, {"streamCursor": "7"}),
        (True, False, {"streamCursor": "7", "upToDate": True}),
        (True, True, {"upToDate": True, "streamClosed": True}),
    ],
)
def test_the_event_behind_the_records_says_where_to_go_on(*, up_to_date: bool, closed: bool, members: dict[str, object]) -> None:
    frame = control_frame("0000000000000042", cursor=7, up_to_date=up_to_date, closed=closed)
    assert controls(frame) == [{"streamNextOffset": "0000000000000042", **members}]


def test_an_error_is_an_event_of_its_own() -> None:
    assert [json.loads(data) for data in of(error_frame(b'{"code":"trimmed"}'), "error")] == [{"code": "trimmed"}]
