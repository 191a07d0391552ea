"""`outlast procedures`: what it asks for, what it prints, and what it does not; on a store in memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fake_procedure_records import FakeRecords
from fake_procedure_store import FakeStore
from outlast import Fault, Kind
from outlast._cli.app import app
from outlast._cli.procedures.group import VARIABLE
from outlast._cli.store import Store, StorePlace
from outlast.extend import fault_record
from outlast.procedures import Priority
from outlast.procedures._model import NewRecord, ProcedureState, RecordWrite
from outlast.testing import Trouble

COMMANDS = ("ls", "show", "explain", "counts", "pauses", "clear", "fixed", "pause", "resume", "cancel", "signal")
NO_TABLE = Fault(Kind.PERMANENT, "42P01", "no table, password=hunter2", "warehouse", hint="make it")
PAYLOAD = {"token": "hunter2", "columns": "c" * 1_000}


class Rig:
    """A store that holds four records, and the command on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = FakeRecords()
        self.trouble: Trouble | None = None
        monkeypatch.setattr(StorePlace, "open", lambda place: self.opened())
        self.ids = asyncio.run(self.filled())

    def opened(self) -> FakeStore:
        store = FakeStore(self.held, name="work")
        if self.trouble is not None:
            store.trouble(self.trouble)
        return store

    async def filled(self) -> dict[str, str]:
        store = self.opened()
        ids: dict[str, str] = {}
        for number, (key, state, fault) in enumerate(
            (
                ("cpu", ProcedureState.DEAD, NO_TABLE),
                ("mem", ProcedureState.DONE, None),
                ("disk", ProcedureState.WAITING, None),
                ("net", None, None),
            )
        ):
            new = NewRecord(f"{number:032x}", "create", key, 1, Priority.HIGH, json.dumps(PAYLOAD), claim=state is not None)
            record = (await store.submit([new], "me"))[0].record
            ids[key] = record.id
            if state is not None:
                await store.record([written(record.id, record.token, state, fault)])
        await store.dependency.close()
        return ids

    def run(self, *words: str, text: str | None = None) -> Result:
        return CliRunner(env={VARIABLE: "work.db"}).invoke(app, ["procedures", *words], input=text)

    def json(self, *words: str, code: int = 0, text: str | None = None) -> list[Any]:
        result = self.run(*words, "--json", text=text)
        assert (result.exit_code, result.stderr) == (code, "")
        return [json.loads(line) for line in result.stdout.splitlines()] if "ls" in words else [json.loads(result.stdout)]

    def state(self, key: str) -> str:
        (record,) = self.json("show", "create", key)
        state: str = record["state"]
        return state


def written(record_id: str, token: int, state: ProcedureState, fault: Fault | None) -> RecordWrite:
    return RecordWrite(
        record_id,
        token,
        state.value,
        "",
        result_json='{"made": 3}' if state is ProcedureState.DONE else None,
        fault=None if fault is None else fault_record(fault),
        due_s=None,
        waits_for="approved" if state is ProcedureState.WAITING else "",
        failures=0 if fault is None else 3,
        until_s=600.0,
    )


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def the_line(result: Result) -> str:
    """What a mistake writes: one line on stderr, nothing on stdout, no traceback."""
    assert result.stdout == ""
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("outlast: ")
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(app, ["procedures", name, "--help"])
    assert result.exit_code == 0
    assert f"Example: outlast procedures {name}" in result.stdout


