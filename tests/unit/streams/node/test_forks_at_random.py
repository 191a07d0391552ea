"""Forks against a model: whatever is made, added to, trimmed, deleted and cut off, each shows what it is to show."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
from node_rig import JSON, TEXT, Rig, offset, serving
from store_parts import disk_in_memory

from outlast.testing import run_virtual

if TYPE_CHECKING:
    from fake_files import FakeFiles

NAMES = ("a", "b", "c", "d", "e")
STEPS = 60


@dataclass(eq=False)
class Known:
    """A stream as it must be."""

    is_json: bool
    source: Known | None = None
    start: int = 0
    own: list[bytes] = field(default_factory=list[bytes])
    trimmed: int = 0
    is_hidden: bool = False

    @property
    def tail(self) -> int:
        return self.start + len(self.own)

    @property
    def oldest(self) -> int:
        if self.source is None or self.trimmed > self.start:
            return max(self.start, self.trimmed)
        return min(self.start, self.source.oldest)

    def at(self, position: int) -> bytes:
        if position >= self.start:
            return self.own[position - self.start]
        assert self.source is not None
        return self.source.at(position)

    def shows(self) -> list[bytes]:
        return [self.at(position) for position in range(self.oldest, self.tail)]


class Walk:
    """One seed: requests at random, each compared with the model, and power cuts."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.files: FakeFiles = disk_in_memory(seed=seed)
        self.known: dict[str, Known] = {}
        self.count = 0
        self.happened: set[str] = set()

    async def run(self) -> None:
        left = STEPS
        while left:
            async with serving(self.files, chunk_bytes=self.rng.choice([1, 7, 1 << 20])) as rig:
                for _ in range(min(left, self.rng.choice([5, 20, 40]))):
                    left -= 1
                    await self.step(rig)
                await self.compare(rig)
            self.files.power_cut()

    async def step(self, rig: Rig) -> None:
        act = self.rng.choices([self.make, self.fork, self.append, self.delete, self.trim], [2, 5, 6, 2, 1])[0]
        await act(rig, self.rng.choice(NAMES))

    def records(self, *, is_json: bool) -> tuple[list[bytes], bytes]:
        self.count += 1
        if not is_json:
            record = b"<%d>" % self.count
            return [record], record
        records = [b"%d" % (100 * self.count + index) for index in range(self.rng.choice([1, 1, 3]))]
        return records, b"[" + b",".join(records) + b"]"

    async def make(self, rig: Rig, name: str) -> None:
        is_json = self.rng.random() < 0.5
        records, body = self.records(is_json=is_json)
        status = (await rig.ask("PUT", name, JSON if is_json else TEXT, body)).status
        known = self.known.get(name)
        if known is None:
            assert status == 201
            self.known[name] = Known(is_json, own=records)
        else:
            is_same = not known.is_hidden and known.source is None and known.is_json == is_json
            assert status == (200 if is_same else 409)

    async def fork(self, rig: Rig, name: str) -> None:
        of = self.rng.choice(NAMES)
        source = self.known.get(of)
        at = self.rng.randint(max(0, source.oldest - 1), source.tail + 1) if source else 0
        sub = self.rng.choice([0, 0, 1, 2, 9])
        headers = {"stream-forked-from": f"/v1/stream/{of}", "stream-fork-offset": offset(at), "stream-fork-sub-offset": str(sub)}
        is_there = name in self.known
        status = (await rig.ask("PUT", name, headers)).status
        if is_there:
            assert status in {200, 404, 409}
            return
        wanted = self.expect(source, at, sub)
        assert status == (wanted if isinstance(wanted, int) else 201), (status, wanted)
        if isinstance(wanted, Known):
            self.known[name] = wanted
            self.happened.add("fork of a fork" if wanted.source is not None and wanted.source.source else "fork")

    def expect(self, source: Known | None, at: int, sub: int) -> Known | int:  # noqa: PLR0911 - one of each
        if source is None:
            return 404
        if source.is_hidden:
            return 409
        if at < source.oldest:
            return 410
        if at > source.tail:
            return 400
        if source.is_json:
            return Known(True, source, at + sub) if at + sub <= source.tail else 400
        record = source.at(at) if at < source.tail else b""
        if sub > len(record):
            return 400
        return Known(False, source, at, [record[:sub]] if sub else [])

    async def append(self, rig: Rig, name: str) -> None:
        known = self.known.get(name)
        records, body = self.records(is_json=known is not None and known.is_json)
        status = (await rig.ask("POST", name, JSON if known and known.is_json else TEXT, body)).status
        assert status == self.status_of(known, 204)
        if status == 204 and known is not None:
            known.own += records

    async def delete(self, rig: Rig, name: str) -> None:
        known = self.known.get(name)
        status = (await rig.ask("DELETE", name)).status
        assert status == self.status_of(known, 204)
        if status != 204 or known is None:
            return
        if any(each.source is known for each in self.known.values()):
            known.is_hidden = True
            self.happened.add("hidden")
            return
        del self.known[name]
        while known.source is not None and known.source.is_hidden:
            known = known.source
            if any(each.source is known for each in self.known.values()):
                return
            self.known = {name: each for name, each in self.known.items() if each is not known}
            self.happened.add("cleaned up")

    async def trim(self, rig: Rig, name: str) -> None:
        known = self.known.get(name)
        if known is None or known.is_hidden:
            return
        before = self.rng.randint(known.start, known.tail)
        await (await rig.streams.open(name)).trim(before)
        known.trimmed = max(known.trimmed, before)

    def status_of(self, known: Known | None, otherwise: int) -> int:
        return 404 if known is None else 410 if known.is_hidden else otherwise

    async def compare(self, rig: Rig) -> None:
        assert rig.streams.names() == sorted(self.known)
        for name in NAMES:
            known = self.known.get(name)
            at, got, tail = "-1", b"", -1
            while True:
                answer = await rig.get(f"{name}?offset={at}")
                assert answer.status == self.status_of(known, 200)
                if answer.status != 200:
                    break
                at = answer.headers["stream-next-offset"]
                part = answer.body
                if known is not None and known.is_json:
                    part = part[1:-1]
                    part = b"," + part if part and got else part
                got += part
                if "stream-up-to-date" in answer.headers:
                    tail = int(at)
                    break
            if known is not None and not known.is_hidden:
                assert (got, tail) == ((b"," if known.is_json else b"").join(known.shows()), known.tail), name


