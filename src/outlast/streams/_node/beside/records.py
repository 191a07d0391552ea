"""Records with their positions, which the protocol does not show, and trimming, which it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.streams._node.answers import settled
from outlast.streams._node.beside.answer import Answer, of_record
from outlast.streams._node.beside.fields import number, seconds
from outlast.streams._node.beside.waiting import waited

if TYPE_CHECKING:
    from outlast.streams._node.beside.asked import Asked

LIMIT: Final = 1_000
LIMIT_MAX: Final = 10_000
CHUNK_BYTES: Final = 1 << 20
WAIT_S_MAX: Final = 60.0


async def read(asked: Asked) -> Answer | None:
    """Answer with the records from position `from` on, about 1 MiB of them; at the tail with none, after `wait_s` seconds."""
    query = asked.request.query
    limit = number(query, "limit", LIMIT, low=1, high=LIMIT_MAX)
    wait_s = asked.at_most(seconds(query, "wait_s", WAIT_S_MAX))
    served = await asked.served()
    served.touch(asked.node.now())
    position = number(query, "from", served.oldest)
    chunk = await waited(asked, served.fetch(position, CHUNK_BYTES, wait_s), wait_s, served)
    if chunk is None:
        return None
    kept = chunk.part(chunk.first, chunk.first + limit)
    return Answer(
        {
            "records": [of_record(record) for record in kept],
            "next": kept.next,
            "closed": served.is_closed,
            "oldest": served.oldest,
            "tail": served.tail,
        }
    )


async def trim(asked: Asked) -> Answer:
    """Let go of all records below the position `before`, durably."""
    fields = await asked.fields("before")
    before = fields.integer("before", None)
    served = await asked.served()
    await settled(served.stream.trim(before), asked.request)
    return Answer({"oldest": served.oldest, "tail": served.tail})
