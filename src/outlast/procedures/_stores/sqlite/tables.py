"""The tables, and how they came to be: one format after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.extend import NewerFormatError
from outlast.procedures._stores.clock import KeptClock

if TYPE_CHECKING:
    from outlast.procedures._stores.clock import StoreClock
    from outlast.procedures._stores.sqlite.transaction import Transaction

_FIRST: Final = (
    """
    CREATE TABLE outlast_procedures (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, version INTEGER NOT NULL,
        priority INTEGER NOT NULL, payload TEXT NOT NULL, created_at REAL NOT NULL, body TEXT NOT NULL, token INTEGER NOT NULL,
        revivals INTEGER NOT NULL, owner TEXT, deaths INTEGER NOT NULL, failures INTEGER NOT NULL, locks TEXT, signals TEXT,
        waits_for TEXT NOT NULL, cancel_requested INTEGER NOT NULL, progress TEXT NOT NULL, result TEXT, first_fault TEXT,
        last_fault TEXT, due_at REAL, deadline_at REAL, began_at REAL, ended_at REAL, until_at REAL
    )
    """,
    # One live or dead record has a key.
    """
    CREATE UNIQUE INDEX outlast_procedures_holder ON outlast_procedures (kind, key)
        WHERE state IN ('queued', 'running', 'waiting', 'dead')
    """,
    """
    CREATE INDEX outlast_procedures_due ON outlast_procedures (kind, priority, due_at, id)
        WHERE state IN ('queued', 'waiting') AND due_at IS NOT NULL
    """,
    "CREATE INDEX outlast_procedures_running ON outlast_procedures (owner) WHERE state = 'running'",
    """
    CREATE INDEX outlast_procedures_deadline ON outlast_procedures (deadline_at)
        WHERE state = 'queued' AND began_at IS NULL AND deadline_at IS NOT NULL
    """,
    "CREATE INDEX outlast_procedures_ended ON outlast_procedures (state, ended_at) WHERE ended_at IS NOT NULL",
    "CREATE INDEX outlast_procedures_failing ON outlast_procedures (id) WHERE state = 'dead' AND failures > 0",
    "CREATE INDEX outlast_procedures_kinds ON outlast_procedures (kind, state, key)",
    "CREATE TABLE outlast_procedures_locks (name TEXT PRIMARY KEY, id TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE outlast_procedures_runners (id TEXT PRIMARY KEY, name TEXT NOT NULL, lease_until REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX outlast_procedures_leases ON outlast_procedures_runners (lease_until)",
    """
    CREATE TABLE outlast_procedures_pauses (kind TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID
    """,
    """
    CREATE TABLE outlast_procedures_events (
        number INTEGER PRIMARY KEY, what TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, text TEXT NOT NULL
    )
    """,
)
FORMATS: Final = (_FIRST,)
"""The statements that lead from each format to the next. What is released is never changed: a change is one more."""

_STATE: Final = """
CREATE TABLE IF NOT EXISTS outlast_procedures_state (
    one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, number INTEGER NOT NULL, work_at INTEGER NOT NULL,
    forgotten_to INTEGER NOT NULL, boot_id TEXT NOT NULL, offset_s REAL NOT NULL, seen_at REAL NOT NULL
)
"""


def bring_up(transaction: Transaction, clock: StoreClock, path: object) -> None:
    """Make the tables or bring them to the newest format, and go on from the clock that they keep.

    Raises `NewerFormatError`; then nothing was changed.
    """
    transaction.run(_STATE)
    row = transaction.row("SELECT format, boot_id, offset_s, seen_at FROM outlast_procedures_state")
    found: int = 0 if row is None else row[0]
    if found > len(FORMATS):
        raise NewerFormatError(
            f"procedures: {path} has tables of format {found}, and this version of Outlast knows up to {len(FORMATS)}: "
            "install the version that wrote them, or a later one"
        )
    for statements in FORMATS[found:]:
        for statement in statements:
            transaction.run(statement)
    kept = clock.adopt(None if row is None else KeptClock(*row[1:]))
    if row is None:
        transaction.run("INSERT INTO outlast_procedures_state VALUES (1, ?, 0, 0, 0, ?, ?, ?)", len(FORMATS), *kept)
    else:
        transaction.run(
            "UPDATE outlast_procedures_state SET format = ?, boot_id = ?, offset_s = ?, seen_at = max(seen_at, ?)",
            len(FORMATS),
            *kept,
        )
