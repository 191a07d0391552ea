"""The work on claimed records: ask the step machine, call the step, record what became of it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind
from outlast.extend import JsonTooLargeError, NotJsonError, contained, fault_record, from_json, refusal_in, to_json
from outlast.procedures._machine.actions import Cancelled, Fail, Finish, GiveBack, RunStep, RunUndo
from outlast.procedures._machine.body import Body
from outlast.procedures._machine.faults import BodyError
from outlast.procedures._machine.next_action import next_action, write_of
from outlast.procedures._model import ProcedureState, RecordWrite
from outlast.procedures._run import Results, Run
from outlast.procedures._runner.running import Doing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from outlast import Classifiers, Stop, Unavailable
    from outlast.extend import Needs, Recorder
    from outlast.procedures._decisions.front import Front
    from outlast.procedures._machine.actions import Action, AfterFault, TryAgain
    from outlast.procedures._model import ProcedureRecord
    from outlast.procedures._procedure import Procedure
    from outlast.procedures._runner.failures import Failures
    from outlast.procedures._runner.lease import Lease
    from outlast.procedures._runner.recording import Writing
    from outlast.procedures._runner.running import Claimed

UNREADABLE_S: Final = 30.0
"""The wait of a record whose steps are not those of this code."""


class LostError(Exception):
    """The claim is not this runner's any more: it does and says nothing about the record from now on."""


