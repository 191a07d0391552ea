"""Not too many connections at once: a queue of moments, one every so often."""

from __future__ import annotations

import asyncio
from typing import Final

SPACING_S: Final = 0.0125
"""At most eight connections begin in any 100 ms, so that the promised ten hold on a machine that stutters."""


class Pacer:
    """Hands out moments that lie at least `spacing_s` seconds apart, in the order asked."""

    def __init__(self, spacing_s: float = SPACING_S) -> None:
        """Start with the next moment being now."""
        self.spacing_s = spacing_s
        self._next_at = 0.0
        self._last_at = float("-inf")

    async def turn(self) -> None:
        """Return when it is this caller's moment."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        at = max(now, self._next_at)
        self._next_at = at + self.spacing_s
        if at > now:
            await asyncio.sleep(at - now)
        # Whoever wakes late, and others with it, since the machine stutters: the moments that were missed are not made up for.
        while (wait_s := self._last_at + self.spacing_s - loop.time()) > 0:  # noqa: ASYNC110 - it waits for a moment
            await asyncio.sleep(min(wait_s, self.spacing_s))
        self._last_at = loop.time()
