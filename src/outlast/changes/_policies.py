"""The policies of a stream: what it reads from its source, how it delivers that to its sink, and how its owner is found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from outlast import Backoff, ConfigurationError
from outlast.changes._snapshot.reader import WORKERS_MAX
from outlast.postgres.replication import Keepalive

if TYPE_CHECKING:
    import os
    import random
    from collections.abc import Sequence

    from outlast import Classifiers
    from outlast.changes._sinks.poison import Policy
    from outlast.changes._sinks.quarantine import Quarantine

OnLoss: TypeAlias = Literal["stop", "snapshot"]
BACKOFF: Final = Backoff(base_s=0.5, cap_s=30.0)
"""Between two sessions. Lowest sums of the waits: 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 30.75, 45.75, 60.75, 75.75, 90.75 s:
at most eleven attempts in 90 s, whatever the fault. While a server is down its own rhythm rules instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """The changes and rows that a stream reads. Raises `ConfigurationError` for options that contradict each other."""

    create: bool = True
    """Make the publication and the slot if they are missing, but a slot never for a sink that has a position: the changes in
    between would be lost unnoticed."""
    tables: Sequence[str] | None = None
    """The tables of the publication, as SQL writes their names; None: all."""
    snapshot: bool = False
    """Read the rows that are there already first, into a sink that has no position yet. After an interruption it goes on where
    it was."""
    snapshot_workers: int = 2
    """Connections that read rows at the same time, 1 to 64."""
    keys_change: bool = True
    """False: a promise that no primary key ever changes. Then tables with large values go on where they were, too."""
    lost: OnLoss = "stop"
    """The answer to a slot that is gone or lost: "snapshot" reads all tables again, with one WARNING, once: lost again before
    the stream has caught up, or with "stop", the stream ends for this process."""

    def __post_init__(self) -> None:
        if self.lost not in {"stop", "snapshot"}:
            raise ConfigurationError(f"changes: lost={self.lost!r}, which is 'stop' or 'snapshot'")
        if self.tables is not None and (isinstance(self.tables, str) or not self.tables):
            raise ConfigurationError(f"changes: tables={self.tables!r} must be a list of one name or more; leave it out for all")
        if not 1 <= self.snapshot_workers <= WORKERS_MAX:
            raise ConfigurationError(f"changes: snapshot_workers={self.snapshot_workers}, which is 1 to {WORKERS_MAX}")
        if self.lost == "snapshot" and not self.create:
            raise ConfigurationError(
                "changes: lost='snapshot' makes a new slot, which create=False forbids; leave out one of them"
            )

    @property
    def takes_snapshots(self) -> bool:
        """Whether the sink may be given all rows of the tables."""
        return self.snapshot or self.lost == "snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """The form in which changes come to the sink, and what follows when it refuses them.

    Raises `ConfigurationError` for options that contradict each other.
    """

    typed: bool = False
    """Python values for the common types instead of text."""
    streaming: bool = False
    """Have large transactions sent while they are in progress (protocol 2), kept on disk until they are committed."""
    spool_directory: str | os.PathLike[str] | None = None
    """The directory where they are kept; None: that of temporary files. Without `streaming` nothing is kept."""
    poison: Policy = "stop"
    """The answer to a transaction that the sink refuses three times in a row: "skip" passes over it, once it is in the
    quarantine; "stop" ends the stream for this process with one ERROR."""
    quarantine: Quarantine | None = None
    """The file for refused transactions. "skip" needs one."""
    classifiers: Classifiers | None = None
    """Rules for what the sink raises, before those of the source."""

    def __post_init__(self) -> None:
        if self.poison not in {"stop", "skip"}:
            raise ConfigurationError(f"changes: poison={self.poison!r}, which is 'stop' or 'skip'")
        if self.poison == "skip" and self.quarantine is None:
            raise ConfigurationError("changes: poison='skip' needs a quarantine: what is skipped must be somewhere")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerPolicy:
    """The watch over the owner of a stream, and its patience."""

    keepalive: Keepalive = field(default_factory=Keepalive)
    """The bound for how long an owner whose machine is gone keeps the stream."""
    wal_sender_timeout_s: float | None = None
    """The same bound on the side of the server that sends; None: that of `keepalive`."""
    schema: str = "outlast"
    """The schema of our own tables in the source."""
    backoff: Backoff = BACKOFF
    """The waits between two sessions."""
    rng: random.Random | None = None
    """The jitter's source, for tests."""

    @property
    def timeout_s(self) -> float:
        """The seconds after which the server gives up a session that is silent."""
        return self.keepalive.total_s if self.wal_sender_timeout_s is None else self.wal_sender_timeout_s
