"""`outlast tables` but for serve: what its commands print and refuse, and that a look changes nothing; on SQLite."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from click.testing import CliRunner, Result

from outlast._cli.app import app
from outlast._cli.tables.group import VARIABLE
from outlast.sqlite import Sqlite
from outlast.tables import Point, PointOutcome, Tables

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("serve", "ls", "show", "query", "drop", "retention")
SECOND = 1_000_000_000
NOON = 1_769_860_800 * SECOND
"""2026-01-31T12:00:00Z."""
POINTS = [
    *(Point("cpu", {"used": number / 10, "cores": 8}, {"host": "a", "dc": "x"}, NOON + number * SECOND) for number in range(10)),
    *(Point("cpu", {"used": 0.5}, {"host": "b"}, NOON + number * SECOND) for number in range(5)),
    Point("disk", {"free": 2**60, "name": "sda"}, {}, NOON),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with two tables, and a third that cannot be made: a view has its name."""
    path = tmp_path_factory.mktemp("tables") / "metrics.db"

    async def fill() -> None:
        async with Tables(Sqlite(path)) as tables:
            assert (await tables.write(POINTS)).stored == len(POINTS)
            await Sqlite.write(tables.dependency, lambda connection: connection.execute("CREATE VIEW taken AS SELECT 1"))
            written = await tables.write([Point("taken", {"value": 1.0})])
            assert [refusal.outcome for refusal in written.refused] == [PointOutcome.PERSON]

    asyncio.run(fill())
    return path


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    path = tmp_path / "metrics.db"
    shutil.copy(filled, path)
    return path


def run(store: Path, *words: str, text: str | None = None) -> Result:
    return CliRunner(env={VARIABLE: str(store), "COLUMNS": "100"}).invoke(app, ["tables", *words], input=text)


def lines(store: Path, *words: str) -> list[Any]:
    result = run(store, *words, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def the_line(result: Result) -> str:
    """What a mistake writes: one line on stderr, nothing on stdout, no traceback."""
    assert result.stdout == ""
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("outlast: ")
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(app, ["tables", name, "--help"])
    assert result.exit_code == 0
    assert f"Example: outlast tables {name}" in result.stdout


@pytest.mark.parametrize(
    "words", [("ls",), ("show", "cpu"), ("query", "cpu"), ("drop", "cpu", "--yes"), ("retention", "cpu", "1h")]
)
def test_nothing_but_serve_makes_a_file(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(tmp_path / "metrics.db", *words)
    assert result.exit_code == 66
    assert f"there is no file {tmp_path}/metrics.db" in the_line(result)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("ls",), ("show", "cpu"), ("query", "cpu"), ("drop", "cpu", "--yes")])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "shop.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE orders (id)")
    result = run(path, *words)
    assert result.exit_code == 78
    assert "it has no tables yet: outlast tables serve makes them" in the_line(result)
    with closing(apsw.Connection(str(path))) as connection:
        assert list(connection.execute("SELECT name FROM sqlite_schema")) == [("orders",)]


def test_a_file_that_is_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database" * 1_000, encoding="utf-8")
    result = run(path, "ls")
    assert result.exit_code in {69, 78}
    assert "SQLITE_NOTADB" in the_line(result)


@pytest.mark.parametrize("text", ["etcd://127.0.0.1:2379", "mysql://db/shop"])
def test_a_store_is_a_file_or_a_postgresql(text: str) -> None:
    result = CliRunner().invoke(app, ["tables", "ls", "--store", text])
    assert result.exit_code == 64
    assert "write a file (work.db, sqlite:work.db) or postgresql://HOST/DATABASE" in the_line(result)


def test_tables_are_listed_with_what_they_hold(filled: Path) -> None:
    cpu, disk, _ = lines(filled, "ls")
    expected = {"table": "cpu", "fields": 2, "series": 2, "points": 15, "points_exact": True, "retention_s": None}
    assert {name: cpu[name] for name in expected} == expected
    assert (cpu["oldest"], cpu["newest"]) == ("2026-01-31T12:00:00Z", "2026-01-31T12:00:09Z")
    assert (disk["table"], disk["points"]) == ("disk", 1)
    text = run(filled, "ls").stdout
    assert [word for word in ("cpu", "disk", "15", "forever") if word in text] == ["cpu", "disk", "15", "forever"]
    assert [row["table"] for row in lines(filled, "ls", "--limit", "1")] == ["cpu", "taken"]
    assert [row["table"] for row in lines(filled, "ls", "--after", "cpu")] == ["disk", "taken"]


