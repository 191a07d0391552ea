"""POST: records are appended, the stream is closed, or both in one step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from outlast.streams._entries import check_name
from outlast.streams._errors import DamagedError, ExpiredError, SequenceError, StreamClosedError, TrimmedError
from outlast.streams._format.producers import PRODUCER_ID_BYTES_MAX
from outlast.streams._model import Producer
from outlast.streams._node import messages, protocol
from outlast.streams._node.answers import RefusalError, answer, bad_request, problem_for, refusal, settled

if TYPE_CHECKING:
    from outlast.streams._model import Appended
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served

SEQ_HEADER: Final = "stream-seq"
"""The header of a record that keeps the highest `Stream-Seq` up to it, so that it outlives the process."""
SEQ_BYTES_MAX: Final = 256
TOKEN: Final = "outlast.token"  # noqa: S105 - a name
"""The extension of a request that `outlast.http` has let in by a token."""
SIMPLE: Final = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""The types that a web page may make a browser send to any address without asking there first."""


async def post(node: Node, request: Request) -> None:
    """Answer a POST. What is refused for what it is, or for a full disk, is refused before its body is read."""
    began = node.now()
    served = await node.find(request.name)
    producer = producer_of(request)
    closes = messages.wants_close(request)
    is_closed = served.is_closed
    if b"sec-fetch-site" in request.headers:
        _check_site(request)
    length = request.length
    if length != 0:
        _check_before_body(served, request, producer, length, is_closed=is_closed)
    body = await request.body(messages.body_bytes_max(node, is_json=served.is_json))
    records = _records(served, request, body, is_closed=is_closed) if body or not closes else []
    deadline_s = request.deadline_s
    if deadline_s is not None and (deadline_s := deadline_s - (node.now() - began)) <= 0:
        raise ExpiredError(served.name, "its deadline passed while its body came")
    appended: Appended | None = None
    try:
        if records or producer is not None:
            storing = _append(served, request, records, producer, closes=closes, deadline_s=deadline_s)
            appended = await settled(storing, request)
        elif not is_closed:
            await settled(served.stream.close(), request)
    except StreamClosedError as error:
        raise _closed(served, error) from error
    except SequenceError as error:
        raise _out_of_sequence(served, error) from error
    served.touch(node.now())
    await _answer(request, served, producer, appended, is_new=bool(records))


def _check_before_body(
    served: Served, request: Request, producer: Producer | None, length: int | None, *, is_closed: bool
) -> None:
    """Raise what the append is refused with whatever its body is, in the order of the protocol: closed, then its type.

    A retry of what is stored is answered, whatever the disk is by now.
    """
    if not is_closed:
        if length:
            _check_type(request, served)
        if producer is None or not _is_known(served, producer):
            served.stream.check(length or 0)
    elif producer is None and length:
        raise _closed(served, StreamClosedError(served.name, f"it was closed at position {served.tail}; nothing can be added"))


def _records(served: Served, request: Request, body: bytes, *, is_closed: bool) -> list[bytes]:
    """Return the records of a body. Raises `RefusalError`: it has none, or is of another type."""
    if not body:
        raise bad_request("empty", "an append has a body, unless it closes the stream (Stream-Closed: true)")
    if is_closed:
        # It stores nothing, whatever it is: only who has sent it is looked at.
        return [body]
    if not request.length:
        _check_type(request, served)
    records = messages.records_of(body, is_json=served.is_json)
    if not records:
        raise bad_request("empty", "an append of JSON has one message at least, and [] has none")
    return records


async def _append(
    served: Served,
    request: Request,
    records: list[bytes],
    producer: Producer | None,
    *,
    closes: bool,
    deadline_s: float | None,
) -> Appended:
    """Append, in the order of `Stream-Seq` where the stream has that."""
    append = served.stream.append
    seq = request.headers.get(protocol.SEQ)
    if not served.knows_seq:
        await _recall(served)
    if seq is None and served.last_seq is None and not served.lock.locked():
        return await append(records, producer=producer, close=closes, deadline_s=deadline_s)
    async with served.lock:
        if seq is not None and not (producer is not None and _is_known(served, producer)):
            _check_seq(seq, served.last_seq)
        newest = seq or served.last_seq
        headers = None
        if newest is not None and records:
            # The last record of each append says it: so the last record of the stream does.
            headers = [*[{}] * (len(records) - 1), {SEQ_HEADER: newest.decode("latin-1")}]
        appended = await append(records, headers=headers, producer=producer, close=closes, deadline_s=deadline_s)
        if records and not appended.duplicate:
            served.last_seq = newest
        return appended


async def _recall(served: Served) -> None:
    """Find out the highest `Stream-Seq` of a stream that an earlier process has served: its last record says it."""
    async with served.lock:
        if served.knows_seq:
            return
        tail = served.tail
        if tail > served.oldest:
            try:
                chunk = await served.fetch(tail - 1, 1)
            except (DamagedError, TrimmedError):
                # Nobody knows it any more, and appends go on.
                pass
            else:
                seq = next(iter(chunk)).headers.get(SEQ_HEADER)
                served.last_seq = None if seq is None else seq.encode("latin-1", "replace")
        served.knows_seq = True


