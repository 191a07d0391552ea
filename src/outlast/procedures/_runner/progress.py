"""The progress of long steps: what they say is recorded now and then, for people who look at the record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from outlast import Stop
    from outlast.extend import Recorder
    from outlast.procedures._model import RecordWrite
    from outlast.procedures._runner.running import Running
    from outlast.procedures._stores.port import ProcedureStore

EVERY_S: Final = 2.0


class ProgressLoop:
    """Record what running steps have said, in batches. While the store is away nothing is: it is no work that is done."""

    def __init__(self, store: ProcedureStore, recorder: Recorder[RecordWrite], running: Running) -> None:
        self._store = store
        self._recorder = recorder
        self._running = running

    async def run(self, stop: Stop) -> None:
        """Look every two seconds, until the stop."""
        while True:
            await stop.sleep(EVERY_S)
            if self._store.dependency.passable and not self._recorder.is_behind:
                self._round()

    def _round(self) -> None:
        for claimed in self._running:
            text, write_of = claimed.said, claimed.progress
            if text is None or write_of is None or claimed.saying is not None or claimed.lost:
                continue
            claimed.said = None
            saying = claimed.saying = asyncio.ensure_future(self._recorder.record(write_of(text)))
            saying.add_done_callback(claimed.said_so)
