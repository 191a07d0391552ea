"""PUT: a stream is made, or is there already as it was asked for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from outlast.streams._errors import StreamExistsError, StreamNotFoundError
from outlast.streams._node import forks, messages, protocol
from outlast.streams._node.answers import RefusalError, answer, bad_request, refusal, settled

if TYPE_CHECKING:
    from outlast.streams._node.node import Node
    from outlast.streams._node.requests import Request
    from outlast.streams._node.served import Served


async def put(node: Node, request: Request) -> None:
    """Answer a PUT."""
    labels, wish = wanted(request), forks.wish_of(request)
    is_closed = messages.wants_close(request)
    served = await _there(node, request.name)
    fork = None
    if wish is not None:
        fork = await forks.look_up(node, wish, labels, is_there=served is not None)
        labels = dict(fork.labels)
    labels.setdefault("content-type", protocol.OCTETS)
    if served is None:
        if request.length != 0:
            node.check_room()
        is_json = protocol.parse_content_type(labels["content-type"]) == protocol.JSON
        body = await request.body(messages.body_bytes_max(node, is_json=is_json))
        records = messages.records_of(body, is_json=is_json) if body else []
        try:
            served = await settled(_make(node, request.name, labels, records, fork, is_closed=is_closed), request)
        except StreamExistsError:
            # Another one was quicker.
            served = await node.find(request.name)
        else:
            await _answer(request, served, 201)
            return
        _check_same(served, labels, wish, is_closed=is_closed)
    else:
        _check_same(served, labels, wish, is_closed=is_closed)
        await request.body(node.body_bytes_max)
    await _answer(request, served, 200)


def wanted(request: Request) -> dict[str, str]:
    """Return the labels of the stream that is asked for. Raises `RefusalError`."""
    labels: dict[str, str] = {}
    if content_type := request.text(protocol.CONTENT_TYPE):
        if protocol.parse_content_type(content_type) is None:
            raise bad_request("content type", f"{content_type[:100]!r} is no content type")
        labels["content-type"] = content_type
    ttl, expires_at = request.headers.get(protocol.TTL), request.text(protocol.EXPIRES_AT)
    if ttl is not None and expires_at is not None:
        raise bad_request("expiry", "a stream has a Stream-TTL or a Stream-Expires-At, not both")
    if ttl is not None:
        seconds = protocol.parse_number(ttl)
        if seconds is None:
            raise bad_request("ttl", "Stream-TTL is a number of seconds: digits, no sign, no leading zero, at most 2^53-1")
        labels["ttl"] = str(seconds)
    if expires_at is not None:
        if protocol.parse_instant(expires_at) is None:
            raise bad_request("expires at", "Stream-Expires-At is a timestamp of RFC 3339, as 2030-01-31T12:00:00Z")
        labels["expires-at"] = expires_at
    return labels


async def _there(node: Node, name: str) -> Served | None:
    try:
        return await node.find(name)
    except StreamNotFoundError:
        return None
    except forks.GoneError as error:
        raise RefusalError(refusal(409, "deleted", error.problem.detail)) from error


async def _make(
    node: Node, name: str, labels: dict[str, str], records: list[bytes], fork: forks.Fork | None, *, is_closed: bool
) -> Served:
    create = partial(node.streams.create, name, node.options, labels=labels, closed=is_closed)
    if fork is None:
        served = node.served.add(await create(records=records), node.now())
    else:
        making = partial(create, records=[*fork.piece, *records], start=fork.start)
        served = node.served.add(await node.served.forks.make(name, fork, making), node.now(), fork.source)
    # Nothing of it has a `Stream-Seq`: there is nothing to look for.
    served.knows_seq = True
    return served


def _check_same(served: Served, labels: dict[str, str], wish: forks.Wish | None, *, is_closed: bool) -> None:
    """Raise unless the stream is as it is asked for."""
    # Of a fork at the tail of its source: that may have grown since.
    sources = forks.LABELS if wish is None or wish.offset is not None else [key for key in forks.LABELS if key != forks.OFFSET]
    for what, is_so in (
        ("content type", served.media_type == protocol.parse_content_type(labels["content-type"])),
        ("TTL", served.labels.get("ttl") == labels.get("ttl")),
        ("expiry", served.expires_at == (protocol.parse_instant(labels["expires-at"]) if "expires-at" in labels else None)),
        ("state, closed or open", served.is_closed == is_closed),
        ("source", all(served.labels.get(key) == labels.get(key) for key in sources)),
    ):
        if not is_so:
            detail = f"there is a stream {served.name!r} already, with another {what}; delete it, or choose another name"
            raise RefusalError(refusal(409, "stream exists", detail))


async def _answer(request: Request, served: Served, status: int) -> None:
    headers = [(protocol.CONTENT_TYPE, served.content_value), (protocol.NEXT_OFFSET, protocol.offset_value(served.tail))]
    if status == 201:
        headers.append((b"location", request.url()))
    if served.is_closed:
        headers.append((protocol.CLOSED, protocol.TRUE))
    await answer(request.send, status, headers, b"")