def test_a_table_that_cannot_be_made_is_shown_with_its_cause_and_what_clears_it(store: Path) -> None:
    row = lines(store, "ls")[-1]
    assert (row["table"], row["refused"]["kind"], row["refused"]["code"]) == ("taken", "permanent", "name taken")
    clears = f"outlast procedures clear 'outlast.tables shape' taken --store {store}"
    assert row["clears"] == clears
    text = run(store, "ls").stdout
    assert "taken: cannot be made or changed" in text
    assert "cause:       permanent, name taken: table 'taken' cannot be made: the file has a view 'taken'" in text
    assert "hint:        rename or drop the view 'taken'" in text
    assert f"at once by:  {clears}" in text
    words = ["procedures", "clear", "outlast.tables shape", "taken", "--store", str(store)]
    assert CliRunner().invoke(app, words).stdout == "outlast.tables shape/taken: 1 failing key cleared\n"


@pytest.mark.parametrize(
    "words", [("show", "\udcff"), ("query", "a\udcff"), ("drop", "\udcff"), ("query", "cpu", "--tag", "a=\udcff")]
)
def test_a_name_that_is_no_text_is_bad_usage(filled: Path, words: tuple[str, ...]) -> None:
    result = run(filled, *words)
    assert result.exit_code == 64
    assert "\\udcff' is no UTF-8, and every name in a store is; set the locale" in result.stderr


def test_a_table_is_shown(filled: Path) -> None:
    result = run(filled, "show", "cpu", "--json")
    found = json.loads(result.stdout)
    assert found["fields"] == [
        {"name": "used", "type": "float", "stored": "used"},
        {"name": "cores", "type": "integer", "stored": "cores"},
    ]
    assert found["tags"] == {"dc": ["x"], "host": ["a", "b"]}
    newest = {point["tags"]["host"]: (point["time"], point["fields"]) for point in found["newest_points"]}
    assert newest == {
        "a": ("2026-01-31T12:00:09Z", {"used": 0.9, "cores": 8}),
        "b": ("2026-01-31T12:00:04Z", {"used": 0.5}),
    }
    text = run(filled, "show", "cpu").stdout
    for part in ("cpu (stored as cpu)", "15 points of 2 series", "used: float", "cores: integer", "host: a, b", "used=0.9"):
        assert part in text
    assert "newest:" not in run(filled, "show", "cpu", "--series", "0").stdout


@pytest.mark.parametrize("words", [("show",), ("query",), ("drop", "--yes")])
def test_a_table_that_is_not_there_is_said(filled: Path, words: tuple[str, ...]) -> None:
    result = run(filled, *words, "gpu")
    assert result.exit_code == 66
    assert "there is no table 'gpu'; outlast tables ls shows those that are there" in the_line(result)


def test_points_are_printed_by_series_and_time(filled: Path) -> None:
    found = lines(filled, "query", "cpu", "--tag", "host=b", "--field", "used", "--limit", "2")
    assert found == [{"time_ns": NOON + n * SECOND, "tags": {"host": "b"}, "fields": {"used": 0.5}} for n in (0, 1)]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ((), 15),
        (("--tag", "host"), 15),
        (("--tag", "dc"), 10),
        (("--tag", "host=a", "--tag", "host=b"), 15),
        (("--tag", "host=b", "--tag", "dc=x"), 0),
        (("--field", "cores"), 10),
        (("--since", "2026-01-31T12:00:08Z"), 2),
        (("--until", "2026-01-31T12:00:00Z"), 2),
        (("--since", "2026-01-31T12:00:01Z", "--until", "2026-01-31T12:00:02Z"), 4),
        (("--since", "1s"), 0),
    ],
)
def test_points_are_chosen_by_tags_fields_and_time(filled: Path, words: tuple[str, ...], count: int) -> None:
    assert len(json.loads(run(filled, "query", "cpu", *words, "--format", "json").stdout)) == count


