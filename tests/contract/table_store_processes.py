"""What every store of tables promises to many processes, and to one that is killed."""

from __future__ import annotations

import abc
import contextlib
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from table_store_process import BATCH, FIELDS
from table_store_rig import TableStoreRig, read, types

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).parent / "table_store_process.py"


class ProcessRig(TableStoreRig):
    """Tables that other processes come to."""

    place: str
    """Where the tables lie, for a process of its own: the path of a file, or a DSN."""

    @abc.abstractmethod
    def check(self) -> None:
        """Fail if the catalogue and the tables of points do not agree. Nothing else may be at work."""


@contextlib.contextmanager
def process(rig: ProcessRig, task: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process on the tables of a rig, and kill it in the end."""
    command = [sys.executable, str(PROGRAM), rig.place, task]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert line(running) == "ready"
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().removesuffix("\n")


class ProcessContract:
    """A subclass has the fixture `rig`."""

    kills = 2
    racers, races = 3, 4

    def test_many_processes_make_the_same_tables_and_fields_at_once(self, rig: ProcessRig) -> None:
        async def look() -> None:
            async with rig.opened() as store:
                for number in range(self.races):
                    record = await store.table(f"t{number}")
                    assert record is not None
                    assert set(types(record)) == {"n", *(f"f{field}" for field in range(FIELDS))}
                    points = await read(store, f"t{number}")
                    assert Counter(has["pid"] == "all" for has, _, _ in points) == {True: self.racers, False: self.racers}

        with contextlib.ExitStack() as stack:
            racers = [stack.enter_context(process(rig, "race")) for _ in range(self.racers)]
            for number in range(self.races):
                for racer in racers:
                    assert racer.stdin is not None
                    racer.stdin.write(f"{number}\n")
                    racer.stdin.flush()
                assert [line(racer) for racer in racers] == ["made"] * self.racers
        rig.run(look)

    def test_what_was_acknowledged_is_there_once_after_kill_9(self, rig: ProcessRig) -> None:
        rng = random.Random(15)
        told: dict[str, set[int]] = {}

        async def look() -> None:
            async with rig.opened() as store:
                await store.drop("short-lived")
                assert {record.name for record in await store.tables()} >= set(told)
                for name, numbers in told.items():
                    found = Counter(fields["batch"] for _, _, fields in await read(store, name))
                    assert set(found) >= numbers
                    assert set(found.values()) == {BATCH}, "each batch is whole, and there once"

        for _ in range(self.kills):
            with process(rig, "write") as writer:
                lines = [line(writer) for _ in range(rng.randint(1, 40))]
                writer.kill()
                assert writer.stdout is not None
                lines += [last.removesuffix("\n") for last in writer.stdout if last.endswith("\n")]
            for name, number in (one.split("\t") for one in lines):
                told.setdefault(name, set()).add(int(number))
            rig.run(look)
            rig.check()
