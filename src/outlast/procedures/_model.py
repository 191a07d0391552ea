"""The values that the parts of a system of procedures hand to each other: states, records, and what is asked for."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, NamedTuple


class ProcedureState(enum.Enum):
    """The state of a record."""

    QUEUED = "queued"
    """Waits for a slot. Not begun, or given back between two attempts."""
    RUNNING = "running"
    """A runner has it."""
    WAITING = "waiting"
    """Begun, and waits for its time or for a signal. It holds no slot."""
    DONE = "done"
    DEAD = "dead"
    """It failed. Its key is refused until its backoff has passed; then the next submission revives the record."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """Nobody waited for it any more before it was begun."""


LIVE: Final = frozenset({ProcedureState.QUEUED, ProcedureState.RUNNING, ProcedureState.WAITING})
FINAL: Final = frozenset({ProcedureState.DONE, ProcedureState.DEAD, ProcedureState.CANCELLED, ProcedureState.EXPIRED})


class Priority(enum.IntEnum):
    """The order of claims: a higher one first. One claim in eight goes by age alone, so that none is passed over without end."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class KeyOf(NamedTuple):
    """The identity of a piece of work: at most one live or dead record has it."""

    kind: str
    """The name of the procedure."""
    key: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that came for a record and has not been taken yet."""

    name: str
    payload_json: str


@dataclass(frozen=True, slots=True)
class ProcedureRecord:
    """A record as the store has it. Times are seconds since 1970 by the store's own clock."""

    id: str
    """Of this life of the key: 32 hexadecimal digits that sort by their creation. A dead record that is revived keeps it."""
    kind: str
    key: str
    state: ProcedureState
    version: int
    """The version of the procedure that submitted it."""
    priority: Priority
    payload_json: str
    created_at: float
    read_at: float
    """The store's time when this was read: a time less `read_at` is what remains."""
    body_json: str = ""
    """The steps and what became of them; empty until the first is recorded. Only the step machine reads it."""
    token: int = 0
    """Counts the claims, over revivals too. Whoever writes with an older one is refused."""
    revivals: int = 0
    """The number of times that it was revived: with the id it names one life."""
    owner: str | None = None
    """The runner that has it."""
    deaths: int = 0
    """Runners that died with it since anything was last recorded."""
    failures: int = 0
    """The number of times in a row that the key failed; 0 again after a success or `clear`."""
    locks: tuple[str, ...] = ()
    """Names that no two records hold at a time: held from the first claim to the end."""
    signals: tuple[Signal, ...] = ()
    waits_for: str = ""
    """Of a waiting one: the name of the signal that it waits for."""
    cancel_requested: bool = False
    progress: str = ""
    """The last word of the running step."""
    result_json: str | None = None
    first_fault: dict[str, Any] | None = None
    """Over revivals: the first since it last succeeded or was cleared."""
    last_fault: dict[str, Any] | None = None
    due_at: float | None = None
    """Claimed at this time at the earliest, if queued or waiting; None: only a signal or a cancel wakes it."""
    deadline_at: float | None = None
    """Not begun after this time."""
    began_at: float | None = None
    """The time of the first claim in this life."""
    ended_at: float | None = None
    until_at: float | None = None
    """Of a dead one: no attempt before this time."""

    @property
    def of(self) -> KeyOf:
        """Its identity."""
        return KeyOf(self.kind, self.key)


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A submission on its way to the store."""

    id: str
    kind: str
    key: str
    version: int
    priority: Priority
    payload_json: str
    locks: tuple[str, ...] = ()
    delay_s: float = 0.0
    deadline_s: float | None = None
    """Seconds from now in which it must begin. Seconds travel, never a time of this machine."""
    claim: bool = False
    """Begin it at once, if it is made or revived by this, is due, and is neither paused nor locked."""


class Submission(enum.Enum):
    """The answer of the store to a new record."""

    CREATED = "created"
    REVIVED = "revived"
    """The key was dead and its backoff has passed: the dead record is queued again, with this payload."""
    JOINED = "joined"
    """A live record has the key: this is it."""
    FAILING = "failing"
    """The key is dead and its backoff has not passed: `record.until_at` says when it has."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The outcome of a submission: the answer, and the record that now has the key."""

    answer: Submission
    record: ProcedureRecord


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """A write by the runner that has the record. All fields are plain: it is kept in the journal as it is."""

    id: str
    token: int
    state: str
    """RUNNING (a step is done), QUEUED (given back), WAITING, or a final one. All but RUNNING end the claim."""
    body_json: str
    result_json: str | None = None
    fault: dict[str, Any] | None = None
    """Becomes `last_fault`, and `first_fault` where there is none."""
    due_s: float | None = 0.0
    """Of QUEUED and WAITING: claimed no sooner than in so many seconds; None: by a signal or a cancel alone."""
    waits_for: str = ""
    """Of WAITING: the signal. The store makes the record due at once if that has come already."""
    took_signals: tuple[str, ...] = ()
    """Names of signals that were taken: for each, the oldest of that name is removed."""
    failures: int = 0
    """Of DEAD."""
    until_s: float = 0.0
    """Of DEAD: no attempt for so many seconds."""
    progress: str = ""
    cancel_known: bool = False
    """Its cancel is known to the writer, who undoes it: the record is not made due at once for it, so that undoing may wait."""


class Recorded(enum.Enum):
    """The outcome of a `RecordWrite`."""

    WRITTEN = "written"
    LATE = "late"
    """The claim is no longer this one: it was recorded before, or another runner has it. Nothing was changed."""


class StoreEventKind(enum.Enum):
    """The kinds of things in the store that other processes have to know."""

    CLEARED = "cleared"
    """`kind`, and `key` or "" for all of the kind: what is remembered of their failures is over. Kind "" for everything."""
    FIXED = "fixed"
    """`text` is the cause as `source/kind/code`; it is gone."""
    PAUSED = "paused"
    RESUMED = "resumed"
    """Of both: kind and key, or kind alone, or neither for everything."""
    CANCEL = "cancel"
    SIGNAL = "signal"
    """Of both: `text` is the id of the record."""


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """One event, and its number in the store's order."""

    number: int
    what: StoreEventKind
    kind: str = ""
    key: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """The news since a number."""

    number: int
    """Ask with this one next."""
    events: tuple[StoreEvent, ...] = ()
    lost: bool = False
    """Older events are gone already: read everything again (pauses, failing keys, one's own records)."""
    work: bool = False
    """There may be something to claim."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause: nothing is claimed of a key, a kind (key ""), or everything (both "")."""

    kind: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Mine:
    """A record of one's own, as a heartbeat reads it."""

    token: int
    cancel_requested: bool
    signals: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """The rules by which a store is cleaned up, in one small batch."""

    done_keep_s: float | None
    """Of DONE, CANCELLED and EXPIRED ones, from their end; None: they are kept."""
    dead_keep_s: float | None
    dead_max: int
    """Dead records that are kept; beyond them the oldest goes."""
    batch: int = 500


@dataclass(frozen=True, slots=True)
class Swept:
    """The work of one sweep; `more` says that another would find something at once."""

    expired: int = 0
    deleted: int = 0
    dead_deleted: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of records by kind and state, and for how long the oldest due record has waited."""

    held: dict[tuple[str, str], int]
    oldest_due_s: float = 0.0
