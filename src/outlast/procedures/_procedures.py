"""Procedures as their users see them: submit, wait, look, cancel, signal, pause; and run them in a service."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from outlast import Classifiers, ConfigurationError, Kind, Stopping, Unavailable
from outlast.admission import Criticality
from outlast.extend import JsonTooLargeError, NotJsonError, from_json, to_json
from outlast.procedures import _limits as limits
from outlast.procedures._decisions.front import Go, KeyRefusal
from outlast.procedures._decisions.register import Join
from outlast.procedures._desk.background import Background
from outlast.procedures._desk.desk import Desk, fault_of
from outlast.procedures._desk.submitter import Item
from outlast.procedures._errors import (
    InvalidProcedureError,
    ProcedureCancelledError,
    ProcedureExpiredError,
    ProcedureFailedError,
    ProcedureGoneError,
    ProcedureRefused,
    WaitTimeoutError,
)
from outlast.procedures._explain import Explanation, explain
from outlast.procedures._handle import ProcedureHandle
from outlast.procedures._model import FINAL, KeyOf, Pause, Priority, ProcedureRecord, ProcedureState, Submission, Sweep
from outlast.procedures._names import KEY_CHARS_MAX, KIND_CHARS_MAX, check_name
from outlast.procedures._runner.runner import Runner
from outlast.procedures._stores.choose import store_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType

    from outlast import Admission, Service
    from outlast.procedures._desk.waits import End
    from outlast.procedures._model import Counts, Submitted
    from outlast.procedures._procedure import Procedure
    from outlast.procedures._tally import Tally

Records = list[ProcedureRecord]
Pauses = list[Pause]
RETRY_S: Final = 1.0
"""The time after which to come back to a store that refused, if nothing better is known."""
CRITICALITY: Final = {
    Priority.HIGH: Criticality.CRITICAL,
    Priority.NORMAL: Criticality.NORMAL,
    Priority.LOW: Criticality.SHEDDABLE,
}


class Procedures:
    """Durable procedures in a store that any number of processes share.

        procedures = Procedures(Sqlite("work.db"), [create_table])
        procedures.attach(service)
        handle = await procedures.submit("create-table", "cpu", {"columns": 3}, deadline_s=10)
        result = await handle.wait()

    There is at most one live record for each key of a kind: a submission of one that is queued or running joins it. A key that
    failed is refused from memory, with the first cause, until its backoff has passed; then the next submission is its probe.

    - `schema`: where its tables lie, in PostgreSQL.
    - `slots`: how many run at a time in this process. What sleeps or waits holds none.
    - `journal_path`: where this process keeps what is finished while the store is away. Each runner needs its own, and finds it
      again after a restart.
    - `lease_s`: a runner that is silent for longer is taken for dead. `poll_s`: how often to look without being told.
    - `done_keep_s`, `dead_keep_s`, `dead_max`: finished records go after that time, and dead ones beyond that number.
    - `backlog_max`: live records; beyond them a new one is refused, EXHAUSTED. None: what suits the store.
    - `payload_bytes_max`: of a payload, and of the result of a step, as JSON.
    - `make`: tables that are not there, or older, are made when it is first used. Without it a look changes nothing.
    - `admission`: asked for each submission that goes to the store, by `tenant` and priority.
    """

    def __init__(
        self,
        db: object,
        procedures: Sequence[Procedure] = (),
        *,
        schema: str = "outlast",
        slots: int = limits.SLOTS,
        journal_path: str | os.PathLike[str] | None = None,
        lease_s: float = limits.LEASE_S,
        poll_s: float = limits.POLL_S,
        done_keep_s: float | None = limits.DONE_KEEP_S,
        dead_keep_s: float | None = limits.DEAD_KEEP_S,
        dead_max: int = limits.DEAD_MAX,
        backlog_max: int | None = None,
        payload_bytes_max: int = limits.PAYLOAD_BYTES_MAX,
        classifiers: Classifiers | None = None,
        admission: Admission | None = None,
        make: bool = True,
    ) -> None:
        """Do nothing yet. Raises `ConfigurationError` for a setting, `InvalidProcedureError` for a procedure."""
        self.store = store_of(db, schema)
        if backlog_max is None:
            backlog_max = min(limits.BACKLOG_MAX, self.store.records_max or limits.BACKLOG_MAX)
        limits.number("backlog_max", backlog_max, 1, limits.RECORDS_LIMIT)
        self.procedures: Final = {procedure.name: procedure for procedure in procedures}
        if len(self.procedures) < len(procedures):
            msg = "procedures: two of them have one name; a name is the kind of their records"
            raise ConfigurationError(msg)
        for procedure in procedures:
            procedure.seal()
        self.admission: Final = admission
        self.payload_bytes_max: Final = payload_bytes_max
        self._settings = limits.Settings(
            slots=slots,
            journal_path=Path(journal_path) if journal_path is not None else limits.default_journal(self.store.dependency.name),
            lease_s=lease_s,
            poll_s=poll_s,
            sweep=Sweep(done_keep_s, dead_keep_s, dead_max),
            result_bytes_max=payload_bytes_max,
            classifiers=classifiers or Classifiers(),
        )
        self._runner_id = uuid.uuid4().hex
        self._desk = Desk(self.store, self._runner_id, backlog_max=backlog_max, make=make)
        self._background = Background(self._desk)
        self._last_id = 0

    @property
    def tally(self) -> Tally:
        """The numbers of this process, since it began: refusals by reason, ends by state, and more."""
        return self._desk.tally

    # Where it runs.

    def attach(self, service: Service, *, run: bool = True) -> None:
        """Let `service` run procedures; with `run=False` it only submits and looks. Raises `ConfigurationError`, the second time
        too.
        """
        if self._background.attached:
            msg = "procedures: attached to a service already; make one Procedures for each service"
            raise ConfigurationError(msg)
        self._background.attached = True
        if not run:
            service.needs(self.store.dependency)
            service.task(name="procedures news")(partial(self._desk.keep, self._desk.run_news))
            service.task(name="procedures upkeep")(partial(self._desk.keep, self._desk.run_upkeep))
            return
        if not self.procedures:
            msg = "procedures: there is none to run; give them to Procedures, or attach with run=False"
            raise ConfigurationError(msg)
        Runner(self._desk, self._runner_id, self.procedures, self._settings).attach(service)

    async def open(self) -> None:
        """Get ready without a service, to submit and to look: the first use does so too. Raises what the store raises."""
        await self._desk.open()

    async def close(self) -> None:
        """Let go of what it holds beside the dependency, where there is no service. What was submitted goes on."""
        await self._background.close()
        await self.store.close()

    async def __aenter__(self) -> Self:
        """Use it without a service: to submit and to look. Opens the dependency and the store."""
        await self.store.dependency.open()
        await self._desk.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of everything, the dependency too."""
        await self.close()
        await self.store.dependency.close()

    # Submissions.

    async def submit(
        self,
        kind: str,
        key: str,
        payload: Any = None,  # noqa: ANN401 - anything that is JSON
        *,
        deadline_s: float | None = None,
        delay_s: float = 0.0,
        priority: Priority = Priority.NORMAL,
        locks: Sequence[str] = (),
        tenant: str = "",
    ) -> ProcedureHandle:
        """Submit a piece of work, or join the one of this key that is queued or running; when this returns it is durable.

        `deadline_s`: dropped if it has not begun within so many seconds; whoever joins puts that off. `delay_s`: not begun before
        so many. `locks`: names that no two procedures hold at a time, at most 8.

        Raises `ProcedureRefused` at once if the key is failing, the backlog is full, the admission refuses, or the store is away.
        It has the handle too. `InvalidProcedureError` for what is out of its limits, or no JSON. If this is cancelled, it may
        have been submitted.
        """
        procedure = self.procedures.get(kind)
        if procedure is None:
            msg = f"submit {kind!r}: there is no such procedure here; the known ones: {', '.join(self.procedures) or 'none'}"
            raise InvalidProcedureError(msg)
        of = KeyOf(kind, check_name("the key", key, KEY_CHARS_MAX))
        if deadline_s is not None:
            limits.seconds("deadline_s", deadline_s)
        now = asyncio.get_running_loop().time()
        answer = self._desk.front.submit(now, of, deadline_s)
        if isinstance(answer, Join) and answer.id:
            self._desk.tally.joined += 1
            return ProcedureHandle(self, answer.id, kind, key, now)
        if isinstance(answer, KeyRefusal):
            raise self._refused(of, answer)
        made = False
        try:
            if isinstance(answer, Go) and not answer.probe:
                self._check_backlog(of, now)
            item = Item(
                self._new_id(),
                of,
                procedure.version,
                priority,
                self._json(kind, payload),
                limits.lock_names(locks),
                limits.seconds("delay_s", delay_s),
                deadline_s,
                begin=isinstance(answer, Go) and answer.begin,
            )
            made = True
            return await self._submit(item, tenant)
        finally:
            if not made and isinstance(answer, Go):
                self._desk.front.not_created(of)

    async def _submit(self, item: Item, tenant: str) -> ProcedureHandle:
        kind, key = item.of
        try:
            await self._background.begin()
            async with contextlib.AsyncExitStack() as stack:
                if self.admission is not None:
                    # While the service stops, what is under way may still submit what follows from it.
                    with contextlib.suppress(Stopping):
                        entry = self.admission.enter(
                            key=kind,
                            tenant=tenant,
                            size_bytes=len(item.payload_json),
                            deadline_s=item.deadline_s,
                            criticality=CRITICALITY[item.priority],
                        )
                        await stack.enter_async_context(entry)
                submitted, joined = await self._desk.submitter.submit(item)
        except Unavailable as exc:
            self._desk.front.not_created(item.of)
            why = "store" if exc.owner is self.store.dependency else "admission"
            self._desk.tally.refused[why] += 1
            handle = ProcedureHandle(self, item.id if why == "store" else "", kind, key)
            raise ProcedureRefused(handle, exc.fault, exc.since_s, exc.retry_after_s, why) from exc
        except Stopping:
            self._desk.front.not_created(item.of)
            raise
        except Exception as exc:
            self._desk.front.not_created(item.of)
            self._desk.tally.refused["store"] += 1
            refusal = self.store.dependency.refusal(exc, retry_after_s=RETRY_S)
            handle = ProcedureHandle(self, item.id, kind, key)
            raise ProcedureRefused(handle, refusal.fault, refusal.since_s, refusal.retry_after_s, "store") from exc
        if submitted.answer is Submission.FAILING:
            raise self._failing(item.of, submitted)
        if joined or submitted.answer is Submission.JOINED:
            self._desk.tally.joined += 1
        return ProcedureHandle(self, submitted.record.id, kind, key, asyncio.get_running_loop().time())

    def _refused(self, of: KeyOf, refusal: KeyRefusal) -> ProcedureRefused:
        self._desk.tally.refused[refusal.why.value] += 1
        handle = ProcedureHandle(self, refusal.id, of.kind, of.key)
        return ProcedureRefused(handle, refusal.fault, refusal.since_s, refusal.retry_after_s, refusal.why.value)

    def _failing(self, of: KeyOf, submitted: Submitted) -> ProcedureRefused:
        record = submitted.record
        wait_s = max(0.0, (record.until_at or record.read_at) - record.read_at)
        self._desk.tally.refused["failing"] += 1
        handle = ProcedureHandle(self, record.id, of.kind, of.key)
        return ProcedureRefused(
            handle,
            fault_of(record.first_fault, record.last_fault),
            max(0.0, record.read_at - record.created_at),
            wait_s,
            "failing",
        )

    def _check_backlog(self, of: KeyOf, now: float) -> None:
        full = self._desk.backlog.refusal(now)
        if full is not None:
            self._desk.tally.refused["backlog"] += 1
            raise ProcedureRefused(ProcedureHandle(self, "", *of), *full, "backlog")

    def _new_id(self) -> str:
        """Return 32 hexadecimal digits: milliseconds, a number, and chance. Those of a process sort as they were made."""
        # 65,536 for each millisecond; in one that has more they run ahead of the clock.
        self._last_id = max(self._last_id + 1, time.time_ns() // 1_000_000 << 16)
        return f"{self._last_id:016x}{secrets.token_hex(8)}"

    def _json(self, kind: str, payload: object) -> str:
        try:
            return to_json(payload, self.payload_bytes_max)
        except JsonTooLargeError as error:
            hint = "keep it elsewhere, and its place in the payload"
            msg = f"submit {kind}: the payload is too large: {error} (payload_bytes_max); {hint}"
            raise InvalidProcedureError(msg) from None
        except NotJsonError as error:
            msg = f"submit {kind}: the payload is no JSON: {error}"
            raise InvalidProcedureError(msg) from None

    # One record.

    async def get(self, id: str) -> ProcedureRecord | None:  # noqa: A002 - the name it has everywhere
        """Return a record; None if there is none with this id."""
        await self._desk.open()
        return (await self.store.find([id]))[0] if limits.is_id(id) else None

    async def of_key(self, kind: str, key: str) -> ProcedureRecord | None:
        """Return the record that has a key; if none is live or dead, the one that ended last."""
        await self._desk.open()
        return (await self.store.find_keys([KeyOf(kind, key)]))[0]

    async def handle(self, id: str) -> ProcedureHandle | None:  # noqa: A002
        """Return the handle of a record; None if there is none with this id."""
        record = await self.get(id)
        return None if record is None else ProcedureHandle(self, record.id, record.kind, record.key)

    async def wait(self, id: str, timeout_s: float | None = None) -> Any:  # noqa: A002, ANN401
        """Wait for the end of a record and return its result, as `ProcedureHandle.wait` does."""
        return await self.await_end(ProcedureHandle(self, id, "", ""), timeout_s)

    async def cancel(self, id: str, timeout_s: float | None = None) -> ProcedureState | None:  # noqa: A002
        """Ask for the end of a record, wait for it, and return the state that holds; None if there is no such record.

        What was done of it is undone first. CANCELLED means that it is; it may also have come to its end before, as DONE or DEAD.
        Raises `WaitTimeoutError` after `timeout_s` seconds: it is cancelled all the same, as soon as it can be.
        """
        return await self.end(ProcedureHandle(self, id, "", ""), timeout_s)

    async def signal(self, id: str, name: str, payload: Any = None) -> ProcedureState | None:  # noqa: A002, ANN401
        """Send a signal to a record, which its step `wait` takes; return its state, None if it is unknown or has ended.

        It is kept until it is taken: at most 100 for a record, then `SignalsFullError`.
        """
        check_name("the name of a signal", name, KIND_CHARS_MAX)
        text = self._json("signal", payload)
        await self._desk.open()
        return await self.store.signal(id, name, text) if limits.is_id(id) else None

    # For handles.

    async def look_up(self, handle: ProcedureHandle) -> ProcedureRecord | None:
        """Read the record of a handle."""
        return await (self.get(handle.id) if handle.id else self.of_key(handle.kind, handle.key))

    async def await_end(self, handle: ProcedureHandle, timeout_s: float | None) -> Any:  # noqa: ANN401 - anything that is JSON
        """Wait for the end of a record; see `ProcedureHandle.wait`."""
        end = await self._ended(handle, timeout_s)
        if end is None:
            raise ProcedureGoneError(handle)
        match end.state:
            case ProcedureState.DONE:
                return None if end.result_json is None else from_json(end.result_json)
            case ProcedureState.DEAD:
                first, last = end.first_fault, end.last_fault
                raise ProcedureFailedError(handle, fault_of(first, last), fault_of(last, first))
            case ProcedureState.EXPIRED:
                raise ProcedureExpiredError(handle)
            case _:
                raise ProcedureCancelledError(handle)

    async def end(self, handle: ProcedureHandle, timeout_s: float | None) -> ProcedureState | None:
        """Cancel the record of a handle; see `cancel`."""
        record_id = await self._id_of(handle)
        if not record_id:
            return None
        await self._desk.open()
        state = await self.store.cancel(record_id)
        if state is None:
            return None
        if state not in FINAL:
            if self._desk.runner is not None:
                self._desk.runner.cancel(record_id)
            end = await self._ended(ProcedureHandle(self, record_id, handle.kind, handle.key), timeout_s)
            return None if end is None else end.state
        record = await self.get(record_id)
        if record is not None and record.state in FINAL:
            self._desk.found_ended(record)
        self._desk.waits.left(record_id)
        return state

    async def _ended(self, handle: ProcedureHandle, timeout_s: float | None) -> End | None:
        if timeout_s is not None:
            limits.seconds("timeout_s", timeout_s)
        record_id = await self._id_of(handle)
        if not record_id:
            return None
        await self._background.begin()
        first_s = self._desk.first_look_s(handle.live_at)
        if timeout_s is None:
            return await self._desk.waits.end_of(record_id, first_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._desk.waits.end_of(record_id, first_s)
        except TimeoutError:
            raise WaitTimeoutError(handle, timeout_s) from None

    async def _id_of(self, handle: ProcedureHandle) -> str:
        if handle.id:
            return handle.id if limits.is_id(handle.id) else ""
        record = await self.look_up(handle)
        return "" if record is None else record.id

    # Many.

    async def list(
        self,
        *,
        states: Sequence[ProcedureState] = (),
        kind: str | None = None,
        key: str | None = None,
        before: str | None = None,
        count: int = 50,
    ) -> Records:
        """Return records, the newest first, at most `count` (and 1,000); those older than the id `before`."""
        await self._desk.open()
        return await self.store.records(states=states, kind=kind, key=key, before=before, count=min(count, limits.LIST_MAX))

    async def explain(self, kind: str, key: str) -> Explanation:
        """Return how a key stands: its state, why it is refused or waits, since when, and what clears that."""
        await self._desk.open()
        return await explain(self._desk, self.procedures.get(kind), KeyOf(kind, key))

    async def counts(self) -> Counts:
        """Count the records by kind and state; the store is asked, and may take up to two seconds."""
        await self._desk.open()
        return await self.store.counts()

    async def clear(self, kind: str = "", key: str = "") -> int:
        """Let failing keys be tried at once, as if they had never failed; return how many. "" stands for all."""
        await self._desk.open()
        count = await self.store.clear(kind, key)
        self._desk.cleared(kind, key)
        return count

    async def fixed(self, source: str, fault_kind: Kind, code: str) -> int:
        """Say that a cause is gone: the keys that failed by it may be tried at once, what waits for it goes on in waves."""
        await self._desk.open()
        count = await self.store.fixed(source, fault_kind.value, code)
        self._desk.fixed(source, fault_kind, code)
        return count

    async def pause(self, kind: str = "", key: str = "") -> None:
        """Begin nothing of a key, a kind, or everything from now on, over restarts, until `resume`. What runs goes on."""
        await self._desk.open()
        await self.store.pause(Pause(kind, key))

    async def resume(self, kind: str = "", key: str = "") -> bool:
        """Take one pause back; return whether there was one."""
        await self._desk.open()
        return await self.store.resume(Pause(kind, key))

    async def pauses(self) -> Pauses:
        """Return all that is paused."""
        await self._desk.open()
        return await self.store.pauses()
