"""The talk of the fluvio drill over HTTP: the answers of a server, however they are cut, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools
import pytest

from outlast._drill.fluvio.http_wire import HttpTalk
from outlast._drill.fluvio.wire import Answer, FrameTalk, Reply, Request, message, record

if TYPE_CHECKING:
    from outlast._drill.fluvio.wire import Talk

PROBLEM = b'{"title": "disk full", "kind": "exhausted", "code": "low space", "free_bytes": 12}'
ANSWERS = [
    (
        b"HTTP/1.1 204 No Content\r\nStream-Next-Offset: 0000000000000043\r\n\r\n",
        Reply(Answer.DONE, b"", 42),
    ),
    (
        b"HTTP/1.1 200 OK\r\nstream-next-offset: 0000000000000009\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"400\r\n" + record(7) + b"\r\n3\r\nabc\r\n0\r\n\r\n",
        Reply(Answer.DONE, record(7), 8),
    ),
    (
        b"HTTP/1.1 507 Insufficient Storage\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s"
        % (len(PROBLEM), PROBLEM),
        Reply(Answer.REFUSED, b"507 exhausted: low space"),
    ),
    (
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 21\r\nConnection: close\r\n\r\nInternal Server Error",
        Reply(Answer.REFUSED, b"500 Internal Server Error", last=True),
    ),
    (b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 4\r\n\r\nslow", Reply(Answer.UNKNOWN, b"504 slow")),
]


@pytest.mark.parametrize(("sent", "reply"), ANSWERS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_answer_is_read_however_it_is_cut(sent: bytes, reply: Reply, size: int) -> None:
    answers = HttpTalk("127.0.0.1", 1).answers()
    for _ in range(1 if reply.last else 3):
        found = [answers.feed(sent[at : at + size]) for at in range(0, len(sent), size)]
        assert found == [None] * (len(found) - 1) + [reply]


def test_what_is_no_http_is_an_error() -> None:
    with pytest.raises(httptools.HttpParserError):
        HttpTalk("127.0.0.1", 1).answers().feed(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_requests_name_the_stream_and_the_offset_before_the_record() -> None:
    talk = HttpTalk.to("127.0.0.1:4437")
    talk._digits = 16
    read = talk.request(Request.READ, b"", 42)
    assert read.startswith(b"GET /v1/stream/drill?offset=0000000000000042 HTTP/1.1\r\nHost: 127.0.0.1:4437\r\n")
    assert read.endswith(b"\r\n\r\n")
    head, _, body = talk.request(Request.APPEND, record(3), 0).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/stream/drill HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 1024" in head
    assert body == record(3)


@pytest.mark.parametrize("size", [1, 100_000])
def test_frames_are_read_however_they_are_cut(size: int) -> None:
    talk: Talk = FrameTalk("/nowhere")
    answers, sent = talk.answers(), message(Answer.REFUSED, b"no room")
    found = [answers.feed(sent[at : at + size]) for at in range(0, len(sent), size)]
    assert found == [None] * (len(found) - 1) + [Reply(Answer.REFUSED, b"no room")]
