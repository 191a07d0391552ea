"""`outlast procedures` beside a service that runs them, on real stores."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

import outlast
from outlast import Fault, Kind, OutlastError
from outlast._cli.app import app
from outlast._cli.procedures.group import VARIABLE
from outlast.etcd import Etcd
from outlast.postgres import Postgres
from outlast.procedures import Procedure, ProcedureFailedError, ProcedureRefused, Procedures, Run, StepOutcome
from outlast.sqlite import Sqlite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from outlast.testing import EtcdServer

pytestmark = pytest.mark.expected_logs


class Store:
    """A store as the service and the command have it."""

    def __init__(self, text: str, opened: Callable[[], Any]) -> None:
        self.text = text
        self.opened = opened

    def run(self, *words: str) -> Result:
        return CliRunner(env={VARIABLE: self.text}).invoke(app, ["procedures", *words])

    async def json(self, *words: str) -> Any:
        """Call the command in a thread: the service has the event loop."""
        result = await asyncio.to_thread(self.run, *words, "--json")
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return json.loads(result.stdout)


@pytest.fixture(params=["sqlite", "postgresql", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        path = tmp_path / "work.db"
        path.touch()
        return Store(f"sqlite:{path}", lambda: Sqlite(path))
    if request.param == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd")
        prefix = f"{uuid4().hex}/"
        return Store(f"etcd://127.0.0.1:{server.port}/{prefix}", lambda: Etcd(server.url, prefix=prefix))
    dsn: str = request.getfixturevalue("database")
    return Store(dsn, lambda: Postgres(dsn))


def made(undone: list[str]) -> Procedure:
    create = Procedure("create")

    @create.step
    async def allocate(run: Run) -> str:
        if run.payload == "bad":
            raise OutlastError("no", Fault(Kind.REJECTED, "no such type", "no such type", "warehouse"))
        if run.payload == "slow":
            await asyncio.sleep(3600)
        return run.key

    @allocate.undo
    async def release(run: Run, outcome: StepOutcome) -> None:
        undone.append(run.key)

    create.wait("approved", timeout_s=600.0)
    return create


@asynccontextmanager
async def at_work(store: Store, path: Path, undone: list[str]) -> AsyncIterator[Procedures]:
    procedures = Procedures(store.opened(), [made(undone)], journal_path=path / "journal", slots=4)
    service, stop = outlast.Service("worker", deadline_s=5.0), outlast.Stop()
    procedures.attach(service)
    running = asyncio.create_task(service.run(stop))
    try:
        await service.until_ready()
        yield procedures
    finally:
        stop.fire("the end")
        await running
        await procedures.store.dependency.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


def test_an_operator_sees_and_does_what_the_service_takes_in_at_once(store: Store, tmp_path: Path) -> None:
    async def main() -> None:
        undone: list[str] = []
        async with at_work(store, tmp_path, undone) as procedures:
            bad = await procedures.submit("create", "a b", "bad")
            with pytest.raises(ProcedureFailedError):
                await bad.wait(60)
            with pytest.raises(ProcedureRefused):
                await procedures.submit("create", "a b", "bad")
            found = await store.json("explain", "create", "a b")
            assert (found["why"], found["first_cause"]["code"]) == ("failing", "no such type")
            assert (await store.json("clear", "create", "a b"))["cleared"] == 1

            async def accepted() -> bool:
                try:
                    again = await procedures.submit("create", "a b", "good")
                except ProcedureRefused:
                    return False
                return again.id == bad.id

            await until(accepted)

            async def state() -> str:
                shown: dict[str, Any] = await store.json("show", bad.id)
                return str(shown["state"])

            async def waits() -> bool:
                return await state() == "waiting"

            await until(waits)
            shown = await store.json("show", "create", "a b", "--payload")
            assert (shown["payload"], shown["waits_for"]) == ("good", "approved")
            assert shown["steps"]["done"] == [{"name": "allocate", "result": "a b"}]
            await store.json("signal", bad.id, "approved", '{"by": "ada"}')
            assert await bad.wait(60) == {"by": "ada"}

            slow = await procedures.submit("create", "slow", "slow")
            ended = await store.json("cancel", slow.id, "--wait", "60s")
            assert (ended["state"], undone.count("slow")) == ("cancelled", 1)

            await store.json("pause", "create")
            assert await store.json("pauses") == {"kind": "create", "key": ""}
            held = await procedures.submit("create", "held", "good")
            assert (await store.json("explain", "create", "held"))["why"] == "paused"
            assert (await store.json("show", held.id))["state"] == "queued"
            await store.json("resume", "create")
            await store.json("signal", held.id, "approved")
            assert await held.wait(60) is None
            ended = await store.json("show", held.id)
            assert (ended["state"], ended["result"], ended["steps"]["done"][0]) == ("done", "null", {"name": "allocate"})
            counted = await store.json("counts")
            assert {state: count for state, count in counted["kinds"]["create"].items() if count} == {"done": 2, "cancelled": 1}

    asyncio.run(main())


def test_before_a_service_has_made_its_tables_it_says_so_and_makes_none(store: Store, tmp_path: Path) -> None:
    if store.text.startswith("etcd:"):
        assert store.run("ls").stdout == "no records\n", "it has no tables"
        return
    for words in (("ls",), ("counts",), ("clear", "--all"), ("pause", "create"), ("explain", "create", "cpu")):
        result = store.run(*words)
        assert (result.exit_code, result.stdout) == (78, ""), words
        assert "it has no procedures" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    if store.text.startswith("sqlite:"):
        with closing(sqlite3.connect(tmp_path / "work.db")) as conn:
            assert conn.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_store_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_bytes(b"no database " * 100)
    for text, code in (("postgresql://ada:hunter2@127.0.0.1:1/shop", 69), (f"{tmp_path}/no.db", 78), (str(tmp_path), 78)):
        result = Store(text, lambda: None).run("ls")
        assert (result.exit_code, result.stdout) == (code, "")
        assert len(result.stderr.splitlines()) == 1
        assert "hunter2" not in result.stderr
