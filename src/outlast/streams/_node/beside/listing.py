"""The streams and the disks, as a node lists them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import asdict
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final

from outlast import OutlastError
from outlast.extend import clean
from outlast.streams._errors import StreamNotFoundError
from outlast.streams._node.answers import RefusalError, problem_for
from outlast.streams._node.beside.answer import Answer, moment
from outlast.streams._node.beside.fields import number

if TYPE_CHECKING:
    from outlast.disk import Disk
    from outlast.streams._node.beside.asked import Asked
    from outlast.streams._node.served import Served

PAGE: Final = 100
PAGE_MAX: Final = 1_000


async def page(asked: Asked) -> Answer:
    """Answer with the streams whose names begin with `prefix` and come behind `after`, in the order of their names.

    A stream that cannot be read has its error in the place of the rest. One that was not in use yet is recovered.
    """
    query = asked.request.query
    limit = number(query, "limit", PAGE, low=1, high=PAGE_MAX)
    prefix, after = query.get("prefix", ""), query.get("after", "")
    names = asked.store.names()
    begin = max(bisect_left(names, prefix), bisect_right(names, after) if after else 0)
    found = list(islice(takewhile(lambda name: name.startswith(prefix), islice(names, begin, None)), limit + 1))
    rows = [row for name in found[:limit] if (row := await _row(asked, name)) is not None]
    return Answer({"streams": rows, "next": found[limit - 1] if len(found) > limit else None})


async def one(asked: Asked) -> Answer:
    """Answer with one stream, and the way it is kept."""
    served = await asked.served()
    stream = served.stream
    options = asdict(stream.options)
    consumers = [cursor.name for cursor in await stream.cursors()]
    return Answer(_of_stream(served) | {"options": options, "producers": stream.producers, "consumers": consumers})


async def usage(asked: Asked) -> Answer:
    """Answer with the disks: the room of each, how it is and since when, and what waits for it."""
    figures = {figure.name: dict(figure.samples) for figure in asked.store.shown.figures()}
    now = asked.node.now()
    volumes: list[dict[str, Any]] = []
    for disk in asked.store.disks:
        at = (disk.name,)
        backlog = {"appends": figures["backlog_appends"][at], "bytes": figures["backlog"][at]}
        volumes.append(_of_disk(disk, now) | {"streams": figures["streams"][at], "backlog": backlog})
    return Answer({"name": asked.store.name, "streams_max": asked.store.streams_max, "volumes": volumes})


async def _row(asked: Asked, name: str) -> dict[str, Any] | None:
    try:
        return _of_stream(await asked.node.find(name))
    except StreamNotFoundError:
        # It was deleted meanwhile.
        return None
    except (OutlastError, RefusalError) as error:
        # Also one that was deleted and is there for its forks: whoever looks for room wants to see it.
        problem = problem_for(error)
        assert problem is not None  # noqa: S101 - it is known for each of these
        return {"name": name, "error": problem.detail, "code": problem.code}


def _of_stream(served: Served) -> dict[str, Any]:
    stream = served.stream
    return {
        "name": stream.name,
        "id": stream.id,
        "content_type": served.content_type,
        "oldest": served.oldest,
        "tail": served.tail,
        "size_bytes": stream.size_bytes,
        "segments": stream.segments,
        "closed": served.is_closed,
        "created": moment(stream.created),
        "volume": stream.volume,
        "labels": dict(served.labels),
    }


def _of_disk(disk: Disk, now: float) -> dict[str, Any]:
    room, fault, opened_at = disk.room, disk.fault, disk.health.opened_at
    return {
        "name": disk.name,
        "total_bytes": room.total_bytes,
        "available_bytes": room.available_bytes,
        "available_inodes": room.available_inodes,
        "full_in_s": room.full_in_s,
        "reserve_bytes": disk.reserve.held_bytes,
        "condition": disk.watch.condition.value,
        "state": disk.state.value,
        "lost": disk.is_lost,
        "kind": None if fault is None else fault.kind.value,
        "code": None if fault is None else fault.code,
        "cause": None if fault is None else clean(fault.reason),
        "since_s": None if opened_at is None else max(0.0, now - opened_at),
    }