def test_points_are_csv(filled: Path) -> None:
    result = run(filled, "query", "disk", "--format", "csv")
    assert result.stdout.splitlines() == ["time_ns,tags,free,name", '1769860800000000000,"{}",1152921504606846976,"sda"']


@pytest.mark.parametrize(("limit", "said"), [(3, "outlast: these are the first 3; --limit 0 prints all\n"), (15, ""), (16, "")])
def test_points_are_a_table_that_says_when_there_are_more(
    filled: Path, limit: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast._cli.tables.query.LIMIT", limit)
    result = run(filled, "query", "cpu")
    assert result.stderr == said
    assert [word for word in ("time", "host", "used") if word in result.stdout] == ["time", "host", "used"]
    assert result.stdout.count("12:00:") == min(limit, 15)
    assert run(filled, "query", "cpu", "--limit", "0").stdout.count("12:00:") == 15
    assert run(filled, "query", "cpu", "--limit", "2").stderr == ""
    assert run(filled, "query", "cpu", "--since", "1s").stdout == "no points\n"


def test_nobody_has_to_read_all_points(filled: Path) -> None:
    command = [sys.executable, "-m", "outlast", "tables", "query", "cpu", "--store", str(filled), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_points_are_a_picture(filled: Path) -> None:
    words = ("--format", "graph", "--since", "2026-01-31T12:00:00Z", "--until", "2026-01-31T12:00:09.999999999Z")
    out = run(filled, "query", "cpu", "--field", "used", *words).stdout.splitlines()
    assert out[0] == "2026-01-31T12:00:00Z to 2026-01-31T12:00:09.999Z"
    assert [out[1], out[3]] == ["used{dc=x,host=a}", "used{host=b}"]
    assert "".join(out[2].split("  ")[0].split()).startswith("▁")
    assert out[2].endswith("0 to 0.9, last 0.9")
    assert out[4].endswith("0.5 to 0.5, last 0.5")
    assert run(filled, "query", "cpu", "--format", "graph").stdout == "no points\n"


def test_a_field_that_is_not_there_is_said_with_those_that_are(filled: Path) -> None:
    result = run(filled, "query", "cpu", "--field", "idle")
    assert result.exit_code == 66
    assert "the table cpu has no field 'idle'; it has used, cores" in the_line(result)


def test_a_time_that_ends_before_it_begins_is_a_mistake(filled: Path) -> None:
    result = run(filled, "query", "cpu", "--since", "1h", "--until", "2h")
    assert result.exit_code == 64
    assert "--since is later than --until" in the_line(result)


def test_a_drop_is_asked_about(store: Path) -> None:
    result = run(store, "drop", "cpu", text="n\n")
    assert result.exit_code == 130
    assert f"Drop table cpu of the file {store} with 15 points of 2 series? They are lost" in result.stderr
    assert run(store, "drop", "cpu", text="").exit_code == 130
    assert run(store, "drop", "cpu", "--json").exit_code == 64
    assert [row["table"] for row in lines(store, "ls")] == ["cpu", "disk", "taken"]
    assert run(store, "drop", "cpu", text="y\n").stdout == "table cpu: dropped\n"
    assert lines(store, "drop", "disk", "--yes") == [{"table": "disk", "dropped": True}]
    assert [row["table"] for row in lines(store, "ls")] == ["taken"]


def test_retention_is_set_by_table(store: Path) -> None:
    assert run(store, "retention", "cpu", "36500d").stdout == "table cpu: points are kept for 36500 d\n"
    assert lines(store, "ls")[0]["retention_s"] == 36_500 * 86_400
    assert lines(store, "retention", "cpu", "forever") == [{"table": "cpu", "retention_s": None}]
    for wrong in ("0s", "1w", ""):
        assert run(store, "retention", "cpu", wrong).exit_code == 64
    assert run(store, "retention", "gpu", "1h").exit_code == 66