@pytest.mark.parametrize(
    ("text", "scheme", "shown"),
    [
        ("work.db", "sqlite", "the file work.db"),
        ("sqlite:/var/lib/shop/work.db", "sqlite", "the file /var/lib/shop/work.db"),
        ("postgresql://ada:hunter2@db/shop", "postgresql", "PostgreSQL at user=ada password=*** dbname=shop host=db"),
        ("postgres://db/shop", "postgresql", "PostgreSQL at dbname=shop host=db"),
        ("host=db dbname=shop password=hunter2", "postgresql", "PostgreSQL at password=*** dbname=shop host=db"),
        ("etcd://root:hunter2@etcd:2379/shop/", "etcd", "etcd at etcd:2379/shop/"),
        ("ETCDS://a,b:23790", "etcds", "etcd at a,b:23790"),
    ],
)
def test_a_store_is_named_in_these_ways(text: str, scheme: str, shown: str) -> None:
    place = Store().convert(text, None, None)
    assert (place.scheme, str(place)) == (scheme, shown)
    assert "hunter2" not in f"{place} {place!r}"


def test_an_etcd_has_its_endpoints_login_and_prefix() -> None:
    place = Store().convert("etcds://root:p%40ss@a,b:23790,[::1]/shop/", None, None)
    settings = place._etcd()
    assert settings["endpoints"] == ["https://a:2379", "https://b:23790", "https://[::1]:2379"]
    assert (settings["user"], settings["password"], settings["prefix"]) == ("root", "p@ss", "shop/")


@pytest.mark.parametrize("text", ["", "sqlite:", "mysql://db/shop", "etcd://", "sqlite:///work.db"])
def test_what_is_no_store_is_a_usage_error_that_says_what_is_one(text: str) -> None:
    result = CliRunner().invoke(app, ["procedures", "ls", "--store", text])
    assert result.exit_code == 64
    assert "etcd://HOST:PORT" in the_line(result)


def test_to_look_makes_no_file(tmp_path: Any) -> None:
    result = CliRunner().invoke(app, ["procedures", "ls", "--store", f"{tmp_path}/work.db"])
    assert result.exit_code == 66
    assert "there is no file" in the_line(result)
    assert not list(tmp_path.iterdir())


def test_records_are_listed_and_chosen(rig: Rig) -> None:
    assert [record["key"] for record in rig.json("ls")] == ["net", "disk", "mem", "cpu"]
    assert [record["key"] for record in rig.json("ls", "--state", "dead", "--state", "done")] == ["mem", "cpu"]
    assert [record["key"] for record in rig.json("ls", "--limit", "1", "--before", rig.ids["disk"])] == ["mem"]
    assert rig.json("ls", "--kind", "other") == []
    assert rig.run("ls", "--kind", "other").stdout == "no records\n"
    table = rig.run("ls").stdout
    assert all(
        word in table
        for word in ("create/net", "waiting", "dead", "failed 3 times, last: permanent 42P01", "waits for the signal approved")
    )
    assert "hunter2" not in table


def test_payloads_are_cut_and_redacted_unless_they_are_asked_for(rig: Rig) -> None:
    (record,) = rig.json("show", rig.ids["cpu"])
    assert "hunter2" not in json.dumps(record)
    assert len(record["payload"]) < 300
    assert (record["failures"], record["priority"], record["last_fault"]["code"]) == (3, "high", "42P01")
    (record,) = rig.json("show", "create", "mem", "--payload")
    assert (record["payload"], record["result"]) == (PAYLOAD, {"made": 3})
    text = rig.run("show", "create", "cpu").stdout
    assert "3 times in a row" in text
    assert "hunter2" not in text
    assert "c" * 1_000 in rig.run("show", "create", "cpu", "--payload").stdout


def test_a_record_that_is_not_there_is_said(rig: Rig) -> None:
    for words in (("show", "f" * 32), ("show", "no id"), ("show", "create", "gpu")):
        result = rig.run(*words)
        assert result.exit_code == 66
        assert "there is no record" in the_line(result)
    assert rig.run("show", "a", "b", "c").exit_code == 64


