"""Whether the node lives and is ready, on its own address: for whoever balances load and knows no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast import Kind
from outlast.http import Problem
from outlast.streams._node.answers import SOON_S, RefusalError
from outlast.streams._node.beside.answer import Answer

if TYPE_CHECKING:
    from outlast.streams._node.beside.asked import Asked


async def live(asked: Asked) -> Answer:
    """Answer that the event loop turns."""
    return Answer({"live": True, "name": asked.store.name})


async def ready(asked: Asked) -> Answer:
    """Answer whether the service of the node takes in work. A full disk does not change that: reads and trims go on."""
    if not asked.node.is_ready:
        raise RefusalError(Problem(503, "not ready", Kind.TRANSIENT.value, "the service has not started", retry_after_s=SOON_S))
    return Answer({"ready": True, "name": asked.store.name})
