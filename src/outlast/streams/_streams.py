"""A store of streams, on one disk or several."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlast import ConfigurationError, Phase, Stop, Stopping
from outlast.disk import Disk
from outlast.extend import LOCAL_FILES
from outlast.streams._clock import Clock
from outlast.streams._commit import BACKLOG_BYTES, BACKLOG_MAX
from outlast.streams._entries import check_labels, check_name, entry_of
from outlast.streams._errors import LimitError, StreamExistsError, StreamNotFoundError
from outlast.streams._format.meta import Meta
from outlast.streams._held import FOLLOWERS_MAX, Followers, Held, check_quota
from outlast.streams._model import NUMBER_MAX, Listed, StreamOptions
from outlast.streams._shown import ShownStreams
from outlast.streams._stream import Stream
from outlast.streams._volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from outlast import Admission, Service
    from outlast.extend import FileSystem
    from outlast.streams._model import Entry

Place: TypeAlias = "str | os.PathLike[str] | Disk"

STREAMS_MAX: Final = 100_000
STOPPED: Final = "the store of the streams is closed"
BUG_S: Final = 60.0
"""Between two attempts at upkeep that met a bug, where no service supervises it."""
logger = logging.getLogger("outlast.streams")


class Streams:
    """Durable streams of records, in one folder on each of its volumes.

        streams = Streams("/var/lib/shop")
        streams.attach(service)                     # a script: async with streams: ...

        orders = await streams.create("orders", exist_ok=True)
        await orders.append(b"one")

    What is acknowledged is never lost, and what is refused never appears later, whatever the disk does. One process holds a
    folder at a time. A stream lives on one volume; when that is full or lost, the streams of the others go on. A `Disk` that is
    given is opened and closed by this store, or by the service. On the event loop's thread only.
    """

    def __init__(
        self,
        volumes: Place | Sequence[Place],
        *,
        name: str = "streams",
        admission: Admission | None = None,
        backlog_max: int = BACKLOG_MAX,
        backlog_bytes: int = BACKLOG_BYTES,
        followers_max: int = FOLLOWERS_MAX,
        streams_max: int = STREAMS_MAX,
        files: FileSystem = LOCAL_FILES,
    ) -> None:
        """Do nothing yet. Raises `ValueError`.

        `backlog_max` and `backlog_bytes` bound the appends that wait on one volume, and half of each those of one stream, which
        always has room for one. `followers_max` bounds those who wait at the tail of a stream; `streams_max`, the streams. With
        an `admission` each append comes in by it: the key is the stream's name, the cost the number of its records. `files` is
        the file system of those disks that are given as paths.
        """
        for what, value in (
            ("backlog_max", backlog_max),
            ("backlog_bytes", backlog_bytes),
            ("followers_max", followers_max),
            ("streams_max", streams_max),
        ):
            if value < 1:
                raise ValueError(f"streams {name}: {what} is at least 1, not {value}")
        places = [volumes] if isinstance(volumes, str | os.PathLike | Disk) else list(volumes)
        if not places:
            raise ValueError(f"streams {name}: a store has at least one volume: the path of a folder, or a Disk")
        self.name = name
        self.streams_max = streams_max
        self._admission = admission
        self._followers = Followers(name, followers_max)
        self._clock = Clock(time.time)
        disks = [place if isinstance(place, Disk) else Disk(place, files=files) for place in places]
        if len({disk.name for disk in disks}) < len(disks):
            raise ValueError(f"streams {name}: two volumes are called {disks[0].name!r}; give each Disk a name of its own")
        self._volumes = {disk.name: Volume(disk, self._followers, self._clock, backlog_max, backlog_bytes) for disk in disks}
        self.shown: Final = ShownStreams(name, list(self._volumes.values()), self._followers)
        """Its figures, health and acts, for `service.show`."""
        self._is_open = False
        self._upkeep: list[asyncio.Task[None]] = []
        self._making: dict[str, asyncio.Task[Held]] = {}

    def __repr__(self) -> str:
        return f"<Streams {self.name}, {len(self.names()) if self._is_open else 'not open'}>"

    @property
    def disks(self) -> list[Disk]:
        """The disks of its volumes."""
        return [volume.disk for volume in self._volumes.values()]

    # Its life.

    def attach(self, service: Service) -> None:
        """Belong to a service: opened before its loops start; closed after they have ended, with all that waits made durable.

        From the step that fires the stop on, readers that wait at a tail get `Stopping`; appends do so after the drain.
        """
        for disk in self.disks:
            disk.attach(service)
        service.on_start(self._open)
        service.on_stop(self._let_followers_go, phase=Phase.REFUSE)
        service.on_stop(self._flush)
        service.on_stop(self._close, phase=Phase.CLOSE)
        for volume in self._volumes.values():
            service.loop(name=f"streams upkeep of {volume.disk.name}")(volume.upkeep.turn)
        service.show(self.shown)

    async def __aenter__(self) -> Self:
        """Open it, for a script. Raises `ConfigurationError`."""
        self._check_is_closed()
        for disk in self.disks:
            await disk.open()
        try:
            await self._open()
        except BaseException:
            await self._close_disks()
            raise
        self._upkeep = [
            asyncio.create_task(_keep(volume), name=f"outlast {volume.disk.name}") for volume in self._volumes.values()
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Make durable what is not, and close it."""
        for task in self._upkeep:
            task.cancel()
        await asyncio.wait(self._upkeep)
        try:
            await self._let_followers_go()
            await self._flush()
        finally:
            await self._close()
            await self._close_disks()

    async def _open(self) -> None:
        self._check_is_closed()
        self._clock.begin(asyncio.get_running_loop().time)
        opened: list[Volume] = []
        try:
            for volume in self._volumes.values():
                await volume.open()
                opened.append(volume)
        except BaseException:
            for volume in opened:
                await volume.close(STOPPED)
            raise
        self._followers.ending = None
        self._is_open = True

    async def _let_followers_go(self) -> None:
        self._followers.ending = lambda: Stopping(STOPPED)
        for volume in self._volumes.values():
            for held in volume.streams.values():
                held.changed()

    async def _flush(self) -> None:
        await asyncio.gather(*(volume.flush() for volume in self._volumes.values()))

    async def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            await asyncio.gather(*(volume.close(STOPPED) for volume in self._volumes.values()))

    async def _close_disks(self) -> None:
        for disk in reversed(self.disks):
            await disk.close()

    # Streams.

    def names(self) -> list[str]:
        """Return the names of all streams, in their order."""
        self._check_is_open()
        return sorted(name for volume in self._volumes.values() for name, held in volume.streams.items() if not held.gone)

    def listed(self) -> list[Listed]:
        """Return what is known of all streams without reading one, in the order of their names."""
        self._check_is_open()
        every = [held for volume in self._volumes.values() for held in volume.streams.values() if not held.gone]
        every.sort(key=lambda held: held.name)
        return [Listed(held.name, f"{held.id:016x}", held.created_us / 1e6, dict(held.labels)) for held in every]

    async def create(
        self,
        name: str,
        options: StreamOptions | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        records: Sequence[bytes] = (),
        closed: bool = False,
        start: int = 0,
        volume: str | None = None,
        exist_ok: bool = False,
    ) -> Stream:
        """Make a stream, durably, and return it.

        `labels` are texts for whoever serves it, at most 1 KiB as JSON. `records` are its first ones, and `closed` says that
        there will be no others: after a crash there is the stream with all of that, or none. `start` is the position of its
        first record. `volume` is the name of the disk that it is to live on; without, it is the one with the most room. With
        `exist_ok` a stream that is there already is returned as it is, if its options are the same.

        Raises `ValueError` (the name has 1 to 1024 bytes of UTF-8 and no control characters), `StreamExistsError`, `LimitError`,
        `AppendTooLargeError`, `Unavailable`. Cancelled, it may be made all the same.
        """
        check_name(name)
        options = options or StreamOptions()
        if not 0 <= start <= NUMBER_MAX:
            raise ValueError(f"stream {name!r} is to begin at a position from 0 to {NUMBER_MAX}, not {start}")
        first, size = entry_of(name, records) if records else (None, 0)
        meta = Meta(0, name, 0, options, oldest=start, is_closed=closed, labels=check_labels(name, labels or {}))
        if volume is not None and volume not in self._volumes:
            raise ValueError(f"streams {self.name}: there is no volume {volume!r}, only {', '.join(self._volumes)}")
        check_quota(name, options, size)
        if self._admission is not None and first is not None:
            async with self._admission.enter(key=name, cost=len(first.records), size_bytes=size):
                held = await self._made(meta, first, volume, exist_ok=exist_ok)
        else:
            held = await self._made(meta, first, volume, exist_ok=exist_ok)
        return Stream(held, self._admission)

    async def _made(self, meta: Meta, first: Entry | None, volume: str | None, *, exist_ok: bool) -> Held:
        name = meta.name
        while (busy := self._busy(name)) is not None:
            await asyncio.wait({busy})
        held = self._find(name)
        if held is None:
            return await self._make(meta, first, self._volume_for(name, volume))
        if not exist_ok:
            raise StreamExistsError(name, "there is one already; open it, or choose another name")
        if held.options != meta.options:
            raise StreamExistsError(name, f"there is one already, with other options: {held.options}, not {meta.options}")
        return await held.volume.recovered(held)

    def labels(self, name: str) -> Mapping[str, str] | None:
        """Return the labels of a stream, also of one that was not used since the start; None: there is no such stream."""
        held = self._find(name)
        return None if held is None or held.gone else dict(held.labels)

    def find(self, name: str) -> Stream | None:
        """Return the stream of that name if there is one that has been used since the start: at once, and `open` knows of all."""
        held = self._find(name)
        return None if held is None or held.gone or held.known_log is None else Stream(held, self._admission)

    async def open(self, name: str) -> Stream:
        """Return the stream of that name; it is recovered if that was not done yet.

        Raises `StreamNotFoundError`, `DamagedError`, `outlast.extend.NewerFormatError`, `Unavailable`.
        """
        held = self._find(name)
        if held is None or held.gone:
            raise StreamNotFoundError(name, f"there is no such stream among the {len(self.names())} of {self.name}")
        return Stream(await held.volume.recovered(held), self._admission)

    async def delete(self, name: str) -> None:
        """Delete a stream, durably. It works on a full disk. Raises `StreamNotFoundError` and `Unavailable`.

        From this step on it is gone for whoever has it in hand. Cancelled, it may be deleted all the same.
        """
        stream = await self.open(name)
        await stream.delete()

    def _busy(self, name: str) -> asyncio.Task[Any] | None:
        """Return what is under way with the stream of that name: it is being made, or deleted."""
        held = self._find(name)
        return self._making.get(name) if held is None else held.deleting

    def _find(self, name: str) -> Held | None:
        self._check_is_open()
        for volume in self._volumes.values():
            if (held := volume.streams.get(name)) is not None:
                return held
        return None

    def _check_is_closed(self) -> None:
        if self._is_open:
            raise ConfigurationError(f"streams {self.name}: open already; attach it to one service, or enter it once")

    def _check_is_open(self) -> None:
        if not self._is_open:
            raise RuntimeError(f"streams {self.name} is not open: attach it to a service, or use `async with`")

    def _volume_for(self, name: str, volume: str | None) -> Volume:
        count = sum(len(each.streams) for each in self._volumes.values())
        if count >= self.streams_max:
            raise LimitError(
                name, f"there are {count} streams already (limit {self.streams_max}); delete some, or raise streams_max"
            )
        if volume is not None:
            return self._volumes[volume]
        return max(self._volumes.values(), key=lambda each: (each.disk.passable, each.disk.room.available_bytes or 0))

    async def _make(self, meta: Meta, first: Entry | None, volume: Volume) -> Held:
        name = meta.name
        making = self._making[name] = asyncio.get_running_loop().create_task(volume.create(meta, first))
        making.add_done_callback(lambda _: self._making.pop(name, None))
        return await asyncio.shield(making)


async def _keep(volume: Volume) -> None:
    """Do the upkeep of a volume until cancelled, where there is no service that does."""
    stop = Stop()
    while True:
        try:
            await volume.upkeep.turn(stop)
        except Exception:
            logger.exception("streams: the upkeep of %s met a bug", volume.disk.name)
            await asyncio.sleep(BUG_S)