def test_a_key_that_fails_is_explained_and_cleared(rig: Rig) -> None:
    (found,) = rig.json("explain", "create", "cpu")
    assert (found["why"], found["state"], found["first_cause"]["source"]) == ("failing", "dead", "warehouse")
    assert 0 < found["retry_after_s"] <= 600
    assert found["clears"] == "outlast procedures clear create cpu"
    assert "hunter2" not in json.dumps(found)
    text = rig.run("explain", "create", "cpu").stdout
    assert "first cause:  permanent 42P01" in text
    assert "clears it:    outlast procedures clear create cpu" in text
    assert rig.json("clear", "create", "cpu") == [{"kind": "create", "key": "cpu", "cleared": 1}]
    assert rig.json("explain", "create", "cpu")[0]["why"] == ""
    assert rig.run("clear", "--all").stdout == "everything: 0 failing keys cleared\n"


def test_a_cause_is_said_to_be_fixed(rig: Rig) -> None:
    assert rig.json("fixed", "warehouse", "permanent", "42P01")[0]["cleared"] == 1
    assert rig.run("fixed", "warehouse", "sunny", "42P01").exit_code == 64


def test_what_is_paused_is_shown_and_resumed(rig: Rig) -> None:
    assert rig.run("pause", "create", "net").stdout == "create/net: paused\n"
    rig.json("pause", "--all")
    assert sorted(rig.run("pauses").stdout.splitlines()) == ["create/net", "everything"]
    assert rig.json("explain", "create", "net")[0]["why"] == "paused"
    assert rig.json("resume", "create", "net")[0]["resumed"] is True
    assert rig.json("resume", "create", "net", code=1)[0]["resumed"] is False
    assert rig.json("resume", "--all")[0] == {"kind": "", "key": "", "resumed": True}


@pytest.mark.parametrize("words", [("pause",), ("clear", "create", "--all"), ("resume", "", "")])
def test_everything_is_meant_only_if_it_is_said(rig: Rig, words: tuple[str, ...]) -> None:
    result = rig.run(*words)
    assert result.exit_code == 64
    assert "--all" in the_line(result)


def test_a_cancel_says_what_holds_in_the_end(rig: Rig) -> None:
    assert rig.run("cancel", rig.ids["net"]).stdout == f"{rig.ids['net']}: cancelled\n"
    assert rig.run("cancel", rig.ids["disk"]).stdout == f"{rig.ids['disk']}: waiting, and asked to end\n"
    result = rig.run("cancel", rig.ids["mem"], "f" * 32, "no id")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{rig.ids['mem']}: done, it had ended before",
        f"{'f' * 32}: unknown",
        "no id: unknown",
    ]


def test_a_signal_is_sent_with_its_payload(rig: Rig) -> None:
    assert rig.json("signal", rig.ids["disk"], "approved", "-", text='{"by": "ada"}')[0]["state"] == "waiting"
    assert rig.json("show", "create", "disk")[0]["signals"] == ["approved"]
    assert rig.json("signal", rig.ids["mem"], "approved", code=1)[0]["state"] is None
    assert rig.run("signal", rig.ids["disk"], "approved", "{hunter2").exit_code == 64
    assert rig.run("signal", rig.ids["disk"], "a\nb").exit_code == 64
    for _ in range(99):
        asyncio.run(rig.opened().signal(rig.ids["disk"], "more", "null"))
    result = rig.run("signal", rig.ids["disk"], "approved")
    assert result.exit_code == 1
    the_line(result)


def test_records_are_counted(rig: Rig) -> None:
    found = rig.json("counts")[0]["kinds"]["create"]
    assert {state: count for state, count in found.items() if count} == {"dead": 1, "done": 1, "waiting": 1, "queued": 1}
    assert "create" in rig.run("counts").stdout


def test_a_store_that_is_away_is_said_in_one_line(rig: Rig) -> None:
    rig.trouble = Trouble.REFUSE
    result = rig.run("ls")
    assert result.exit_code == 69
    assert "work.db" in the_line(result)


def test_the_store_is_asked_for() -> None:
    result = CliRunner(env={VARIABLE: ""}).invoke(app, ["procedures", "ls"])
    assert result.exit_code == 64
    assert "--store" in the_line(result)
