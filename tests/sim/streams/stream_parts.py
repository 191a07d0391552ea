"""What the driver of a simulation works with: streams as it knows them, faults, and the demand that something holds."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_model import Model, Sent, Violation

from fake_files import Died
from outlast.streams._format.meta import Meta
from outlast.streams._format.names import folder_name
from outlast.streams._model import StreamOptions

if TYPE_CHECKING:
    from random import Random

    from outlast.streams._log import Log

VOLUME: Final = Path("/disk")
ROOT: Final = VOLUME / "streams"
PRODUCERS: Final = ("a", "b", "c")
LABELS: Final = {"content-type": "text/plain", "long": "t" * 700}
FAULTS: Final = (
    ("write", errno.ENOSPC),
    ("write", errno.EIO),
    ("write_at", errno.EIO),
    ("sync", errno.EIO),
    ("sync_data", errno.EIO),
    ("sync_data", errno.ENOSPC),
    ("sync_folder", errno.EIO),
    ("truncate", errno.EIO),
    ("open", errno.EMFILE),
    ("open", errno.ENOSPC),
    ("rename", errno.EIO),
    ("unlink", errno.EIO),
    ("read_at", errno.EIO),
    ("size", errno.EIO),
)


@dataclass(slots=True)
class Outcome:
    seed: int
    digest: str
    violation: str = ""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    trace: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Held:
    """A stream, its model, and what its producers would send."""

    number: int
    options: StreamOptions
    model: Model
    log: Log
    sequences: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """By producer the epoch and the next sequence."""
    last: dict[str, Sent] = field(default_factory=dict[str, Sent])

    @property
    def folder(self) -> Path:
        return ROOT / folder_name(self.number)

    @property
    def is_synced_each(self) -> bool:
        return not self.options.sync_every_s


def draw_meta(rng: Random, number: int, now_us: int) -> Meta:
    """Return the entry of a stream to make. With a long name it takes several sectors."""
    options = StreamOptions(
        sync_every_s=1.0 if rng.random() < 0.3 else 0.0, segment_bytes=rng.choice([4096, 8192, 20_000]), producers_max=50
    )
    return Meta(
        number,
        f"{number}{rng.choice(['', 'n' * 900])}",
        now_us,
        options,
        rng.choice([0, 0, 0, 17]),
        is_closed=rng.random() < 0.02,
        labels=rng.choice([{}, {}, LABELS]),
    )


def raise_if_died() -> None:
    """Inside an `except`: let the end of the process go on to whoever starts the next."""
    error = sys.exc_info()[1]
    if isinstance(error, Died):
        raise error


def demand(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise Violation(otherwise)


def replay_command(seed: int, mutant: str | None = None) -> str:
    return f"PYTHONPATH=src python3 -m tests.sim.streams --seed {seed} --schedules 1" + (f" --mutant {mutant}" if mutant else "")
