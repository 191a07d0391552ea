"""`outlast jobs` on a real database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner, Result

import outlast
from outlast._cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def jobs(database: str) -> Callable[..., Result]:
    def run(*words: str, text: str | None = None) -> Result:
        return CliRunner(env={"OUTLAST_DSN": database}).invoke(app, ["jobs", *words], input=text)

    return run


@pytest.fixture
def queue(jobs: Callable[..., Result]) -> Callable[..., Any]:
    """`outlast jobs` on a migrated database, with --json; gives what it printed."""
    assert jobs("migrate").exit_code == 0

    def run(*words: str, code: int = 0, text: str | None = None) -> Any:
        result = jobs(*words, "--json", text=text)
        assert (result.exit_code, result.stderr) == (code, "")
        return json.loads(result.stdout)

    return run


@pytest.mark.short
def test_before_migrate_it_says_so(jobs: Callable[..., Result]) -> None:
    for words in (("counts",), ("list",), ("enqueue", "settle"), ("retry", "1"), ("purge",)):
        result = jobs(*words)
        assert result.exit_code == 78
        assert "run 'outlast jobs migrate' first" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_migrate_twice(jobs: Callable[..., Result]) -> None:
    assert "migration" in jobs("migrate").stdout
    assert jobs("migrate").stdout == "schema outlast: nothing to do\n"


def test_two_schemas_are_two_queues(queue: Callable[..., Any]) -> None:
    assert queue("migrate", "--schema", "other")["applied"] >= 1
    queue("enqueue", "settle", "--schema", "other")
    assert queue("counts") == {}
    assert queue("counts", "--schema", "other")["default"]["available"] == 1


def test_enqueue_and_list(queue: Callable[..., Any]) -> None:
    made = queue("enqueue", "settle", '{"order": 7}', "--queue", "shop", "--priority", "3", "--attempts-max", "2")
    assert made["created"]
    (job,) = queue("list", "--queue", "shop", "--kind", "settle", "--state", "available")
    assert job["id"] == made["id"]
    assert (job["payload"], job["priority"], job["attempts_max"]) == ({"order": 7}, 3, 2)
    assert queue("list", "--state", "dead") == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--deadline", "1000000000000"), "deadline_s must be from 0 to 3.15576e+09 seconds"),
        (("--run-at", "9999-06-01"), "run_at must be before the year 9000"),
        (("--unique-key", "k" * 2001), "at most 2000 bytes"),
        (("NaN",), "the payload is no JSON"),
        (("[" * 50_000 + "]" * 50_000,), "nested too deeply"),
        (('"\\u0000"',), "the character NUL"),
    ],
    ids=["deadline", "run-at", "key", "nan", "deep", "nul"],
)
def test_what_is_out_of_its_limits_is_a_usage_error(
    queue: Callable[..., Any], jobs: Callable[..., Result], words: tuple[str, ...], says: str
) -> None:
    result = jobs("enqueue", "settle", *words)
    assert result.exit_code == 64
    assert says in " ".join(result.stderr.split())
    assert queue("list") == []


def test_what_others_put_in_is_shown(queue: Callable[..., Any], jobs: Callable[..., Result], database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO outlast.jobs (token, queue, kind, payload, priority, run_at, deadline_at, attempts_max, last_fault) "
            "VALUES (gen_random_uuid(), 'q', 'k', %s, 0, 'infinity', '20000-01-01', 1, '[1]')",
            (r'"\ud800"',),
        )
    (job,) = queue("list")
    assert (job["payload"], job["run_at"][:4], job["deadline_at"][:4]) == ("\ud800", "9999", "9999")
    listed = jobs("list")
    assert listed.exit_code == 0
    assert "[1]" in listed.stdout
    assert queue("cancel", str(2**70), code=1) == [{"id": 2**70, "state": None}]


def test_a_payload_from_standard_input(queue: Callable[..., Any]) -> None:
    queue("enqueue", "settle", "-", text='["from", "a", "pipe"]')
    assert queue("list")[0]["payload"] == ["from", "a", "pipe"]


def test_a_unique_key(queue: Callable[..., Any]) -> None:
    first = queue("enqueue", "settle", "--unique-key", "order-7")
    assert queue("enqueue", "settle", "--unique-key", "order-7") == {"id": first["id"], "created": False}


def test_cancel_retry_purge(queue: Callable[..., Any]) -> None:
    number = queue("enqueue", "settle")["id"]
    assert queue("cancel", str(number)) == [{"id": number, "state": "cancelled"}]
    assert queue("cancel", str(number), code=1) == [{"id": number, "state": None}]
    assert queue("retry", str(number), "999", code=1) == [{"id": number, "state": "available"}, {"id": 999, "state": None}]
    queue("cancel", str(number))
    assert queue("purge", "--older-than", "1h") == {"deleted": 0}
    assert queue("purge", "--older-than", "0", "--state", "dead") == {"deleted": 0}
    assert queue("purge", "--older-than", "0") == {"deleted": 1}


def test_tables_for_people(queue: Callable[..., Any], jobs: Callable[..., Result]) -> None:
    assert jobs("list").stdout == "no jobs\n"
    assert jobs("counts").stdout == "no jobs\n"
    queue("enqueue", "[bold]settle", '{"card": "4111"}', "--delay", "90s")
    listed = jobs("list").stdout
    assert "[bold]settle" in listed
    assert "in 1 min" in listed
    assert "4111" not in listed
    assert "available" in jobs("counts").stdout


def test_a_dead_job_shows_its_fault(queue: Callable[..., Any], jobs: Callable[..., Result], database: str) -> None:
    queue("enqueue", "settle")
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "UPDATE outlast.jobs SET state = 'dead', finished_at = now(), last_fault = %s",
            ('{"code": "23505", "reason": "duplicate key", "kind": "rejected"}',),
        )
    assert "23505 duplicate key" in " ".join(jobs("list").stdout.split())


def test_an_unreachable_server_is_69_at_once(jobs: Callable[..., Result]) -> None:
    result = jobs("counts", "--dsn", "postgresql://u:hunter2@127.0.0.1:1/shop")
    assert result.exit_code == 69
    assert "ECONNREFUSED" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hunter2" not in result.output


def test_an_unknown_database_is_78_with_the_hint(jobs: Callable[..., Result], database: str) -> None:
    result = jobs("counts", "--dsn", f"{database} dbname=nowhere")
    assert result.exit_code == 78
    assert "3D000" in result.stderr
    assert len(result.stderr.splitlines()) == 1


SERVICE = """
import os, outlast
from outlast.jobs import Jobs
from outlast.postgres import Postgres

db = Postgres(os.environ["OUTLAST_DSN"])
jobs = Jobs(db, journal_path="shop.journal")
service = outlast.Service("shop", deadline_s=3.0)

@jobs.handler("settle")
async def settle(job):
    print("settled", job.payload, flush=True)

jobs.work(service, workers=2)
"""


@pytest.mark.short
def test_up_works_off_what_was_enqueued_until_sigterm(queue: Callable[..., Any], database: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SERVICE)
    queue("enqueue", "settle", "7")
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast", "up", "shop:service"],
        cwd=tmp_path,
        env={**os.environ, "OUTLAST_DSN": database, "PYTHONPATH": str(Path(outlast.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "settled 7\n"
        deadline = time.monotonic() + 30
        while queue("counts")["default"]["done"] < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert queue("counts")["default"]["done"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
