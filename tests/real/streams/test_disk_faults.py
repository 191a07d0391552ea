"""Each error that a disk can give, given for real: to one of two volumes, while clients append to both."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_disks import MIB, NOTHING_WRONG, SMALL, all_go_on, compared, running, small_disk, until
from streams_ledger import Attempt, Client, Ledger, name_of

from outlast import Kind, Unavailable
from outlast.disk import Disk
from outlast.streams import ExpiredError, OutcomeUnknownError, Streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from outlast.testing import SmallDisk

pytestmark = pytest.mark.expected_logs(r"disk .*(is down|unavailable|ended|lost|not used)", r"^\w+ outlast.*(disk|stream)")


@contextlib.contextmanager
def limit(which: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let the process have not one more descriptor."""
    held: list[int] = []
    with limit(resource.RLIMIT_NOFILE, max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 8):
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            yield
        finally:
            for descriptor in held:
                os.close(descriptor)


@contextlib.contextmanager
def ordered(disk: SmallDisk, *calls: str, number: int) -> Iterator[None]:
    for call in calls:
        disk.fail(call, number)  # type: ignore[arg-type]
    yield
    disk.heal()


@contextlib.contextmanager
def in_a_quota(disk: SmallDisk) -> Iterator[None]:
    disk.quota(24 * MIB - disk.available_bytes)
    disk.statvfs(available=100 << 30)
    yield
    disk.heal()


@contextlib.contextmanager
def read_only(disk: SmallDisk) -> Iterator[None]:
    disk.read_only()
    yield
    disk.heal()


Fault = "Callable[[SmallDisk], contextlib.AbstractContextManager[None]]"
PASSING: dict[str, Fault] = {
    "ENOSPC": lambda disk: ordered(disk, "write", "allocate", number=errno.ENOSPC),
    "EDQUOT": in_a_quota,
    "EFBIG": lambda disk: limit(resource.RLIMIT_FSIZE, 65_536),
}
LASTING: dict[str, Fault] = {
    "EIO": lambda disk: ordered(disk, "write", number=errno.EIO),
    "EIO of a sync": lambda disk: ordered(disk, "fsync", number=errno.EIO),
    "EROFS": read_only,
}


@dataclass
class Two:
    """A store on a disk that fails and on one that is well, with clients on both."""

    streams: Streams
    ailing: list[Client]
    well: list[Client]
    ledger: Ledger

    @property
    def guard(self) -> Disk:
        return next(disk for disk in self.streams.disks if disk.name == "ailing")

    async def is_refused(self) -> None:
        """Wait until each client of the disk that fails was refused since now."""
        before = [len(each.took_s) for each in self.ailing]
        await until(lambda: all(len(each.took_s) > count for each, count in zip(self.ailing, before, strict=True)))


@contextlib.asynccontextmanager
async def two(disk: SmallDisk, well: Path) -> AsyncIterator[Two]:
    ledger = Ledger()
    async with Streams([Disk(disk.path, name="ailing"), Disk(well, name="well")]) as streams:
        clients = [
            Client(f"{volume} {number}", await streams.create(f"{volume} {number}", SMALL, volume=volume), ledger, size=4096)
            for volume in ("ailing", "well")
            for number in range(2)
        ]
        found = Two(streams, clients[:2], clients[2:], ledger)
        async with running(clients):
            await all_go_on(clients)
            yield found