def walk(seed: int) -> set[str]:
    one = Walk(seed)
    run_virtual(one.run())
    return one.happened


def test_forks_show_what_they_are_to_show() -> None:
    happened = set[str]()
    for seed in range(25):
        happened |= walk(seed)
    assert happened == {"fork", "fork of a fork", "hidden", "cleaned up"}


def test_requests_at_the_same_time_take_no_source_from_a_fork_and_leave_nothing_behind() -> None:
    async def main(rng: Random) -> None:
        async with serving() as rig:

            async def one() -> int:
                name, of = rng.sample(NAMES, 2)
                match rng.randrange(4):
                    case 0:
                        return (await rig.ask("PUT", name, TEXT, b"x")).status
                    case 1:
                        return (await rig.ask("DELETE", name)).status
                    case _:
                        return (await rig.ask("PUT", name, {"stream-forked-from": f"/v1/stream/{of}"}, b"y")).status

            for _ in range(8):
                statuses = await asyncio.gather(*(one() for _ in range(8)))
                assert set(statuses) <= {200, 201, 204, 404, 409, 410}
                for name in rig.streams.names():
                    served = await rig.node.served.get(name, 0.0)
                    assert served.oldest == 0, "what it has of its source can be read"
            while names := rig.streams.names():
                answers = [(await rig.ask("DELETE", name)).status for name in names]
                assert 204 in answers
            assert not rig.node.served.forks._names

    for seed in range(15):
        run_virtual(main(Random(seed)))


@pytest.mark.long
def test_forks_show_what_they_are_to_show_by_more_seeds() -> None:
    for seed in range(100, 1100):
        walk(seed)
