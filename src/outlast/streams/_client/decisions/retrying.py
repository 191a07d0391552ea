"""The decision after a failed attempt: another one after a wait, or an error that is true. Pure: it is given the time.

An attempt ends in one of three ways that matter: the server never heard of it, it has refused it, or nobody knows. What is not
known is never reported as a failure, and never sent again unless the same effect twice is no more than once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from outlast import Backoff, Kind, RetryBudget
from outlast.extend import BackoffState, Jitter
from outlast.streams._errors import OutcomeUnknownError

if TYPE_CHECKING:
    import random

    from outlast import Fault

BACKOFF: Final = Backoff(base_s=0.1, cap_s=5.0, jitter=Jitter.DECORRELATED)
"""The waits between attempts, each drawn by chance: 0.1 s to 5 s, and at least what the server asks for."""
THROTTLED: Final = "throttled"
"""The code of a refusal by the client's own throttle (`outlast.admission.Throttler`)."""
RATIO: Final = 0.1
"""Retries add a tenth to the load, and three a second (`outlast.RetryBudget`)."""


FRESH: Final = BackoffState()


class Certainty(enum.Enum):
    """The knowledge of a request after an attempt has failed."""

    NOT_SENT = "not sent"
    """The server has not heard of it."""
    REFUSED = "refused"
    """The server says that it has not done it."""
    UNKNOWN = "unknown"
    """It may be done, or may still be."""


class Effect(enum.Enum):
    """The effect of a request that is carried out twice."""

    NONE = "none"
    """It changes nothing: a read."""
    SAME = "same"
    """Twice is as good as once: create, close, delete, trim."""
    ONCE = "once"
    """An append with a producer: the server stores it once."""
    TWICE = "twice"
    """An append without: it would be stored twice."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt."""

    certainty: Certainty
    error: Exception
    """It is raised, if this is the end of it."""
    fault: Fault
    passes: bool
    """Whether the same request may succeed later."""
    settles: bool = False
    """Whether the refusal also speaks for the attempts before: the server has looked for them."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one request so far."""

    backoff: BackoffState = FRESH
    cause: Failure | None = None
    """The last failure that is none of the client's own throttle: that only repeats what the server has said."""
    doubt: Failure | None = None
    """The first attempt of which nobody knows whether it is done."""


@dataclass(frozen=True, slots=True)
class Again:
    """Send it again after `wait_s`."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class End:
    """Raise `error`."""

    error: Exception


class Rule:
    """Decides whether to try again: what may pass, before the deadline, within the budget that the requests of a client share."""

    def __init__(self, rng: random.Random, *, backoff: Backoff = BACKOFF, budget: RetryBudget | None = None) -> None:
        """`rng` draws the waits."""
        self.rng = rng
        self.backoff = backoff
        self.budget = RetryBudget(ratio=RATIO) if budget is None else budget

    def after(
        self,
        failure: Failure,
        attempts: Attempts,
        *,
        stream: str,
        effect: Effect,
        now: float,
        deadline_at: float,
        waits_for_room: bool = False,
    ) -> tuple[Attempts, Again | End]:
        """Return the attempts with this one, and what to do."""
        if failure.certainty is Certainty.UNKNOWN and effect is not Effect.NONE:
            attempts = replace(attempts, doubt=attempts.doubt or failure)
        if attempts.cause is None or failure.fault.code != THROTTLED:
            attempts = replace(attempts, cause=failure)
        unsure = attempts.doubt is not None
        if (unsure and effect is Effect.TWICE) or not self._may_pass(failure, waits_for_room or unsure):
            return attempts, End(end(failure, attempts, stream, effect))
        state, wait_s = self.backoff.next_always(attempts.backoff, now, self.rng, failure.fault.retry_after_s)
        attempts = replace(attempts, backoff=state)
        # What the server has not heard of has cost it nothing. What is in doubt is asked for again by its deadline at the latest:
        # without a token it waits on, since to give up would help nobody.
        if failure.certainty is not Certainty.NOT_SENT and not self.budget.take(now):
            if not unsure:
                error = end(failure, attempts, stream, effect)
                error.add_note("it was not tried again: the retry budget is used up")
                return attempts, End(error)
            wait_s += self.backoff.cap_s
        if now + wait_s >= deadline_at:
            return attempts, End(end(failure, attempts, stream, effect))
        return attempts, Again(wait_s)

    @staticmethod
    def _may_pass(failure: Failure, waits_for_room: bool) -> bool:  # noqa: FBT001 - one property of the request
        """Return whether to wait: a full disk takes minutes, so the caller is told at once, unless it wants that."""
        return failure.passes and (waits_for_room or failure.fault.kind is not Kind.EXHAUSTED)


def end(failure: Failure, attempts: Attempts, stream: str, effect: Effect) -> Exception:
    """Return the error of a request that is not tried again."""
    doubt = attempts.doubt
    if doubt is None or failure.settles or (effect is Effect.SAME and not failure.passes):
        return (attempts.cause or failure).error
    error = OutcomeUnknownError(
        stream,
        f"whether it is done is not known: {doubt.fault.code}: {doubt.fault.reason}; the last attempt: {failure.fault.code}",
    )
    error.__cause__ = doubt.error
    return error
