"""The progress of a reader: what is asked next, and whether an answer is to be believed. Pure: it is given the time.

Offsets are opaque, and sort as texts. An answer that goes backwards, or that stands still with data in it, would have the reader
get the same again and again: it is asked for once more, past every cache, and then it is an error. One that stands still without
data is what a tail does; where it comes at once, the next question waits, longer each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from outlast import Backoff
from outlast.extend import BackoffState
from outlast.streams._client.errors import StaleAnswerError
from outlast.streams._client.values import NOW, START

if TYPE_CHECKING:
    import random

    from outlast.streams._client.values import Batch

IDLE: Final = Backoff(base_s=0.25, cap_s=5.0)
"""The waits before a question whose last answers made no progress and came at once."""
FRESH: Final = BackoffState()
PROMPT_S: Final = 1.0
"""An answer without progress that took longer has waited at the server, as a long poll does."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a reader in a stream."""

    offset: str
    cursor: str = ""
    live: bool = False
    """Whether it has reached the tail once, and waits there from then on."""
    past_cache: bool = False
    """Whether the last answer was not believed, and is asked for once more."""
    idle: BackoffState = FRESH

    def params(self, mode: str) -> dict[str, str]:
        """Return the query of the next question, sorted by names, as caches like it. `mode` is that of a live one."""
        params = {"offset": self.offset}
        if mode:
            params = {"live": mode, **params}
            if self.cursor:
                params = {"cursor": self.cursor, **params}
        return params

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the next question."""
        return {"cache-control": "no-cache"} if self.past_cache else {}


@dataclass(frozen=True, slots=True)
class Step:
    """The step that follows from an answer."""

    place: Place
    batch: Batch | None = None
    """It is what the caller gets; None: nothing."""
    wait_s: float = 0.0
    """The wait before the next question."""
    ended: bool = False
    """Whether that was all."""


def after(
    place: Place,
    batch: Batch,
    *,
    stream: str,
    cursor: str,
    follow: bool,
    aged: bool,
    now: float,
    took_s: float,
    rng: random.Random,
) -> Step:
    """Return what follows from an answer. `aged`: it comes from a cache.

    Raises `StaleAnswerError` for one that was no better past the caches.
    """
    wrong = _wrong(place, batch, follow=follow)
    if wrong and place.past_cache:
        raise StaleAnswerError(stream, place.offset, batch.next, wrong)
    if wrong:
        return Step(replace(place, past_cache=True, cursor=""))
    moved = batch.next != place.offset
    idle, wait_s = FRESH, 0.0
    if not moved and not batch.closed and took_s < PROMPT_S:
        idle, wait_s = IDLE.next_always(place.idle, now, rng)
    # What a cache calls up to date was so once.
    ask_past = aged and not batch.closed and (batch.up_to_date or not moved)
    reached = place.live or batch.up_to_date
    following = Place(batch.next, cursor, live=reached and follow, past_cache=ask_past, idle=idle)
    # At the tail for the first time: the next question waits at the server.
    if follow and not place.live and reached:
        wait_s = 0.0
    ended = batch.closed or (batch.up_to_date and not follow and (place.past_cache or not aged))
    return Step(following, batch if moved or ended else None, wait_s, ended)


def _wrong(place: Place, batch: Batch, *, follow: bool) -> str:
    """Return what is wrong with an answer, "" for nothing."""
    if not batch.next:
        return "the answer names none"
    if batch.next == place.offset and not batch.is_empty:
        return "the answer has data and does not move on"
    if batch.next == place.offset and not batch.up_to_date and not batch.closed and not follow:
        return "the answer has nothing, and says that there is more"
    if place.offset not in {START, NOW} and batch.next < place.offset:
        return "the answer goes backwards"
    return ""
