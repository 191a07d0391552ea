"""The same 500 bodies into influxd 1.6, victoria-metrics and our tables: what each takes, refuses and holds.

docs/tables_differences.md explains each difference, and has the number of bodies that differ for it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from oracle_corpus import BODIES, CORPUS, bodies, made
from oracle_servers import Influx, Point, Seen, Victoria, point

from outlast.sqlite import Sqlite
from outlast.tables import Range, Tables

PAGE = Path(__file__).parents[4] / "docs" / "tables_differences.md"
KINDS = {bool: "boolean", int: "integer", float: "float", str: "string"}
OTHER = "unknown"


class Rule(NamedTuple):
    """A difference, by the reason of our first refusal (none if `refusal` is empty) and by the body."""

    name: str
    refusal: str = ""
    body: bytes = b""


COMMON = (
    Rule("limits of names", "255 are allowed"),
    Rule("control characters", "control character|NUL character"),
    Rule("not UTF-8", "not UTF-8"),
    Rule("byte order mark", "", rb"^\xef\xbb\xbf"),
)
INFLUX = (
    *COMMON,
    Rule("= begins a tag value", 'holds "="', rb",a=="),
    Rule("misplaced quote", "goes on after its quote", b""),
    Rule("misplaced quote", 'is "1""', b""),
    Rule("types in one body", "is FLOAT, the value is a STRING"),
    Rule("comments", "", rb"^#"),
    Rule("carriage return", "", rb"\r"),
    Rule("empty tag value", "", rb"^[^ ]*[^\\ ]=[, ]"),
    Rule("unsigned", "", rb"=[0-9]+u"),
    Rule("field twice, two types", "", rb"v=1,w=2,v=3i|(a\\[,=]b)=\".*,\1="),
    Rule("integers and floats", "", rb"v=1i [0-9]+\nm v=1\.5"),
)
VICTORIA = (
    *COMMON,
    Rule("tag twice", "is there twice"),
    Rule("missing parts", "is missing|has no value"),
    Rule("= in a tag value", 'holds "="'),
    Rule("field called time", 'called "time"'),
    Rule("field called time", "", rb"[ ,]time="),
    Rule("strings", "quote|STRING"),
    Rule("no number", 'the value of ".*" is'),
    Rule("borders", "the time is|fields are missing"),
    Rule("strings", "", rb'="'),
    Rule("spaces at the ends", "", rb"^[ \t]|[ \t]\r?\n?$"),
    Rule("point or no digit", "", rb"=-?(?:\.[0-9]|[0-9]+\.[, ])"),
    Rule("quotes in names", "", rb'"'),
    Rule("digits", "", rb"=(?:9223372036854775807|-1\.25e-300|1\.79769|0\.12345678)"),
    Rule("time 0", "", rb" 0$"),
    Rule("negative times", "", rb" -1$"),
    Rule("the same point twice", "", rb"\n|v=1,w=2,v=3i"),
    Rule("two backslashes", "", rb"\\\\,"),
)


async def stored(home: Path) -> list[tuple[Seen, str]]:
    """Store each body in tables of its own; beside what is there then, the first refusal."""
    found = []
    for number, body in enumerate(bodies()):
        async with Tables(Sqlite(home / f"{number}.db")) as tables:
            written = await tables.write_lines(body)
            points = set()
            for table in await tables.tables():
                async for read in tables.read(Range(table.name)):
                    fields = {name: (KINDS[type(value)], value) for name, value in read.fields.items()}
                    points.add(point(table.name, read.tags, fields, read.time_ns))
        refusals = sorted(written.refused, key=lambda refusal: refusal.place)
        found.append((Seen(not refusals, frozenset(points)), refusals[0].reason if refusals else ""))
    return found


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Seen, str]]:
    return asyncio.run(stored(tmp_path_factory.mktemp("ours")))


def as_samples(points: frozenset[Point]) -> frozenset[Point]:
    """Return points as victoria-metrics would hold them: a sample for each number or boolean, to the millisecond."""
    return frozenset(
        point(f"{each.table}_{name}", each.tags, {"": ("float", float(value))}, each.time // 10**6 * 10**6)
        if each.time is not None
        else Point(f"{each.table}_{name}", each.tags, (("", ("float", float(value))),), None)
        for each in points
        for name, (kind, value) in each.fields
        if kind != "string"
    )


def reason(rules: tuple[Rule, ...], body: bytes, refusal: str) -> str:
    """Return the name of the first rule that holds for a body that differs."""
    for rule in rules:
        if bool(rule.refusal) == bool(refusal) and re.search(rule.refusal, refusal) and re.search(rule.body, body):
            return rule.name
    return OTHER


def documented(server: str) -> dict[str, int]:
    """Return the differences from a server that the page has, with the number of bodies."""
    part = PAGE.read_text(encoding="utf-8").split(f"## {server}", 1)[1].split("\n## ", 1)[0]
    return {name: int(count) for name, count in re.findall(r"^\| ([^|]+?) \|.*\| (\d+) \|$", part, re.MULTILINE)}


def compared(
    rules: tuple[Rule, ...], pairs: list[tuple[Any, Any]], refusals: list[str]
) -> tuple[dict[str, int], list[tuple[bytes, Any, Any, str]]]:
    """Return the numbers of bodies that differ by reason, and those without one."""
    counts, unknown = Counter[str](), []
    for body, (own, other), refusal in zip(bodies(), pairs, refusals, strict=True):
        if own != other:
            name = reason(rules, body, refusal)
            counts[name] += 1
            if name == OTHER:
                unknown.append((body, own, other, refusal))
    return dict(counts), unknown


def test_the_corpus_is_what_was_written_by_hand_and_what_the_seed_makes() -> None:
    all_bodies = bodies()
    assert len(all_bodies) == len(set(all_bodies)) == BODIES
    by_hand = CORPUS.read_text(encoding="ascii").split("# Made by the seed", 1)[0].count("\nb")
    generated = [body for body in made(BODIES) if body not in all_bodies[:by_hand]]
    assert all_bodies[by_hand:] == generated[: BODIES - by_hand]
    assert by_hand > 150


@pytest.mark.long
def test_influxd(tmp_path: Path, ours: list[tuple[Seen, str]]) -> None:
    home = tmp_path / "influxd"
    home.mkdir()
    with Influx.running(home) as server:
        theirs = server.seen(bodies())
    assert sum(seen.is_taken for seen in theirs) > 150
    counts, unknown = compared(
        INFLUX, [(mine, other) for (mine, _), other in zip(ours, theirs, strict=True)], [why for _, why in ours]
    )
    assert unknown == []
    assert counts == documented("influxd 1.6")


@pytest.mark.long
def test_victoria_metrics(tmp_path: Path, ours: list[tuple[Seen, str]]) -> None:
    home = tmp_path / "victoria-metrics"
    home.mkdir()
    with Victoria.running(home) as server:
        theirs = server.seen(bodies())
    assert all(seen.is_taken for seen in theirs)  # It answers 204 to anything, and says nothing of what it has left out.
    pairs = [(as_samples(mine.points), other.points) for (mine, _), other in zip(ours, theirs, strict=True)]
    counts, unknown = compared(VICTORIA, pairs, [why for _, why in ours])
    assert unknown == []
    assert counts == documented("victoria-metrics")
