"""Say it once until it changes: which state of a subject was said last, so that a line is written for news alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

SUBJECTS_MAX: Final = 100


class Once:
    """The last thing that was said of each subject. It writes nothing: it decides whether somebody should.

        once = Once()
        if once.news(holder):
            logger.info("standing by, it belongs to %s", holder)
        ...
        if once.clear():
            logger.info("no longer standing by")

    Keep it where it outlives a restart of the loop that speaks. It remembers `subjects_max` subjects: the one without news for
    longest is forgotten first, and would be said again. It has no lock: with more than one subject, threads that share it
    hold one of their own.
    """

    def __init__(self, subjects_max: int = SUBJECTS_MAX) -> None:
        self._subjects_max = subjects_max
        self._said: dict[Hashable, Hashable] = {}

    @property
    def subjects(self) -> int:
        """The number of subjects of which something was said."""
        return len(self._said)

    def news(self, key: Hashable = "said", *, subject: Hashable = None) -> bool:
        """Return whether `key` differs from what was said last of `subject`, and record it as said."""
        if self._said.get(subject, self) == key:
            return False
        self.clear(subject)
        if len(self._said) >= self._subjects_max:
            del self._said[next(iter(self._said))]
        self._said[subject] = key
        return True

    def said(self, subject: Hashable = None) -> Hashable:
        """Return the key that was said last of `subject`; None if nothing was since it was cleared."""
        return self._said.get(subject)

    def clear(self, subject: Hashable = None) -> bool:
        """Note that it is over, so that anything is news again; return whether something had been said."""
        return self._said.pop(subject, self) is not self
