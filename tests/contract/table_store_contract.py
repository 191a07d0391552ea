"""What every store of tables promises: one suite, and a rig for each store (`table_store_rig.TableStoreRig`).

A store takes part by a class beside its rig:

    class TestMyStore(TableStoreContract):
        @pytest.fixture
        def rig(self) -> TableStoreRig: ...

One that many processes share takes part in `table_store_processes.ProcessContract` too.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from table_store_reads import ReadContract
from table_store_rig import BOOLEAN, FLOAT, INTEGER, NUMBER, STRING, TableStoreRig, group, read, series_of, types
from table_store_shapes import ShapeContract
from table_store_writes import WriteContract

from outlast.tables import FieldType, Range, TableRecord

if TYPE_CHECKING:
    from table_store_rig import Read

    from outlast.tables._model import Tags
    from outlast.tables._stores.port import TableRows, TableStore

FIELDS_MAX, VALUES_MAX, TIMES = 5, 4, 6


class TableStoreContract(ShapeContract, WriteContract, ReadContract):
    """The promises of every store. A subclass has the fixture `rig`."""

    walks, steps = 3, 120
    """Random walks: a store of processes may have fewer and shorter ones."""

    def test_it_holds_what_a_plain_dictionary_holds(self, rig: TableStoreRig) -> None:
        """Walk at random on two stores of the same tables; plain dictionaries walk along, and must hold the same."""

        async def main() -> None:
            for seed in range(self.walks):
                async with rig.opened() as store, rig.opened() as other:
                    walk = Walk([store, other], random.Random(seed), f"{seed} ")
                    for _ in range(self.steps):
                        await walk.step()
                    for name in walk.names:
                        await walk.compare(name)

        rig.run(main)


@dataclass(slots=True)
class Held:
    """A table in plain dictionaries."""

    id: int
    types: dict[str, FieldType]
    series: dict[Tags, int] = field(default_factory=dict)
    points: dict[Tags, dict[int, dict[str, Any]]] = field(default_factory=dict)

    def values(self, tag: str) -> set[str]:
        return {value for of in self.series for name, value in of if name == tag}


@dataclass(slots=True)
class Walk:
    """A random walk. Its writers go by what they knew of a table last, which may be old."""

    stores: list[TableStore]
    rng: random.Random
    prefix: str
    held: dict[str, Held] = field(default_factory=dict)
    known: dict[str, TableRecord] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [self.prefix + name for name in ("a", "A", "a" * 70, "b")]

    async def step(self) -> None:
        steps = {self.shape: 3, self.write: 9, self.expire: 2, self.drop: 1, self.look: 1}
        [step] = self.rng.choices(list(steps), list(steps.values()))
        name = self.rng.choice(self.names)
        await step(self.rng.choice(self.stores), name)
        if self.rng.random() < 0.3:
            await self.compare(name)

    def _tags(self) -> Tags:
        return tuple((tag, self.rng.choice("pqrst")) for tag in "xyz" if self.rng.random() < 0.5)

    def _ask(self, name: str) -> Range:
        chosen = {tag: tuple(self.rng.sample("pqrst", self.rng.randrange(4))) for tag in "xyz" if self.rng.random() < 0.3}
        fields = tuple(self.rng.sample("abcdefg", self.rng.choice([0, 0, 1, 2])))
        return Range(name, fields, chosen, self.rng.choice([-9, 0, 2]), self.rng.choice([2, 4, 99]))

    async def shape(self, store: TableStore, name: str) -> None:
        wanted = {field: self.rng.choice(list(FieldType)) for field in self.rng.sample("abcdefg", 2)}
        record = self.known[name] = await store.shape(name, wanted, fields_max=FIELDS_MAX)
        held = self.held.setdefault(name, Held(record.id, {}))
        for one, kind in wanted.items():
            if one not in held.types and len(held.types) < FIELDS_MAX:
                held.types[one] = kind
            elif one in held.types and held.types[one] is not kind and {held.types[one], kind} <= {INTEGER, FLOAT, NUMBER}:
                held.types[one] = NUMBER
        assert (record.id, types(record)) == (held.id, held.types)

    async def look(self, store: TableStore, name: str) -> None:
        record = await store.table(name)
        held = self.held.get(name)
        assert (record and (record.id, types(record))) == (held and (held.id, held.types))
        if record is not None:
            self.known[name] = record

    async def write(self, store: TableStore, name: str) -> None:
        chosen = [name, self.rng.choice(self.names)]
        groups = [made for one in chosen if (made := await self._group(store, one))]
        wrote = await store.write([rows for _, rows, _ in groups])
        assert not wrote.refused
        for number, (held, rows, of) in enumerate(groups):
            believed = types(rows.table)
            is_old = rows.table.id != held.id or any(held.types.get(one) is not believed[one] for one in rows.fields)
            assert (number in wrote.stale) == is_old
            for row, tags in zip(rows.rows if not is_old else (), of, strict=False):
                point = held.points.setdefault(tags, {}).setdefault(row[1], {})
                point.update(zip(rows.fields, row[2:], strict=True))

    async def _group(self, store: TableStore, name: str) -> tuple[Held, TableRows, list[Tags]] | None:
        held, record = self.held.get(name), self.known.get(name)
        if held is None or record is None or not record.fields:
            return None
        of = list({self._tags() for _ in range(3)})
        if record.id == held.id:
            of = await self._series(store, held, record, of)
        fields = self.rng.sample(list(types(record)), self.rng.randint(1, min(2, len(record.fields))))
        keys = {(tags, self.rng.randrange(TIMES)) for tags in of for _ in range(2)}
        rows = [[held.series.get(tags, 1), time, *(self._value(types(record)[one]) for one in fields)] for tags, time in keys]
        return held, group(record, fields, *rows), [tags for tags, _ in keys]

    async def _series(self, store: TableStore, held: Held, record: TableRecord, of: list[Tags]) -> list[Tags]:
        found = await store.series(record, of, tag_values_max=VALUES_MAX)
        for place, tags in enumerate(of):
            full = [tag for tag, value in tags if value not in held.values(tag) and len(held.values(tag)) >= VALUES_MAX]
            assert (place in found.full) == bool(full)
            if full:
                assert (found.ids[place], found.full[place] in full) == (0, True)
            else:
                assert held.series.setdefault(tags, found.ids[place]) == found.ids[place]
        return [tags for place, tags in enumerate(of) if place not in found.full]

    def _value(self, kind: FieldType) -> Any:
        values: dict[FieldType, list[Any]] = {
            INTEGER: [0, 2**63 - 1, 2**53 + 1],
            FLOAT: [0.5, 3, -1e300],
            NUMBER: [1, 2**53 + 1, 0.25],
            STRING: ["", "1", "ä"],
            BOOLEAN: [True, False],
        }
        return self.rng.choice(values[kind])

    async def expire(self, store: TableStore, name: str) -> None:
        before, count = self.rng.randrange(TIMES), self.rng.choice([1, 2, 100])
        while deleted := await store.expire(name, before, count):
            assert deleted <= count
        for points in self.held[name].points.values() if name in self.held else ():
            for time in [time for time in points if time < before]:
                del points[time]

    async def drop(self, store: TableStore, name: str) -> None:
        assert await store.drop(name) == (name in self.held)
        self.held.pop(name, None)

    async def compare(self, name: str) -> None:
        store, ask = self.rng.choice(self.stores), self._ask(name)
        held = self.held.get(name) or Held(0, {})
        ordered = sorted(held.series, key=held.series.__getitem__)
        chosen = [of for of in ordered if _is_asked(dict(of), ask)]
        assert [of for _, of in await series_of(store, ask, page=self.rng.choice([1, 2, 50]))] == chosen
        assert _plain(await read(store, ask, page=self.rng.choice([1, 3, 50]))) == _plain(
            [
                (dict(of), time, fields)
                for of in chosen
                for time in sorted(held.points.get(of, {}))
                if ask.start_ns <= time <= ask.end_ns
                for fields in [{one: value for one, value in held.points[of][time].items() if one in (ask.fields or "abcdefg")}]
                if fields
            ]
        )
        newest = [(held.series[of], max(held.points[of])) for of in chosen if held.points.get(of)]
        assert [(row[0], row[2]) for row in await store.newest(name, ask.tags, 3)] == newest[:3]
        assert await store.tag_names(name) == sorted({tag for of in held.series for tag, _ in of})
        assert await store.tag_values("x", table=name) == sorted(held.values("x"))
        counts = await store.counts(name)
        if counts is not None:
            assert counts.series == len(held.series)
            assert counts.points == sum(map(len, held.points.values()))


def _is_asked(has: dict[str, str], ask: Range) -> bool:
    return all(tag in has and (not values or has[tag] in values) for tag, values in ask.tags.items())


def _plain(points: list[Read]) -> list[Any]:
    """Make booleans another thing than the numbers that they are equal to; the order of fields does not matter."""
    return [(of, time, {one: (isinstance(value, bool), value) for one, value in fields.items()}) for of, time, fields in points]
