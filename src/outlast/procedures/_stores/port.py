"""The port of a store of procedures. `tests/contract/procedure_store_contract.py` holds what every store promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast import Dependency
    from outlast.procedures._model import (
        Counts,
        KeyOf,
        Mine,
        NewRecord,
        News,
        Pause,
        ProcedureRecord,
        ProcedureState,
        Recorded,
        RecordWrite,
        Submitted,
        Sweep,
        Swept,
    )


class ProcedureStore(Protocol):
    """Records of procedures, shared by any number of runners.

    Every call is one or a few transactions, and atomic for each record. A call may be cancelled: it is done or not, and leaves no
    transaction open. What it raises is what the dependency's `use` raises: classified, `Unavailable` while that is down. After an
    error it is unknown whether the call was done; to repeat it is harmless (`submit`: the id, `record`: the token).
    """

    @property
    def dependency(self) -> Dependency:
        """The dependency that its users need."""
        ...

    @property
    def records_max(self) -> int | None:
        """Records it should hold at most, of all states; None: what its server can."""
        ...

    async def open(self) -> None:
        """Make the tables, or bring them to the newest format. Raises `NewerFormatError`. Many processes may call it at once."""
        ...

    async def close(self) -> None:
        """Let go of what the store itself holds: watches, threads. Not of the dependency. May be called again."""
        ...

    async def submit(self, new: Sequence[NewRecord], runner: str) -> list[Submitted]:
        """Make a record for each, or return the one that has the key. Two of one call may have the same key.

        An id that is there already is answered CREATED, with what has become of it, and changes nothing. A live record that was
        not begun lives until the latest deadline of all who joined it. A dead one whose backoff has passed is revived: with the
        new payload, version, priority and locks, with its id, token, failures and faults, and nothing else of its former life.
        """
        ...

    async def claim(
        self, runner: str, kinds: Sequence[str], count: int, *, oldest_first: bool = False, without: Sequence[str] = ()
    ) -> list[ProcedureRecord]:
        """Take up to `count` records that are due: queued or waiting, or of a runner whose lease is over (and `deaths` + 1).

        In the order of priority, then of `due_at` and id; `oldest_first` leaves the priority out. Not those that are paused, that
        need a lock which another record holds, whose deadline has passed before they began, or whose id is in `without`. Each
        has `token` + 1 and this owner.
        """
        ...

    async def record(self, writes: Sequence[RecordWrite]) -> list[Recorded]:
        """Record each, if its token is that of the record, and the record is claimed or was only taken from a dead runner.

        In one transaction where the store can. A write after which a cancel is pending that is not known to the writer, and which
        is not final, makes the record due at once, and so does one that waits for a signal which has come. `deaths` is 0 again.
        A signal is taken by the write that changes the body: one that is repeated takes no second. DEAD keeps the key. DONE has
        no failures any more.
        """
        ...

    async def beat(self, runner: str, name: str, lease_s: float) -> Mapping[str, Mine]:
        """Renew the lease of a runner, and return the records that it has. `name` is for people."""
        ...

    async def leave(self, runner: str) -> None:
        """End the lease of a runner: what it has still is free to be claimed at once."""
        ...

    async def find(self, ids: Sequence[str]) -> list[ProcedureRecord | None]:
        """Return the records with these ids, in this order."""
        ...

    async def find_keys(self, keys: Sequence[KeyOf]) -> list[ProcedureRecord | None]:
        """Return for each the record that has the key; if none is live or dead, the one that ended last."""
        ...

    async def records(
        self,
        *,
        states: Sequence[ProcedureState] = (),
        kind: str | None = None,
        key: str | None = None,
        before: str | None = None,
        count: int = 100,
    ) -> list[ProcedureRecord]:
        """Return records, the newest first; those older than the id `before`."""
        ...

    async def counts(self) -> Counts:
        """Count what there is, within two seconds or not at all (the dependency's deadline error)."""
        ...

    async def cancel(self, id: str) -> ProcedureState | None:  # noqa: A002 - the name it has everywhere
        """Ask for the end of a record; return its state after this, None if there is no such record.

        One that was never claimed in this life is CANCELLED at once. Another that is live has `cancel_requested`, and is due at
        once; if it had that before, nothing changes. Makes an event if something changed.
        """
        ...

    async def signal(self, id: str, name: str, payload_json: str) -> ProcedureState | None:  # noqa: A002
        """Keep a signal for a live record; return its state, None if there is no such record or it is final.

        At most 100 are kept for one; beyond that `SignalsFullError`. A record that waits for it is due at once. Makes an event.
        """
        ...

    async def extend(self, deadlines: Mapping[str, float | None]) -> None:
        """Let records that were not begun live longer: id to seconds from now, None for no deadline. It never shortens one."""
        ...

    async def clear(self, kind: str = "", key: str = "") -> int:
        """Let dead keys be tried at once, as if they had never failed; return how many had. "" stands for all.

        Their failures are 0 and their backoff is over; their faults remain to be seen until they are revived. Makes an event,
        after all are cleared.
        """
        ...

    async def fixed(self, source: str, fault_kind: str, code: str) -> int:
        """Clear the dead whose last fault is of this cause, as `clear` does. Makes an event."""
        ...

    async def pause(self, pause: Pause) -> None:
        """Claim nothing of it from now on; it holds over restarts. Makes an event, unless it was paused already.

        There are at most 1,000 pauses; one more raises `InvalidProcedureError`.
        """
        ...

    async def resume(self, pause: Pause) -> bool:
        """Take one pause back; return whether there was one. If so, makes an event."""
        ...

    async def pauses(self) -> list[Pause]:
        """Return all that is paused."""
        ...

    async def news(self, after: int | None, wait_s: float) -> News:
        """Return what is new after a number, as soon as there is something, or nothing after `wait_s` seconds.

        With None it returns at once, with the newest number and no events. At least the last 1,000 events are kept. `work` is
        set when something became due since then, by whosever call or because its time has come; the end of a lease is no news.
        One task of a process asks, again and again.
        """
        ...

    async def sweep(self, what: Sweep) -> Swept:
        """Expire what was not begun in time, delete what is finished and old, in one batch. Only final records are deleted."""
        ...
