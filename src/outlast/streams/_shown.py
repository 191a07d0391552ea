"""A store of streams, as it shows itself through the port of `outlast.extend`."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from outlast.extend import Act, Figure, Lag, SystemHealth, Unit
from outlast.streams._errors import StreamNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast.streams._commit import Committer
    from outlast.streams._consumers import ConsumerCounts
    from outlast.streams._held import Followers
    from outlast.streams._volume import Volume


OF_CONSUMERS: Final = (
    ("consumer_lag_records", "Records that consumers have not acknowledged.", Figure.gauge, attrgetter("lag")),
    ("consumer_set_aside", "Records that consumers have set aside.", Figure.gauge, attrgetter("set_aside")),
    ("consumer_delivered", "Deliveries to consumers.", Figure.counter, attrgetter("delivered")),
    ("consumer_acknowledged", "Records that consumers have acknowledged.", Figure.counter, attrgetter("acknowledged")),
)
"""Figures of the consumers that are in use."""


class ShownStreams:
    """Figures by volume, so there are few however many streams there are. Read from other threads: numbers, and copies."""

    system = "streams"

    def __init__(self, name: str, volumes: Sequence[Volume], followers: Followers) -> None:
        self.name = name
        self._volumes = volumes
        self._followers = followers

    def figures(self) -> list[Figure]:
        """Return its figures."""
        at = ("volume",)
        return [
            Figure.counter("appended_records", "Records that were stored.", self._by(_records), labels=at),
            Figure.counter("appended", "Bytes of them, framing included.", self._by(_bytes), labels=at, unit=Unit.BYTES),
            Figure.counter("appends", "Appends by their outcome.", self._outcomes(), labels=("volume", "outcome")),
            Figure.counter("frames", "Frames that were written: appends of one stream at a time.", self._by(_frames), labels=at),
            Figure.counter("syncs", "Syncs of what was appended.", self._by(_syncs), labels=at),
            Figure.counter(
                "retained_away", "Bytes that retention let go of.", self._dropped(), labels=("volume", "reason"), unit=Unit.BYTES
            ),
            Figure.gauge("backlog_appends", "Appends that wait, or are on their way to the disk.", self._by(_waiting), labels=at),
            Figure.gauge("backlog", "Bytes of them.", self._by(_waiting_bytes), labels=at, unit=Unit.BYTES),
            Figure.gauge("streams", "Streams that are there.", self._each(lambda volume: len(volume.streams)), labels=at),
            Figure.gauge("unknown_folders", "Folders of which no stream is known.", self._each(_unknown), labels=at),
            *(
                kind(name, text, self._each(partial(_of_consumers, which=which)), labels=at)
                for name, text, kind, which in OF_CONSUMERS
            ),
            Figure.gauge("followers", "Readers that wait at the tail of a stream.", self._followers.count),
        ]

    def health(self) -> SystemHealth:
        """Return how it is: that of the first disk that is down."""
        down = SystemHealth.waiting_for(*(volume.disk for volume in self._volumes))
        return down or SystemHealth(True, "open" if any(volume.is_open for volume in self._volumes) else "closed")

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> list[Act]:
        """Return what an operator may have it do."""
        text = "Lets go at once of the segments that the retention of their streams gives up."
        return [Act("apply retention", text, self._retain, destructive=True)]

    async def _retain(self) -> int:
        before = self._segments()
        await asyncio.gather(*(volume.upkeep.retain() for volume in self._volumes))
        return self._segments() - before

    def _segments(self) -> int:
        return sum(volume.upkeep.dropped_segments for volume in self._volumes)

    def _each(self, value: Callable[[Volume], float]) -> dict[str, float]:
        return {volume.disk.name: value(volume) for volume in self._volumes}

    def _by(self, value: Callable[[Committer], float]) -> dict[str, float]:
        return self._each(lambda volume: value(volume.committer))

    def _outcomes(self) -> dict[tuple[str, ...], float]:
        return {
            (volume.disk.name, outcome): count
            for volume in self._volumes
            for outcome, count in volume.committer.counts.outcomes().items()
        }

    def _dropped(self) -> dict[tuple[str, ...], float]:
        return {
            (volume.disk.name, reason): size
            for volume in self._volumes
            for reason, size in dict(volume.upkeep.dropped_bytes).items()
        }


def _records(committer: Committer) -> float:
    return committer.counts.records


def _bytes(committer: Committer) -> float:
    return committer.counts.bytes


def _frames(committer: Committer) -> float:
    return committer.counts.frames


def _syncs(committer: Committer) -> float:
    return committer.counts.syncs


def _waiting(committer: Committer) -> float:
    return committer.queue.waiting


def _waiting_bytes(committer: Committer) -> float:
    return committer.queue.size_bytes


def _unknown(volume: Volume) -> float:
    return len(volume.found.unknown)


def _of_consumers(volume: Volume, which: Callable[[ConsumerCounts], int]) -> float:
    total = 0
    for held in list(volume.streams.values()):
        # One that is deleted meanwhile has none.
        with contextlib.suppress(StreamNotFoundError):
            total += which(held.consumers.counts) if held.consumers.names else 0
    return total
