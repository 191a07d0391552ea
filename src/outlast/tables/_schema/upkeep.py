"""The upkeep of tables: what other processes changed is seen, and points that are too old are deleted, in small steps."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from outlast import Stopping, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Stop
    from outlast.tables._model import TableRecord
    from outlast.tables._schema.catalogue import Catalogue
    from outlast.tables._stores.port import TableStore
    from outlast.tables._writing.tally import Tally

EVERY_S: Final = 60.0
"""Between two rounds: what another process made, changed or dropped is known after so long at most."""
PAGE: Final = 1_000
EXPIRE_ROWS: Final = 1_000
"""Points that one step deletes at most. A step that takes longer than `STEP_S` is followed by smaller ones."""
EXPIRE_ROWS_MIN: Final = 50
STEP_S: Final = 0.05
"""Half of what a write may wait for it."""
SHARE: Final = 0.5
"""Of the store's time that deleting takes: after each step it rests for as long as that took."""
REST_S: Final = 0.01
AGAIN_S: Final = 1.0
SOON_S: Final = 0.05


class Upkeep:
    """Looks at all tables again and again. It keeps nothing: after a stop it begins where points are left."""

    def __init__(
        self,
        store: TableStore,
        catalogue: Catalogue,
        tally: Tally,
        now_ns: Callable[[], int],
        ready: Callable[[], Awaitable[None]],
        each_round: Callable[[], None],
    ) -> None:
        """`ready` is awaited before each round, and `each_round` called in it."""
        self._store = store
        self._catalogue = catalogue
        self._tally = tally
        self._now_ns = now_ns
        self._ready = ready
        self._each_round = each_round
        self._rows = EXPIRE_ROWS

    async def load(self) -> None:
        """Read all tables. Raises what the store raises."""
        names: set[str] = set()
        after = ""
        while True:
            page = await self._store.tables(after=after, count=PAGE)
            for record in page:
                self._catalogue.put(record)
                names.add(record.name)
            if len(page) < PAGE:
                break
            after = page[-1].name
        for known in self._catalogue:
            if known.record.name not in names and (await self._store.table(known.record.name)) is None:
                self._catalogue.forget(known.record.name)

    async def run(self, stop: Stop) -> None:
        """Go round until the stop, and go on when the store is back. While it is down it is tried too: deleting makes room."""
        dependency = self._store.dependency
        while not stop.requested:
            try:
                await self._ready()
                self._each_round()
                await self.load()
                await self.expire(stop)
                await stop.sleep(EVERY_S)
            except Stopping:
                raise
            except Exception as exc:
                fault = dependency.classifiers.classify(exc, source=dependency.name)
                if not isinstance(exc, Unavailable) and not fault.is_evidence:
                    raise
                with suppress(Unavailable):
                    await dependency.ready(timeout_s=AGAIN_S, stop=stop)
                await stop.sleep(SOON_S)

    async def expire(self, stop: Stop) -> None:
        """Delete what is too old from every table."""
        for known in self._catalogue:
            if known.record.retention_s is not None:
                await self._expire(known.record, known.record.retention_s, stop)

    async def _expire(self, record: TableRecord, retention_s: float, stop: Stop) -> None:
        loop = asyncio.get_running_loop()
        before_ns = self._now_ns() - round(retention_s * 1e9)
        while True:
            began_at = loop.time()
            count = await self._store.expire(record.name, before_ns, self._rows)
            took_s = loop.time() - began_at
            self._tally.expired += count
            if count == 0:
                return
            self._rows = rows_of(self._rows, took_s)
            await stop.sleep(max(REST_S, took_s * (1.0 - SHARE) / SHARE))


def rows_of(rows: int, took_s: float) -> int:
    """Return how many points the next step deletes, after one of `rows` that took so long."""
    if took_s > STEP_S:
        return max(EXPIRE_ROWS_MIN, rows // 2)
    return min(EXPIRE_ROWS, rows * 2) if took_s < STEP_S / 4 else rows