class StepError(Exception):
    """A step returned what cannot be recorded."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


@dataclass(slots=True)
class Work:
    """The work on one record."""

    claimed: Claimed
    record: ProcedureRecord
    body: Body
    payload: Any
    stop: Stop


class Driver:
    """Work on records, one task for each. Nothing that a step raises ends the service. On the event loop's thread only."""

    def __init__(
        self,
        procedures: Mapping[str, Procedure],
        *,
        recorder: Recorder[RecordWrite],
        writing: Writing,
        front: Front,
        needs: Needs,
        lease: Lease,
        failures: Failures,
        classifiers: Classifiers,
        result_bytes_max: int,
        ended: Callable[[Claimed, RecordWrite], None],
        left: Callable[[Claimed, float | None], None],
    ) -> None:
        """`ended` is called when a final state is recorded; `left` when a record was let go of, due in so many seconds (None: not
        by its time).
        """
        self._procedures = procedures
        self._recorder = recorder
        self._writing = writing
        self._front = front
        self._needs = needs
        self._lease = lease
        self._failures = failures
        self._classifiers = classifiers
        self._result_bytes_max = result_bytes_max
        self._ended = ended
        self._left = left
        self._rng = random.Random()

    async def drive(self, claimed: Claimed, stop: Stop) -> None:
        """Work on a record until it has ended, waits, was given back or lost."""
        record = claimed.record
        try:
            try:
                body = Body.of(self._procedures[record.kind], record)
                work = Work(claimed, record, body, from_json(record.payload_json), stop)
            except BodyError as error:
                await self._unreadable(claimed, error)
                return
            except NotJsonError as error:
                fault = Fault(Kind.REJECTED, "payload", f"the payload of a {record.kind} cannot be read: {error}", record.kind)
                await self._finish(claimed, _plain(record, ProcedureState.DEAD), fault)
                return
            while await self._turn(work):
                pass
        except LostError:
            self._front.left(_now(), record.of)

    async def _turn(self, work: Work) -> bool:
        """Do the next thing; return False when the record is let go of."""
        claimed, body = work.claimed, work.body
        now = claimed.store_now(_now())
        action = next_action(body, now=now, cancel=claimed.cancel_requested, signals=work.record.signals)
        if isinstance(action, RunStep | RunUndo):
            if work.stop.requested or claimed.stopped:
                body.not_begun()
                await self._let_go(work, GiveBack(0.0), None)
                return False
            if body.dirty:
                # Whoever goes on after us must know what is done before the next thing is begun.
                await self._record(claimed, write_of(work.record, body, action, progress=claimed.said or ""))
                body.written()
                await self._settled(claimed)
                return True
            return await self._call(work, action)
        if isinstance(action, Finish | Fail | Cancelled):
            fault = action.fault if isinstance(action, Fail) else None
            await self._finish(claimed, write_of(work.record, body, action), fault)
        else:
            await self._let_go(work, action, None)
        return False

    # A step.

    async def _call(self, work: Work, action: RunStep | RunUndo) -> bool:
        """Call a step or an undo and tell the body; return whether the record is still here."""
        claimed, record, body = work.claimed, work.record, work.body
        # The write before may have taken longer than the lease, and who takes over may have begun.
        self._check(claimed)
        try:
            if not claimed.begin(Doing.STEP if isinstance(action, RunStep) else Doing.UNDO):
                self._check(claimed)
                return True
            claimed.progress = partial(_progress, work, action)
            try:
                result = await self._called(work, action)
            finally:
                claimed.progress = None
                claimed.end()
            text = self._json(record.kind, result)
        except BaseException as exc:
            if _ends_the_task(claimed, exc):
                raise
            return await self._failed(work, action, exc)
        self._check(claimed)
        self._needs.ended(record, worked=True)
        if isinstance(action, RunUndo):
            body.undone()
        else:
            body.step_done(text)
            self._front.step_done(_now(), record.of, action.step.name)
        return True

    async def _called(self, work: Work, action: RunStep | RunUndo) -> Any:  # noqa: ANN401 - the step's result
        record = work.record
        run = Run(
            id=record.id,
            kind=record.kind,
            key=record.key,
            payload=work.payload,
            step=action.step.name,
            attempt=action.attempt,
            idempotency_key=action.idempotency_key,
            token=record.token,
            results=Results(work.body.texts),
            on_say=work.claimed.say,
        )
        if isinstance(action, RunStep):
            return await _limited(contained(action.step.function(run), record.kind, work.stop), action.step.timeout_s)
        limit_s = action.undo.timeout_s
        await _limited(contained(action.undo.function(run, action.outcome), record.kind, work.stop), limit_s)
        return None

    def _json(self, kind: str, result: object) -> str:
        if result is None:
            return "null"
        try:
            return to_json(result, self._result_bytes_max)
        except JsonTooLargeError as error:
            reason = f"the result of a step of {kind} is too large: {error}"
            raise StepError(Fault(Kind.REJECTED, "result size", reason, kind)) from None
        except NotJsonError as error:
            raise StepError(Fault(Kind.REJECTED, "result", f"the result of a step of {kind} is no JSON: {error}", kind)) from None

    async def _failed(self, work: Work, action: RunStep | RunUndo, exc: BaseException) -> bool:
        """Note a failed attempt in the body; let go of the record if it waits now, and return whether it is still here."""
        claimed, record, body = work.claimed, work.record, work.body
        self._check(claimed)
        if claimed.interrupted:
            if not claimed.stopped:
                # A cancel: the next action undoes, first this step, whose outcome is not known.
                return True
            await self._let_go(work, GiveBack(0.0), None)
            return False
        fault = exc.fault if isinstance(exc, StepError) else self._classifiers.classify(exc, source=record.kind)
        fault = fault.met_while(stopping=work.stop.requested)
        refusal = refusal_in(exc) or self._outage(fault)
        if refusal is not None:
            self._needs.refused(record, refusal, work.stop)
        else:
            self._needs.ended(record, worked=False)
        after: AfterFault
        if isinstance(action, RunUndo):
            after = body.undo_failed(fault, self._rng, refusal=refusal)
            self._failures.undo(record, action.step.name, fault, exc)
        elif refusal is None and not self._front.attempt_failed(_now(), record.of, fault, action.step.name).counts:
            # Due at once: the cause says when it may be claimed.
            body.step_failed(fault, self._rng, cause_open=True)
            after = GiveBack(0.0)
        else:
            after = body.step_failed(fault, self._rng, refusal=refusal)
            if refusal is None:
                self._failures.step(record, action.step.name, fault, exc)
        if after is None:
            return True
        await self._let_go(work, after, fault)
        return False

    def _outage(self, fault: Fault) -> Unavailable | None:
        """Return the refusal of a dependency of the service that has gone down by this: it is not the key's, nor a cause's."""
        if not fault.is_evidence:
            return None
        down = (each for each in self._needs.known() if each.name == fault.source and not each.passable)
        dependency = next(down, None)
        return None if dependency is None else dependency.unavailable()

    # Recording.

    async def _let_go(self, work: Work, action: Action | TryAgain | GiveBack, fault: Fault | None) -> None:
        claimed = work.claimed
        stored = None if fault is None else fault_record(fault)
        write = write_of(work.record, work.body, action, fault=stored, progress=claimed.said or "")
        await self._record(claimed, write)
        self._front.left(_now(), work.record.of)
        self._left(claimed, write.due_s)

    async def _finish(self, claimed: Claimed, write: RecordWrite, fault: Fault | None) -> None:
        if fault is not None:
            failures = claimed.record.failures + 1
            until_s = self._front.until_s(fault, failures)
            write = replace(write, fault=fault_record(fault), failures=failures, until_s=until_s)
        await self._record(claimed, write)
        # Nobody is told of an end that is only in the journal: another runner may bring about another one.
        await self._settled(claimed)
        self._ended(claimed, write)

    async def _unreadable(self, claimed: Claimed, error: BodyError) -> None:
        record, fault = claimed.record, fault_record(error.fault)
        self._failures.unreadable(record, error.fault)
        waiting = ProcedureState.WAITING.value
        write = RecordWrite(record.id, record.token, waiting, error.body_json, fault=fault, due_s=UNREADABLE_S, cancel_known=True)
        await self._record(claimed, write)
        self._front.left(_now(), record.of)
        self._left(claimed, UNREADABLE_S)

    async def _record(self, claimed: Claimed, write: RecordWrite) -> None:
        """Return when the write is safe. Raises `LostError` if the claim is not ours any more."""
        if claimed.saying is not None:
            await asyncio.wait({claimed.saying})
        self._check(claimed)
        claimed.said = None
        in_store = await self._recorder.record(write)
        claimed.in_journal = not in_store
        if in_store and self._writing.came_late(write):
            raise LostError

    async def _settled(self, claimed: Claimed) -> None:
        """Wait until what is in the journal is recorded: nothing goes on from what may be lost to another runner."""
        if not claimed.in_journal:
            return
        try:
            if claimed.begin(Doing.WAITING):
                try:
                    await self._recorder.settled(claimed.record.id)
                finally:
                    claimed.end()
        except asyncio.CancelledError as exc:
            if _ends_the_task(claimed, exc):
                raise
        if claimed.lost or claimed.stopped:
            # The next start records what is in the journal.
            raise LostError

    def _check(self, claimed: Claimed) -> None:
        self._lease.look()
        if claimed.lost or not self._lease.is_held:
            raise LostError


async def _limited(work: Awaitable[Any], limit_s: float | None) -> Any:  # noqa: ANN401 - the step's result
    if limit_s is None:
        return await work
    async with asyncio.timeout(limit_s):
        return await work


def _progress(work: Work, action: RunStep | RunUndo, text: str) -> RecordWrite:
    return write_of(work.record, work.body, action, progress=text)


def _plain(record: ProcedureRecord, state: ProcedureState) -> RecordWrite:
    return RecordWrite(record.id, record.token, state.value, record.body_json)


def _ends_the_task(claimed: Claimed, exc: BaseException) -> bool:
    """Return whether it ends the task, rather than the step: the event loop ends, or the process."""
    if isinstance(exc, KeyboardInterrupt | GeneratorExit):
        return True
    task = claimed.task
    return isinstance(exc, asyncio.CancelledError) and not claimed.interrupted and task is not None and task.cancelling() > 0


def _now() -> float:
    return asyncio.get_running_loop().time()
