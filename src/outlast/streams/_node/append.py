"""POST: records are appended, the stream is closed, or both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from outlast.streams._errors import SequenceError, StreamClosedError
from outlast.streams._model import Producer
from outlast.streams._node import messages, protocol
from outlast.streams._node.answers import RefusalError, answer, bad_request, problem_for, refusal

if TYPE_CHECKING:
    from outlast.streams._model import Appended
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served


async def post(node: Node, request: Request) -> None:
    """Answer a POST."""
    served = await node.find(request.name)
    producer = _producer(request)
    closes = messages.wants_close(request)
    body = await request.body(node.body_bytes_max)
    if body:
        _check_type(request, served)
    elif not closes:
        raise bad_request("empty", "an append has a body, unless it closes the stream")
    try:
        if served.is_closed and not body:
            await _answer(request, served, None, served.tail)
            return
        records = messages.records_of(body, is_json=served.is_json) if body else []
        if body and not records:
            raise bad_request("empty", "an append of JSON has one message at least; [] has none")
        appended = await _append(served, request, records, producer)
        if closes:
            await served.stream.close()
    except StreamClosedError as error:
        raise _closed(served, error) from error
    served.touch(node.now())
    await _answer(request, served, producer, served.tail if appended is None else appended.next, appended)


async def _append(served: Served, request: Request, records: list[bytes], producer: Producer | None) -> Appended | None:
    if not records:
        return None
    seq = request.headers.get(protocol.SEQ)
    if seq is None:
        return await served.stream.append(records, producer=producer, deadline_s=request.deadline_s)
    async with served.lock:
        if served.last_seq is not None and seq <= served.last_seq:
            raise RefusalError(refusal(409, "stream seq", "Stream-Seq is not above the last one, as bytes compare"))
        appended = await served.stream.append(records, producer=producer, deadline_s=request.deadline_s)
        served.last_seq = seq
        return appended


def _producer(request: Request) -> Producer | None:
    headers = request.headers
    name, epoch, sequence = (headers.get(each) for each in (protocol.PRODUCER_ID, protocol.PRODUCER_EPOCH, protocol.PRODUCER_SEQ))
    if name is None and epoch is None and sequence is None:
        return None
    if not name or epoch is None or sequence is None:
        raise bad_request("producer", "Producer-Id, Producer-Epoch and Producer-Seq come together, and the id is not empty")
    numbers = protocol.parse_number(epoch), protocol.parse_number(sequence)
    if numbers[0] is None or numbers[1] is None:
        raise bad_request("producer", "Producer-Epoch and Producer-Seq are numbers from 0 to 2^53-1, in digits")
    return Producer(name.decode("latin-1"), numbers[0], numbers[1])


def _check_type(request: Request, served: Served) -> None:
    value = request.headers.get(protocol.CONTENT_TYPE)
    if value == served.content_value:
        return
    if not value:
        raise bad_request("content type", "an append has a Content-Type: that of the stream")
    media_type = protocol.parse_content_type(value.decode("latin-1"))
    if media_type is None:
        raise bad_request("content type", "the Content-Type is none")
    if media_type != served.media_type:
        raise RefusalError(refusal(409, "content type", f"the stream has {served.media_type}, and {media_type} came"))


def _closed(served: Served, error: Exception) -> RefusalError:
    problem = problem_for(error)
    assert problem is not None  # noqa: S101 - it is an error of a stream
    said = ((protocol.CLOSED, protocol.TRUE), (protocol.NEXT_OFFSET, protocol.offset_value(served.tail)))
    return RefusalError(replace(problem, headers=said))


async def _answer(
    request: Request, served: Served, producer: Producer | None, tail: int, appended: Appended | None = None
) -> None:
    headers = [(protocol.NEXT_OFFSET, protocol.offset_value(tail))]
    status = 204
    if producer is not None:
        headers.append((protocol.PRODUCER_EPOCH, b"%d" % producer.epoch))
        headers.append((protocol.PRODUCER_SEQ, b"%d" % producer.sequence))
        if appended is not None and not appended.duplicate:
            status = 200
    if served.is_closed:
        headers.append((protocol.CLOSED, protocol.TRUE))
    await answer(request.send, status, headers, b"" if status == 200 else None)


__all__ = ["SequenceError", "post"]