def _check_seq(seq: bytes, last: bytes | None) -> None:
    if not 0 < len(seq) <= SEQ_BYTES_MAX:
        raise bad_request("stream seq", f"Stream-Seq has 1 to {SEQ_BYTES_MAX} bytes, not {len(seq)}")
    if last is not None and seq <= last:
        detail = f"Stream-Seq {_shown(seq)} is not above the last one, {_shown(last)}: they are compared byte by byte"
        raise RefusalError(refusal(409, "stream seq", detail))


def _shown(seq: bytes) -> str:
    return repr(seq[:50].decode("latin-1"))


def _is_known(served: Served, producer: Producer) -> bool:
    """Return whether the append is a duplicate, or fenced: the producer decides that, before `Stream-Seq` is looked at."""
    state = served.stream.producer_state(producer.id)
    return state is not None and (producer.epoch, producer.sequence) <= state


def producer_of(request: Request) -> Producer | None:
    """Return who appends, for what number of times. Raises `RefusalError`."""
    headers = request.headers
    name = headers.get(protocol.PRODUCER_ID)
    epoch, sequence = headers.get(protocol.PRODUCER_EPOCH), headers.get(protocol.PRODUCER_SEQ)
    if name is None and epoch is None and sequence is None:
        return None
    if not name or epoch is None or sequence is None:
        raise bad_request("producer", "Producer-Id, Producer-Epoch and Producer-Seq come together, and the id is not empty")
    try:
        text = name.decode()
        check_name(text, "producer", PRODUCER_ID_BYTES_MAX)
    except ValueError:
        detail = f"Producer-Id has at most {PRODUCER_ID_BYTES_MAX} bytes of UTF-8 without control characters"
        raise bad_request("producer", detail) from None
    first, second = protocol.parse_number(epoch), protocol.parse_number(sequence)
    if first is None or second is None:
        raise bad_request("producer", "Producer-Epoch and Producer-Seq are numbers from 0 to 2^53-1 in decimal digits")
    return Producer(text, first, second)


def _check_type(request: Request, served: Served) -> None:
    value = request.headers.get(protocol.CONTENT_TYPE)
    if value == served.content_value:
        return
    if not value:
        raise bad_request("content type", f"an append has a Content-Type, that of the stream: {served.content_type}")
    media_type = protocol.parse_content_type(value.decode("latin-1"))
    if media_type is None:
        raise bad_request("content type", "the Content-Type is none: it is a type, a slash, and a subtype")
    if media_type != served.media_type:
        raise RefusalError(refusal(409, "content type", f"the stream has {served.media_type}, and {media_type} came"))


def _check_site(request: Request) -> None:
    """Refuse what a page of another site has made a browser send, where nobody asked who it is: a node on loopback is near."""
    if request.headers[b"sec-fetch-site"] != b"cross-site" or request.scope.get("extensions", {}).get(TOKEN) is not None:
        return
    if protocol.parse_content_type(request.text(protocol.CONTENT_TYPE) or "text/plain") in SIMPLE:
        raise RefusalError(refusal(403, "cross site", "a page of another site may not append here; give the node tokens"))


def _closed(served: Served, error: StreamClosedError) -> RefusalError:
    problem = problem_for(error)
    assert problem is not None  # noqa: S101 - it is an error of a stream
    said = ((protocol.CLOSED, protocol.TRUE), (protocol.NEXT_OFFSET, protocol.offset_value(served.tail)))
    return RefusalError(replace(problem, headers=said))


def _out_of_sequence(served: Served, error: SequenceError) -> Exception:
    """Return the end of an append with a gap: 409; but a new epoch that does not begin at 0 is malformed."""
    if error.expected == 0 and served.stream.producer_state(error.producer) is not None:
        return bad_request("sequence", f"a new epoch begins at sequence 0, not {error.sequence}")
    return error


async def _answer(
    request: Request, served: Served, producer: Producer | None, appended: Appended | None, *, is_new: bool
) -> None:
    """Answer 200 for what a producer has added, 204 for all else that is well."""
    tail = served.tail if appended is None or appended.next < 0 else appended.next
    headers = [(protocol.NEXT_OFFSET, protocol.offset_value(tail))]
    body = None
    if producer is not None and appended is not None:
        sequence = producer.sequence
        if appended.duplicate:
            state = served.stream.producer_state(producer.id)
            sequence = state[1] if state is not None and state[0] == producer.epoch else sequence
        elif is_new:
            body = b""
        headers += ((protocol.PRODUCER_EPOCH, b"%d" % producer.epoch), (protocol.PRODUCER_SEQ, b"%d" % sequence))
    if served.is_closed:
        headers.append((protocol.CLOSED, protocol.TRUE))
    await answer(request.send, 204 if body is None else 200, headers, body)
