"""The time that a stop goes by."""

from __future__ import annotations

import asyncio


class Clock:
    """The event loop's time. A process leaves out what it stood still for, a simulation may take time between two steps."""

    def now(self) -> float:
        """Return the seconds that count for deadlines, from a moment that does not matter."""
        return asyncio.get_running_loop().time()

    async def before(self, path: str, step: str) -> None:
        """Return at once: only a simulation lets time pass before a step of the stop of the service at `path`."""
