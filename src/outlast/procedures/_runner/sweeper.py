"""Retention: what is finished and old goes, in small batches, and what was not begun in time is expired."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from outlast import progress

if TYPE_CHECKING:
    from outlast import Stop
    from outlast.procedures._model import Sweep
    from outlast.procedures._stores.port import ProcedureStore
    from outlast.procedures._tally import Tally

EVERY_S: Final = 5.0
PAUSE_S: Final = 0.1
"""Between two batches, so that others get their turn at the store."""
logger = logging.getLogger("outlast.procedures")


class Sweeper:
    """Sweep the store now and then; every runner does, and the store sees to it that nothing is done twice."""

    def __init__(self, store: ProcedureStore, what: Sweep, tally: Tally) -> None:
        self._store = store
        self._what = what
        self._tally = tally

    async def run(self, stop: Stop) -> None:
        """Sweep every few seconds, until the stop. Raises the faults of the store."""
        while not stop.requested:
            swept = await self._store.sweep(self._what)
            self._tally.deleted += swept.deleted
            self._tally.dead_deleted += swept.dead_deleted
            if swept.expired:
                self._tally.expired += swept.expired
                text = "procedures: %d dropped unrun, nobody waits for them any more (%d since the start)"
                logger.info(text, swept.expired, self._tally.expired)
            progress()
            await stop.sleep(PAUSE_S if swept.more else EVERY_S)
