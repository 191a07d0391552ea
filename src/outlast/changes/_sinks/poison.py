"""Transactions that a sink keeps refusing: found out one at a time, counted, and then set aside or stopped at.

It outlives the sessions of a stream: each refusal ends a session, and the next one tries again.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from outlast import Fault, Kind, OutlastError, Scope
from outlast.changes._sinks.port import emptied
from outlast.extend import Reaction
from outlast.postgres.replication import format_lsn

if TYPE_CHECKING:
    from outlast import Classifiers
    from outlast.changes._sinks.port import Delivery
    from outlast.changes._sinks.quarantine import Quarantine

ATTEMPTS_MAX: Final = 3
REFUSALS: Final = frozenset({Reaction.ANSWER, Reaction.RESTART})
"""The kinds that say something about the transaction. Every other fault is about the sink: it comes again until it passes."""
Policy: TypeAlias = Literal["stop", "skip"]
logger = logging.getLogger("outlast.changes")


class RefusedError(OutlastError):
    """The sink refused a transaction. Holds its place and the code of the fault; never what is in its rows."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason, fault)
        self.fault = fault


class StreamOverError(OutlastError):
    """The stream has ended for this process: going on by itself would lose changes, or refuse the same one forever.

    `fault.hint` says what a person has to do; then start the process again.
    """

    def __init__(self, fault: Fault) -> None:
        """Carry the fault, which is `PERMANENT`."""
        self.fault = replace(fault, kind=Kind.PERMANENT, scope=Scope.CALL)
        super().__init__(f"{self.fault.reason}; {self.fault.hint}", self.fault)


class Poison:
    """Counts how often in a row the sink of the stream `name` refused a transaction, and knows what follows.

    After `ATTEMPTS_MAX` refusals the transaction is passed over, with one ERROR ("skip"), or ends the stream ("stop"); in
    both cases it is in the quarantine before, if there is one.
    """

    def __init__(
        self, name: str, classifiers: Classifiers, *, policy: Policy = "stop", quarantine: Quarantine | None = None
    ) -> None:
        self.name = name
        self.policy: Policy = policy
        self.quarantine = quarantine
        self.careful_until = 0
        """Up to this position each transaction is flushed alone: one of them made a flush of several fail."""
        self.skipped = 0
        """How many transactions this process passed over."""
        self._classifiers = classifiers
        self._commit_lsn = 0
        self._count = 0
        self._fault: Fault | None = None
        self._skipped_lsn = 0

    def is_careful(self, delivery: Delivery) -> bool:
        """Return whether this one has to be flushed alone."""
        return delivery.commit_lsn <= self.careful_until

    def refused(self, commit_lsn: int, xid: int, exc: Exception) -> Exception:
        """Count what the sink raised at this transaction; return what to raise for it, without the contents of rows."""
        fault = self._classifiers.classify(exc, source=self.name)
        if fault.reaction not in REFUSALS:
            return exc
        self._count = self._count + 1 if commit_lsn == self._commit_lsn else 1
        self._commit_lsn, self._fault = commit_lsn, fault
        where = f"transaction {xid} at {format_lsn(commit_lsn)}"
        return RefusedError(
            Fault(Kind.REJECTED, fault.code, f"the sink refused {where}: {fault.code}", self.name, Scope.CALL, hint=fault.hint)
        )

    def refused_several(self, newest_lsn: int, exc: Exception) -> Exception:
        """Record that a flush of several failed: which one it was is found out next time, one by one."""
        fault = self._classifiers.classify(exc, source=self.name)
        if fault.reaction not in REFUSALS:
            return exc
        self.careful_until = max(self.careful_until, newest_lsn)
        reason = f"the sink refused one of several transactions up to {format_lsn(newest_lsn)}: {fault.code}"
        return RefusedError(Fault(Kind.REJECTED, fault.code, reason, self.name, Scope.CALL))

    async def checked(self, delivery: Delivery) -> Delivery:
        """Return the delivery, or what is left of one that was refused too often: an empty one, once it is in quarantine.

        Raises `StreamOverError` where the policy is to stop, and what the quarantine raises.
        """
        fault = self._fault
        if fault is None or delivery.commit_lsn != self._commit_lsn or self._count < ATTEMPTS_MAX:
            return delivery
        if self.quarantine is not None:
            await self.quarantine.take(delivery, fault)
        if delivery.end_lsn is None:
            # The rest of it belongs in the quarantine as well, before anything follows from it.
            return emptied(delivery)
        where = f"transaction {delivery.xid} at {format_lsn(delivery.commit_lsn)}"
        kept = f", kept in {self.quarantine.path}" if self.quarantine is not None else ""
        if self.policy == "stop":
            hint = "put right what it refuses, then restart; or let poison='skip' pass over such transactions"
            reason = f"the sink refused {where} {self._count} times: {fault.code}{kept}"
            raise StreamOverError(Fault(Kind.PERMANENT, "poison", reason, self.name, hint=hint))
        if delivery.commit_lsn != self._skipped_lsn:
            self._skipped_lsn = delivery.commit_lsn
            self.skipped += 1
            logger.error("changes %s: skipped %s, which the sink refused: %s%s", self.name, where, fault.code, kept)
        return emptied(delivery)