@pytest.mark.parametrize("name", PASSING)
def test_a_disk_without_room_refuses_by_its_error_and_goes_on_by_itself(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with two(disk, tmp_path) as both:
            with PASSING[name](disk):
                await both.is_refused()
                fault = both.guard.fault
                assert fault is not None
                assert (fault.kind, fault.code) == (Kind.EXHAUSTED, name)
                if name != "EFBIG":  # A limit of the process is met by all its files.
                    await all_go_on(both.well)
                assert [record async for record in both.ailing[0].stream.read()], "it is read all the while"
                await both.is_refused()
            await all_go_on([*both.ailing, *both.well])
        assert {error for error in both.ledger.errors if "well" in error} == set()
        assert await compared(disk.path, only(both.ledger, "ailing")) == NOTHING_WRONG
        assert await compared(tmp_path, only(both.ledger, "well")) == NOTHING_WRONG

    with small_disk(32 * MIB, "faulty") as disk:
        asyncio.run(main())


def only(ledger: Ledger, volume: str) -> Ledger:
    """Return the accounts of one volume's clients."""
    return Ledger(
        {attempt: at for attempt, at in ledger.acknowledged.items() if attempt.producer.startswith(volume)},
        {attempt for attempt in ledger.refused if attempt.producer.startswith(volume)},
    )


@pytest.mark.parametrize("name", LASTING)
def test_a_disk_that_fails_is_used_no_more_and_the_other_one_goes_on(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with two(disk, tmp_path) as both:
            with LASTING[name](disk):
                await both.is_refused()
                await all_go_on(both.well)
                assert [record async for record in both.ailing[0].stream.read()], "it can still be read"
            # It may have lost what it held in memory: that it answers again proves nothing.
            await both.is_refused()
            fault = both.guard.fault
            assert fault is not None
            assert (fault.kind, fault.code) == (Kind.FATAL, name.partition(" ")[0])
            await all_go_on(both.well)
            stored = [each.sequence for each in both.ailing]
            await both.is_refused()
            assert [each.sequence for each in both.ailing] == stored
        assert await compared(disk.path, only(both.ledger, "ailing")) == NOTHING_WRONG
        assert await compared(tmp_path, only(both.ledger, "well")) == NOTHING_WRONG

    with small_disk(32 * MIB, "faulty") as disk:
        asyncio.run(main())
        assert len([record for record in caplog.records if record.levelname == "CRITICAL"]) == 1
        # The next start uses it again.
        assert asyncio.run(goes_on(disk.path))


async def goes_on(path: Path) -> bool:
    ledger = Ledger()
    async with Streams(path) as streams:
        client = Client("after", await streams.open(streams.names()[0]), ledger)
        async with running([client]):
            await all_go_on([client])
    return not ledger.errors


def test_a_process_without_descriptors_loses_nothing_and_goes_on_when_it_has_some() -> None:
    async def main() -> None:
        ledger = Ledger()
        async with Streams(disk.path) as streams:
            for number in range(40):
                await (await streams.create(f"s{number}")).append(Attempt("first", number, 0).payload(64))
                ledger.answered(Attempt("first", number, 0), 0)
        async with Streams(disk.path) as streams:
            opened = [await streams.open(name) for name in streams.names()]
            clients = [Client(stream.name, stream, ledger, size=64) for stream in opened]
            # None has its file open by now.
            with no_descriptors():
                async with running(clients):
                    await until(lambda: all(each.sequence or each.took_s for each in clients))
            assert ledger.refused
            assert set(ledger.errors) == {"Unavailable EMFILE"}
            assert streams.disks[0].passable, "it is not the disk's fault"
            async with running(clients):
                await all_go_on(clients)
        assert await compared(disk.path, ledger) == NOTHING_WRONG

    with small_disk(32 * MIB, "tmpfs") as disk:
        asyncio.run(main())


@pytest.mark.parametrize(
    ("appends", "deadline_s", "hang_s"), [(2000, 1.0, 3.0), pytest.param(50_000, 5.0, 30.0, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("call", ["fsync", "write"])
def test_appends_to_a_disk_that_hangs_expire_unprocessed_and_fresh_ones_are_stored_when_it_is_back(
    call: str, appends: int, deadline_s: float, hang_s: float, tmp_path: Path
) -> None:
    async def main() -> None:
        ledger = Ledger()
        streams = Streams([Disk(disk.path, name="ailing"), Disk(tmp_path, name="well")], backlog_max=2 * appends)
        async with streams:
            stream = await streams.create("ailing", SMALL, volume="ailing")
            other = Client("well", await streams.create("well", SMALL, volume="well"), ledger)
            await stream.append(Attempt("before", 0, 0).payload(64))
            disk.hang(call)  # type: ignore[arg-type]
            begun = asyncio.get_running_loop().time()

            async def append(attempt: Attempt) -> None:
                try:
                    answer = await stream.append(attempt.payload(64), deadline_s=deadline_s)
                except (ExpiredError, Unavailable) as exc:
                    ledger.errors[name_of(exc)] += 1
                    ledger.refused.add(attempt)
                except OutcomeUnknownError as exc:
                    ledger.errors[name_of(exc)] += 1
                    ledger.unknown.add(attempt)
                else:
                    ledger.answered(attempt, answer.first)

            async with running([other]):
                async with asyncio.TaskGroup() as group:
                    for number in range(appends):
                        group.create_task(append(Attempt("queued", number, 0)))
                        if number % 1000 == 0:
                            await asyncio.sleep(0)
                # All are answered while the disk hangs.
                assert not [attempt for attempt in ledger.acknowledged if attempt.producer == "queued"]
                assert ledger.errors["ExpiredError"] > 0, ledger.errors
                assert ledger.errors.keys() <= {"ExpiredError", "OutcomeUnknownError", "Unavailable hangs"}
                assert ledger.errors.total() == appends
                await asyncio.sleep(max(0.0, begun + hang_s - asyncio.get_running_loop().time()))
                await all_go_on([other])
                with pytest.raises(Unavailable):
                    await stream.append(b"refused at once")
                disk.heal()
                fresh = Client("fresh", stream, ledger)
                async with running([fresh]):
                    await all_go_on([fresh])
                assert next(each for each in streams.disks if each.name == "ailing").passable
        found = await compared(disk.path, only(ledger, "fresh"))
        assert found == NOTHING_WRONG
        assert await compared(disk.path, only(ledger, "queued")) == NOTHING_WRONG
        assert await compared(tmp_path, only(ledger, "well")) == NOTHING_WRONG

    with small_disk(128 * MIB, "faulty") as disk:
        try:
            asyncio.run(main())
        finally:
            disk.heal()
