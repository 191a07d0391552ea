"""Consumers over HTTP: each belongs to the node, and whoever asks works on records of it.

What a consumer has had is on the disk; its `lease_s` and `deliveries_max` are those of the PUT that began to use it, and are gone
when the node ends. So whoever finds it not in use says PUT again, and loses nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from outlast import Kind
from outlast.http import Problem
from outlast.streams._consumers._consumers import DELIVERIES_MAX, LEASE_S
from outlast.streams._node.answers import RefusalError, bad_request, refusal, settled
from outlast.streams._node.beside.answer import Answer, of_record
from outlast.streams._node.beside.records import WAIT_S_MAX
from outlast.streams._node.beside.waiting import waited

if TYPE_CHECKING:
    from collections.abc import Generator

    from outlast.streams._consumers import Consumer
    from outlast.streams._consumers._cursor import Cursor
    from outlast.streams._node.beside.asked import Asked
    from outlast.streams._node.served import Served
    from outlast.streams._stream import Stream

FETCH_MAX: Final = 10_000
LEASE_S_MAX: Final = 7 * 86_400.0


async def all_of(asked: Asked) -> Answer:
    """Answer with all consumers of a stream."""
    stream = await asked.stream()
    return Answer({"consumers": [_of_cursor(stream, cursor) for cursor in await stream.cursors()]})


async def one(asked: Asked) -> Answer:
    """Answer with one consumer, whether it is in use or not."""
    stream = await asked.stream()
    return Answer(_of_cursor(stream, await _cursor(asked, stream)))


async def put(asked: Asked) -> Answer:
    """Begin to use a consumer, and make it if there is none: 201. In use with other settings it is 409."""
    fields = await asked.fields("lease_s", "deliveries_max", "start")
    lease_s = fields.seconds("lease_s", LEASE_S)
    deliveries_max = fields.integer("deliveries_max", DELIVERIES_MAX, low=1)
    start = fields.integer("start", 0)
    if not 0 < lease_s <= LEASE_S_MAX:
        raise bad_request("field", f"lease_s is above 0, and at most {LEASE_S_MAX:g}")
    stream = await asked.stream()
    is_new = all(cursor.name != asked.consumer for cursor in await stream.cursors())
    used = stream.used_consumer(asked.consumer)
    if used is not None and (used.lease_s, used.deliveries_max) != (lease_s, deliveries_max):
        seen = f"lease_s {used.lease_s:g} and deliveries_max {used.deliveries_max}"
        text = f"the consumer is in use with {seen}: send those, or delete it"
        raise RefusalError(refusal(409, "consumer settings", text))
    with _bad_values():
        making = stream.consumer(asked.consumer, lease_s=lease_s, deliveries_max=deliveries_max, start=start)
        consumer = await settled(making, asked.request)
    return Answer(_of_cursor(stream, consumer.cursor), 201 if is_new else 200)


async def delete(asked: Asked) -> Answer:
    """Forget a consumer, durably. One that is not there is no error."""
    stream = await asked.stream()
    await settled(stream.delete_consumer(asked.consumer), asked.request)
    return Answer()


async def fetch(asked: Asked) -> Answer | None:
    """Answer with records that nobody works on, after `wait_s` seconds with none. They are the client's for the lease."""
    fields = await asked.fields("records_max", "wait_s")
    records_max = fields.integer("records_max", 100, low=1, high=FETCH_MAX)
    wait_s = asked.at_most(min(fields.seconds("wait_s", 0.0), WAIT_S_MAX))
    served = await asked.served()
    consumer = await _used(asked, served)
    got = await waited(asked, consumer.fetch(records_max, wait_s=wait_s), wait_s, served)
    if got is None:
        return None
    rows: list[dict[str, Any]] = [of_record(each.record) | {"deliveries": each.deliveries} for each in got]
    return Answer({"records": rows, "lag": consumer.lag})


async def acknowledge(asked: Asked) -> Answer:
    """Record durably that these positions are done."""
    positions = await _positions(asked)
    consumer = await _used(asked, await asked.served())
    with _bad_values():
        await settled(consumer.acknowledge(*positions), asked.request)
    return Answer()


async def put_back(asked: Asked) -> Answer:
    """Put positions that were set aside in line again, durably."""
    positions = await _positions(asked)
    consumer = await _used(asked, await asked.served())
    with _bad_values():
        await settled(consumer.put_back(*positions), asked.request)
    return Answer()


async def renew(asked: Asked) -> Answer:
    """Begin the lease of these positions again, and answer with those that are still leased."""
    positions = await _positions(asked)
    consumer = await _used(asked, await asked.served())
    with _bad_values():
        return Answer({"positions": list(consumer.renew(*positions))})


async def release(asked: Asked) -> Answer:
    """End the lease of these positions."""
    positions = await _positions(asked)
    consumer = await _used(asked, await asked.served())
    with _bad_values():
        consumer.release(*positions)
    return Answer()


async def _positions(asked: Asked) -> list[int]:
    return (await asked.fields("positions")).positions("positions")


async def _cursor(asked: Asked, stream: Stream) -> Cursor:
    for cursor in await stream.cursors():
        if cursor.name == asked.consumer:
            return cursor
    raise RefusalError(refusal(404, "no such consumer", "the stream has no consumer of this name: PUT makes it"))


async def _used(asked: Asked, served: Served) -> Consumer:
    """Return the consumer that somebody began to use since the node has run. Who works on a stream keeps its TTL from its end."""
    served.touch(asked.node.now())
    stream = served.stream
    if (used := stream.used_consumer(asked.consumer)) is not None:
        return used
    await _cursor(asked, stream)
    text = "the node has started since the consumer was used: PUT it again, with its settings, and go on"
    raise RefusalError(Problem(409, "consumer not in use", Kind.TRANSIENT.value, text))


@contextlib.contextmanager
def _bad_values() -> Generator[None]:
    """Turn what the store finds wrong with a value into 400."""
    try:
        yield
    except ValueError as error:
        raise bad_request("value", str(error)) from error


def _of_cursor(stream: Stream, cursor: Cursor) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "consumer": cursor.name,
        "next": cursor.next,
        "lag": cursor.remaining(stream.tail),
        "open": len(cursor.open),
        "skipped": cursor.skipped,
        "set_aside": [[run.first, run.end] for run in cursor.set_aside],
    }
