"""The calls of the store that may give this runner records, while they are under way."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from outlast.procedures._model import Mine


LOOKS: Final = 2
"""A record is seen to be nobody's in one look, and given back in the next."""


def _nobody() -> None:
    """Look at the usual time."""


class Calls:
    """Find the records that are this runner's by the store while nothing of it knows them: the reply that gave them was lost.

    One that a call under way may still bring is none of these. So whatever is unknown is looked at again with the next heartbeat,
    when every call of the time before has ended.
    """

    def __init__(self) -> None:
        self.troubles = 0
        """Looks that are to come soon: the reply of a call may have been lost, with records in it."""
        self.wake: Callable[[], None] = _nobody
        """Called when a look is to come soon."""
        self._number = 0
        self._open: set[int] = set()
        self._unknown: dict[tuple[str, int], int] = {}
        """Id and token, and the number of the newest call when it was first seen."""

    @contextmanager
    def one(self) -> Generator[None]:
        """Guard a call that may bring records, until they are known here."""
        self._number += 1
        number = self._number
        self._open.add(number)
        try:
            yield
        except BaseException:
            self.trouble()
            raise
        finally:
            self._open.discard(number)

    def trouble(self) -> None:
        """Note that a call failed: whether it was done is not known, and the next two looks come soon."""
        self.troubles = LOOKS
        self.wake()

    def lost(self, unknown: Mapping[str, Mine]) -> list[tuple[str, int]]:
        """Return the ids and tokens of those that no call will bring any more."""
        oldest = min(self._open, default=self._number + 1)
        seen = {(record_id, mine.token) for record_id, mine in unknown.items()}
        lost = [each for each in seen if each in self._unknown and self._unknown[each] < oldest]
        self._unknown = {each: self._unknown.get(each, self._number) for each in seen if each not in lost}
        return lost
