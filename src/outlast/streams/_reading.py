"""Reading a stream: the records at a position, and the wait for more at the tail."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.streams._errors import BeyondTailError, TrimmedError
from outlast.streams._model import Chunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from outlast.streams._held import Held

CHUNK_BYTES: Final = 1 << 20


async def fetch(held: Held, position: int, bytes_max: int, wait_s: float, until: Callable[[], bool] | None = None) -> Chunk:
    """Return records from `position` on. See `Stream.fetch`."""
    if bytes_max < 1:
        raise ValueError(f"stream {held.name!r}: a read takes at least 1 byte, not {bytes_max}")
    loop = asyncio.get_running_loop()
    due_at = loop.time() + wait_s
    followed = False
    while True:
        log = held.log
        view = log.view
        if not view.oldest <= position <= view.tail:
            error = TrimmedError if position < view.oldest else BeyondTailError
            raise error(held.name, position, view.oldest, view.tail)
        if position < view.tail:
            read = held.volume.read(held, partial(log.read, position, bytes_max))
            return await (held.share((position, bytes_max), read) if followed else read)
        left_s = due_at - loop.time()
        if left_s <= 0 or view.closed or (until is not None and until()):
            return Chunk(position, position, (), (), None)
        await held.follow(left_s)
        followed = True


async def chunks(held: Held, start: int, bytes_max: int, *, follow: bool) -> AsyncGenerator[Chunk, None]:
    """Yield what there is from `start` on; with `follow`, all that comes, until the stream is closed."""
    position = start
    wait_s = float("inf") if follow else 0.0
    while True:
        chunk = await fetch(held, position, bytes_max, wait_s)
        if chunk.next == position:
            return
        yield chunk
        position = chunk.next
