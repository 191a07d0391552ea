"""The runner of procedures where no service has one: in a block `async with tables:`, from the first table that is made."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from outlast import Service, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast import Dependency
    from outlast.procedures import Procedures


class Block:
    """A service of its own, which begins when something is to be made, and ends with the block."""

    def __init__(self) -> None:
        self._stop = Stop()
        self._lock = asyncio.Lock()
        self._procedures: Procedures | None = None
        self._life: asyncio.Task[int] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def runs(self, make: Callable[[Path], Procedures]) -> Procedures:
        """Return the procedures, whose runner is at work; `make` makes them with the path of a journal."""
        async with self._lock:
            if self._procedures is None:
                self._folder = tempfile.TemporaryDirectory(prefix="outlast-tables-")
                service = Service("tables")
                procedures = make(Path(self._folder.name) / "journal")
                procedures.attach(service)
                life = self._life = asyncio.create_task(service.run(self._stop), name="outlast tables block")
                ready = asyncio.ensure_future(service.until_ready())
                await asyncio.wait({life, ready}, return_when=asyncio.FIRST_COMPLETED)
                if life.done():
                    ready.cancel()
                    life.result()
                self._procedures = procedures
            return self._procedures

    async def close(self) -> None:
        """End the runner. What it has not finished is done by another one, or by the next."""
        self._stop.fire("the block ends")
        if self._life is not None:
            await asyncio.wait({self._life})
        if self._folder is not None:
            self._folder.cleanup()


def default_journal(dependency: Dependency, schema: str) -> Path:
    """Return where a runner in a service keeps its journal unless told: beside the file, or below the user's directory for state.

    Other databases have other journals.
    """
    path = getattr(dependency, "path", None)
    if isinstance(path, Path):
        return path.with_name(f"{path.name}.outlast-journal")
    # The text of a DSN is without its password.
    of = f"{dependency.name} {getattr(dependency, 'dsn', '')} {schema}"
    digest = hashlib.sha256(of.encode()).hexdigest()[:8]
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "outlast" / f"tables-{re.sub('[^A-Za-z0-9._-]', '_', dependency.name)[:100]}-{digest}.journal"
