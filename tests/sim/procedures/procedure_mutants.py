"""Defects planted on purpose, to show that the simulation sees. Nothing of this is ever in `src`."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from outlast import Backoff
from outlast.procedures._decisions import cause, causes
from outlast.procedures._decisions.cause import Cause
from outlast.procedures._decisions.causes import Causes, Verdict
from outlast.procedures._decisions.front import Front
from outlast.procedures._decisions.memory import Memory
from outlast.procedures._decisions.probes import Probes
from outlast.procedures._decisions.register import Register
from outlast.procedures._decisions.waves import Tide, Waves

if TYPE_CHECKING:
    from collections.abc import Callable

    Patch = Callable[[Any, str, Any], None]


def a_canarys_place_is_kept(patch: Patch) -> None:
    """A canary that was cancelled, or failed by another fault, has its place until its lease is over."""
    patch(Cause, "said_nothing", lambda self, now, of: None)


def canaries_wait_ever_longer(patch: Patch) -> None:
    patch(cause, "BETWEEN", Backoff(base_s=0.2, cap_s=60.0))


def two_canaries(patch: Patch) -> None:
    """The next begins while the first is under way."""
    patch(Cause, "room", lambda self, now: self._waves.room(now) if self._waves else int(now >= self.next_at))


def the_same_canary_again(patch: Patch) -> None:
    patch(Cause, "without", ())


def all_at_once(patch: Patch) -> None:
    """When a cause is gone everything goes on together."""

    def begin(self: Waves) -> None:
        create(self)
        self.size = 512

    create = Waves.__init__
    patch(Waves, "__init__", begin)


def a_failed_wave_is_not_seen(patch: Patch) -> None:
    patch(Waves, "tide", property(lambda self: Tide.OVER if self.size > 256 else Tide.GOES_ON))


def held_against_keys(patch: Patch) -> None:
    """What fails by an open cause uses up the attempts of a key."""
    failed = Causes.failed
    patch(Causes, "failed", lambda *args: Verdict(counts=True, cause=failed(*args).cause))


def few_keys_make_a_cause(patch: Patch) -> None:
    patch(causes, "KEYS_MIN", 10)


def success_clears_no_suspicion(patch: Patch) -> None:
    """Keys that failed before a success and after it are counted together."""
    drop = Causes._drop
    patch(Causes, "_drop", lambda self, place: drop(self, place) if len(self._suspects[place].keys) > 20 else None)


def tried_too_early(patch: Patch) -> None:
    """A key is probed when half of its backoff has passed."""
    failing = Front.failing

    def soon(self: Front, *args: Any, until_s: float, **others: Any) -> None:
        failing(self, *args, until_s=until_s / 2, **others)

    patch(Front, "failing", soon)


def the_last_cause_is_told(patch: Patch) -> None:
    failing = Front.failing

    def last(self: Front, now: float, of: Any, record_id: str, first: Any, last: Any, **others: Any) -> None:
        failing(self, now, of, record_id, last, last, **others)

    patch(Front, "failing", last)


def probes_without_number(patch: Patch) -> None:
    patch(Probes, "asked", lambda self, now, key: 0.0)


def nobodys_turn_comes(patch: Patch) -> None:
    patch(Probes, "_call", lambda self, now: None)


def success_is_not_remembered(patch: Patch) -> None:
    forget = Memory.forget
    patch(Front, "ended", lambda self, now, of, state: (self._register.ended(of), self._causes.left(now, of)))
    patch(Memory, "forget", forget)


def clear_is_not_heard(patch: Patch) -> None:
    patch(Front, "cleared", lambda self, kind="", key="": None)


def a_memory_without_bound(patch: Patch) -> None:
    put = Memory.put

    def all_of_it(self: Memory, *args: Any) -> None:
        self.keys_max = 1 << 60
        put(self, *args)

    patch(Memory, "put", all_of_it)


def what_ended_is_joined(patch: Patch) -> None:
    patch(Register, "ended", lambda self, of: None)


def what_may_have_ended_elsewhere_is_joined(patch: Patch) -> None:
    made = Register.made
    patch(Register, "made", lambda self, now, of, id_, *, mine, begun=False: made(self, now, of, id_, mine=True))


def what_was_never_made_is_joined(patch: Patch) -> None:
    patch(Register, "not_made", lambda self, of: None)


def deadlines_are_not_put_off(patch: Patch) -> None:
    patch(Register, "put_off", lambda self, of, live, deadline_at: None)


def an_offer_is_waited_for_without_end(patch: Patch) -> None:
    """Whoever claimed and met an error says so, and is not heard."""
    claimed = Cause.claimed
    patch(cause, "OFFER_S", inf)

    def deaf(self: Cause, now: float, took: Any, *, short: bool) -> None:
        took = list(took)
        if took or short:
            claimed(self, now, took, short=short)

    patch(Cause, "claimed", deaf)


MUTANTS: Final[dict[str, Callable[[Patch], None]]] = {
    plant.__name__: plant
    for plant in (
        a_canarys_place_is_kept,
        canaries_wait_ever_longer,
        two_canaries,
        the_same_canary_again,
        all_at_once,
        a_failed_wave_is_not_seen,
        held_against_keys,
        few_keys_make_a_cause,
        success_clears_no_suspicion,
        tried_too_early,
        the_last_cause_is_told,
        probes_without_number,
        nobodys_turn_comes,
        success_is_not_remembered,
        clear_is_not_heard,
        a_memory_without_bound,
        what_ended_is_joined,
        what_may_have_ended_elsewhere_is_joined,
        what_was_never_made_is_joined,
        deadlines_are_not_put_off,
        an_offer_is_waited_for_without_end,
    )
}
