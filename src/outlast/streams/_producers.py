"""Producers: whether an append of one is new, a duplicate, or refused. Pure, and derived from the log alone.

The state is what the header of a segment holds and what the batches behind it say, so after a restart it is the same, and so are
the answers. Time is that of batches, never a clock: who is forgotten is decided again in the same way when the log is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.streams._errors import FencedError, LimitError, SequenceError
from outlast.streams._format.producers import APPENDS_MAX, ProducerState
from outlast.streams._model import Appended

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outlast.streams._format.batches import Batch
    from outlast.streams._model import Producer

FORGOTTEN: Final = -1
"""The positions of a duplicate that is not among the last `APPENDS_MAX` appends of its producer: it is stored, but where is not
remembered. No position is below 0, so reading from there is refused and not misled."""


class Producers:
    """The producers of one stream, at most `producers_max`. For one thread at a time.

    For the appends of one batch, in order: `check`, and `stage` if it is new. Then `commit` once the batch is stored, or
    `roll_back`. A duplicate within a batch, of an append that is staged, has that one's positions.

    A producer that is unknown begins at sequence 0. When all places are taken, the one that has stored nothing for the longest
    time goes, provided that is `idle_us` at least. Its late retries are then refused (`SequenceError`), but for one of sequence
    0: that cannot be told from a new producer and is stored again.
    """

    __slots__ = ("_idle_us", "_none_goes_before_us", "_producers_max", "_states", "_stream", "_undo", "stored")

    def __init__(self, stream: str, *, producers_max: int, idle_us: int, states: Iterable[ProducerState] = ()) -> None:
        """`states` are those of the header of a segment; `replay` then takes its batches. `stream` is for messages."""
        self._stream = stream
        self._producers_max = producers_max
        self._idle_us = idle_us
        self._states = {state.id: state for state in states}
        self.stored = dict(self._states)
        """The states without those that are staged, for any thread to look up one."""
        self._undo: list[tuple[str, ProducerState | None]] = []
        """The states before those that are staged, the oldest first."""
        self._none_goes_before_us = 0
        """A lower bound of the time at which one may be forgotten: a flood of new ones is refused without a search each."""

    def __len__(self) -> int:
        return len(self._states)

    def states(self) -> tuple[ProducerState, ...]:
        """Return all of them, for the header of a segment that begins here."""
        return tuple(self._states.values())

    def check(self, producer: Producer, now_us: int) -> Appended | None:
        """Return None for an append that is new, and what was answered for one that is stored already.

        `now_us` is the time that the batch will have. Raises `FencedError`, `SequenceError` and `LimitError`; nothing is changed.
        """
        state = self._states.get(producer.id)
        if state is None or producer.epoch > state.epoch:
            if producer.sequence:
                raise SequenceError(self._stream, producer.id, producer.sequence, 0)
            if state is None and len(self._states) >= self._producers_max:
                self._check_one_may_go(producer.id, now_us)
            return None
        if producer.epoch < state.epoch:
            raise FencedError(self._stream, producer.id, producer.epoch, state.epoch)
        if producer.sequence > state.sequence + 1:
            raise SequenceError(self._stream, producer.id, producer.sequence, state.sequence + 1)
        return None if producer.sequence > state.sequence else _duplicate(state, producer)

    def known(self, producer: Producer) -> Appended | None:
        """Return what was answered for an append that is stored already, None for any other; for any thread.

        Raises `FencedError`. What is staged by now may still be refused, and counts as not stored.
        """
        state = self.stored.get(producer.id)
        if state is None or (producer.epoch, producer.sequence) > (state.epoch, state.sequence):
            return None
        if producer.epoch < state.epoch:
            raise FencedError(self._stream, producer.id, producer.epoch, state.epoch)
        return _duplicate(state, producer)

    def stage(self, producer: Producer, first: int, behind: int, now_us: int) -> None:
        """Take an append that `check` called new: it gets the positions `first` to `behind` - 1 in a batch of time `now_us`."""
        state = self._states.get(producer.id)
        if state is None and len(self._states) >= self._producers_max:
            self._forget(self._idle_longest())
        self._undo.append((producer.id, state))
        kept = state.appends[1 - APPENDS_MAX :] if state is not None and state.epoch == producer.epoch else ()
        appends = (*kept, (first, behind))
        self._states[producer.id] = ProducerState(producer.id, producer.epoch, producer.sequence, now_us, appends)

    def commit(self) -> None:
        """Keep what was staged: its batch is stored."""
        for name, _ in self._undo:
            if (state := self._states.get(name)) is None:
                self.stored.pop(name, None)
            else:
                self.stored[name] = state
        self._undo.clear()

    def roll_back(self) -> None:
        """Forget what was staged, and remember whom it made forget: its batch is not stored."""
        for name, state in reversed(self._undo):
            if state is None:
                del self._states[name]
            else:
                self._states[name] = state
        self._undo.clear()
        self._none_goes_before_us = 0

    def replay(self, batch: Batch) -> None:
        """Take a batch of the log."""
        for stored in batch.stored():
            self.stage(stored.producer, stored.first, stored.next, batch.time_us)
        self.commit()

    def _check_one_may_go(self, newcomer: str, now_us: int) -> None:
        if now_us >= self._none_goes_before_us:
            self._none_goes_before_us = self._idle_longest().time_us + self._idle_us
        if now_us < self._none_goes_before_us:
            message = (
                f"producer {newcomer!r} is new, and there are {len(self._states)} already, the most allowed (producers_max); "
                f"none of them has been idle for {self._idle_us / 1e6:g} s (producer_idle_s)"
            )
            raise LimitError(self._stream, message)

    def _idle_longest(self) -> ProducerState:
        # Of several the one whose id is least: the order of a dict is not the same after a restart.
        return min(self._states.values(), key=lambda state: (state.time_us, state.id))

    def _forget(self, state: ProducerState) -> None:
        self._undo.append((state.id, state))
        del self._states[state.id]


def _duplicate(state: ProducerState, producer: Producer) -> Appended:
    """Return the answer to an append that is stored: its positions, if they are among those that are remembered."""
    behind = state.sequence - producer.sequence
    first, following = state.appends[-1 - behind] if behind < len(state.appends) else (FORGOTTEN, FORGOTTEN)
    return Appended(first, following, duplicate=True)
