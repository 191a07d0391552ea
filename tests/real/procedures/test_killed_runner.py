"""kill -9 of a runner at every recorded step, on each store: each procedure ends once, as if it had never been interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).with_name("killed_runner.py")
AT_ONCE = 8
"""Runners that die beside each other: a PostgreSQL has some hundred places."""
CHANCES = {"done": (8, 9), "dead": tuple(range(1, 16))}
"""The chances of a runner to die in one procedure: after the effect of a step or an undo, and after each write.

Of one that is done there are nine: three steps; the writes that begin the sleep, step two, both waits, step three; and the end.
Of one that is dead the first seven are the same; then step three, the write that begins to go back, three undos, each with its
write.
"""
ALL_CHANCES = {"done": tuple(range(1, 16)), "dead": tuple(range(1, 25))}
"""And before each write."""
EFFECTS = {"done": ["one", "two", "three"], "dead": ["one", "two", "three", "three:undo", "two:undo", "one:undo"]}
LONG_ROUNDS = 100


class Runners:
    """The process whose children are the runners."""

    def __init__(self, process: subprocess.Popen[str], store: str, directory: Path) -> None:
        self.process = process
        self.store = store
        self.directory = directory
        self.log = directory / "log"
        self.started = 0

    def ask(self, what: str, **job: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({what: job}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.errors()
        found: dict[str, Any] = json.loads(answer)
        return found

    def start(self, kinds: dict[str, str], ids: list[str], die_at: int | None = None, *, every: bool = False) -> None:
        self.started += 1
        journal = str(self.directory / f"{self.started}.journal")
        job = {"store": self.store, "log": str(self.log), "journal": journal, "kinds": kinds, "until": ids}
        self.ask("start", **job, die_at=die_at, every=every)

    def join(self) -> list[int]:
        return list(self.ask("join")["codes"].values())

    def errors(self) -> str:
        return (self.directory / "stderr").read_text(encoding="utf-8")[-4_000:]

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()] if self.log.exists() else []


@pytest.fixture(params=["sqlite", "postgres", "etcd"])
def runners(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runners]:
    if request.param == "sqlite":
        store = f"sqlite:{tmp_path / 'work.db'}"
    elif request.param == "postgres":
        store = f"postgres:{request.getfixturevalue('database')}"
    else:
        store = f"etcd:{request.getfixturevalue('etcd').url}/{tmp_path.name}"
    with process(tmp_path) as started:
        yield Runners(started, store, tmp_path)


@contextmanager
def process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    errors = (directory / "stderr").open("w", encoding="utf-8")
    with (
        errors,
        subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as made,
    ):
        yield made
        assert made.stdin is not None
        made.stdin.close()


def killed_everywhere(runners: Runners, name: str, chances: dict[str, tuple[int, ...]], *, every: bool = False) -> None:
    """Kill a runner at each place, each in a procedure of its own; then two runners take all of them over."""
    plan = {f"{name}-{end}-{at}": (end, at) for end, places in chances.items() for at in places}
    ends = {kind: end for kind, (end, _) in plan.items()}
    ids = runners.ask("submit", store=runners.store, kinds=ends)["ids"]
    kinds = list(plan)
    for first in range(0, len(kinds), AT_ONCE):
        some = kinds[first : first + AT_ONCE]
        for kind in some:
            end, at = plan[kind]
            runners.start({kind: end}, [ids[kind]], at, every=every)
        assert runners.join() == [-9] * len(some), "a runner ended before its place to die: change CHANCES"
    for _ in range(2):
        runners.start(ends, list(ids.values()))
    assert runners.join() == [0, 0], runners.errors()
    records = runners.ask("look", store=runners.store, ids=list(ids.values()))["records"]
    ended_as_if_never_interrupted(dict(zip(ids, records, strict=True)), ends)
    happened_in_order(runners.entries(), {f"{kind}/key": (ids[kind], end) for kind, end in ends.items()})
    runners.log.unlink()


def ended_as_if_never_interrupted(records: dict[str, dict[str, Any]], ends: dict[str, str]) -> None:
    for kind, record in records.items():
        if ends[kind] == "done":
            assert (record["state"], record["result"]) == ("done", [7, 8, "went", "nobody came"]), kind
        else:
            assert (record["state"], record["fault"]) == ("dead", "bad"), kind


def happened_in_order(entries: list[dict[str, Any]], records: dict[str, tuple[str, str]]) -> None:
    """No two runners had one key at a time; the effects are those of a run that nobody interrupts, by their idempotency keys."""
    busy: dict[str, int] = {}
    effects: dict[str, list[str]] = {of: [] for of in records}
    tokens: dict[str, int] = Counter()
    told: dict[str, set[bool]] = {}
    for entry in entries:
        if entry["what"] == "die":
            busy = {of: pid for of, pid in busy.items() if pid != entry["pid"]}
            continue
        of, pid = entry["of"], entry["pid"]
        if entry["what"].startswith("begin"):
            assert of not in busy, f"{of}: {pid} began a step while {busy.get(of)} was in one: {of_key(entries, of)}"
            assert entry["token"] >= tokens[of], f"{of}: an older claim came after a newer one"
            # Only whoever takes it over begins a step again: after a death, or a lease that was lost on a busy machine.
            assert entry["effect"] not in effects[of] or (effects[of][-1] == entry["effect"] and entry["token"] > tokens[of]), of
            busy[of], tokens[of] = pid, entry["token"]
            effects[of].append(entry["effect"])
            if "known" in entry:
                told.setdefault(entry["effect"], set()).add(entry["known"])
        else:
            assert busy.pop(of) == pid
    assert not busy
    for of, (record_id, end) in records.items():
        assert list(dict.fromkeys(effects[of])) == [f"{record_id}:0:{name}" for name in EFFECTS[end]], of
    for effect, known in told.items():
        assert known == {not effect.endswith(":three:undo")}, effect


def of_key(entries: list[dict[str, Any]], of: str) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry.get("of", of) == of]


def test_a_runner_that_is_killed_at_any_recorded_step_leaves_a_procedure_that_ends_once(runners: Runners) -> None:
    killed_everywhere(runners, "round", CHANCES)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_hundred_rounds_also_between_a_step_and_its_write(runners: Runners) -> None:
    for number in range(LONG_ROUNDS):
        killed_everywhere(runners, f"round{number}", ALL_CHANCES, every=True)
