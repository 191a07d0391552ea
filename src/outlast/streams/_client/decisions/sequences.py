"""The producer of one stream: the sequence of its next append, so that a retry is stored once and nothing new is taken for one.

Pure. The rules:

- a sequence is used up only when its append is known to be stored;
- while an append is under way, and after one whose outcome nobody knows, its sequence is *in doubt*: it must not be given to
  other data, which would be answered "duplicate" and lost. The next append begins a new epoch, at 0. That also fences the one in
  doubt: if it is still on its way, it is refused when it comes late;
- behind the largest sequence comes a new epoch, behind the largest epoch a new producer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.streams._model import NUMBER_MAX, Producer

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS: Final = NUMBER_MAX
"""The largest sequence and epoch of the protocol, 2^53 - 1."""


class Sequences:
    """The sequences of one client's appends to one stream. Appends come one after the other: `begin`, then `stored` or
    `refused`.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        """`new_id` returns an identity that nobody else has."""
        self._new_id = new_id
        self.id = new_id()
        self.epoch = 0
        self.next = 0
        self.in_doubt = False
        """Whether `next` was sent, and it is not known whether it is stored."""

    def begin(self) -> Producer:
        """Return the identity of the next append, which is in doubt from now on."""
        if self.in_doubt or self.next > NUMBERS:
            self.restart()
        self.in_doubt = True
        return Producer(self.id, self.epoch, self.next)

    def stored(self) -> None:
        """Note that the append under way is stored."""
        self.in_doubt = False
        self.next += 1

    def refused(self) -> None:
        """Note that the append under way is not stored and never will be: its sequence is free."""
        self.in_doubt = False

    def restart(self) -> None:
        """Begin a new epoch: the server does not know this one any more, or something in it is in doubt."""
        self.in_doubt = False
        self.next = 0
        if self.epoch >= NUMBERS:
            self.id = self._new_id()
            self.epoch = 0
        else:
            self.epoch += 1
