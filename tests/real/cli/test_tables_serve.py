"""`outlast tables serve` as a process: where it says it is, who comes in, what it makes, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from outlast._cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "outlast", "tables", "serve", "--listen", "127.0.0.1:0", "--put", "127.0.0.1:0"]
WRITES, READS = "0123456789abcdef-write", "0123456789abcdef-read"
TOKENS = f"collector write {WRITES}\ngrafana read {READS}\n"


@contextmanager
def serving(store: object, *words: object) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Start it, and yield the process and what it said once it served."""
    command = [*COMMAND, "--store", str(store), *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield process, json.loads(line) if "--json" in words else line
        finally:
            process.kill()


def ask(url: str, path: str, body: str | None = None, authorization: str = "") -> tuple[int, str]:
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        connection.request(
            "GET" if body is None else "POST", path, body, {"authorization": authorization} if authorization else {}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def points(store: object, table: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, ["tables", "query", table, "--store", str(store), "--json"])
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "metrics.db")
    dsn: str = request.getfixturevalue("database")
    return dsn


def test_it_says_where_it_serves_and_ends_cleanly_with_what_it_has_acknowledged(store: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ("--json", "--report", report, "--retention", "36500d", "--journal", tmp_path / "journal")
    with serving(store, *words) as (process, said):
        url, put = said["url"], said["put"]
        assert said == {"url": f"http://127.0.0.1:{said['port']}", "port": said["port"], "put": put, "pid": process.pid}
        assert ask(url, "/write?db=shop", "cpu,host=a used=0.5,cores=8i 1769860800000000000")[0] == 204
        assert ask(url, "/api/put", '{"metric":"load","timestamp":1769860800,"value":1.5,"tags":{"host":"a"}}')[0] == 204
        with closing(socket.create_connection(("127.0.0.1", put))) as connection:
            connection.sendall(b"put load 1769860860 2 host=a\nversion\n")
            assert connection.recv(4096)  # answered once what came before it is durable
        second = subprocess.run([*COMMAND, "--store", store, *map(str, words)], capture_output=True, text=True, check=False)
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("outlast: ")]
        assert (second.returncode, second.stdout) == (78, "")
        assert "is held by another process; give each server a --journal of its own" in line
        # A look beside the server that runs.
        assert [point["fields"] for point in points(store, "cpu")] == [{"used": 0.5, "cores": 8}]
        assert [point["fields"] for point in points(store, "load")] == [{"value": 1.5}, {"value": 2}]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    assert "WARNING" not in err
    assert json.loads(report.read_text(encoding="utf-8"))["exit_code"] == 0
    result = CliRunner().invoke(app, ["tables", "ls", "--store", store, "--json"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["table"], row["points"], row["retention_s"]) for row in rows] == [
        ("cpu", 1, 36_500 * 86_400),
        ("load", 2, 36_500 * 86_400),
    ]
    result = CliRunner().invoke(app, ["tables", "drop", "cpu", "--yes", "--store", store])
    assert (result.exit_code, result.stdout) == (0, "table cpu: dropped\n")


def test_with_tokens_writing_and_reading_are_two_things(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKENS, encoding="utf-8")
    file = tmp_path / "metrics.db"
    with serving(file, "--tokens", tokens, "--put", "none", "--database", "shop") as (process, line):
        assert line.startswith(f"tables of the file {file} on http://127.0.0.1:")
        url = line.split()[-1]
        written = "/api/v2/write?org=o&bucket=shop", "cpu used=0.5"
        assert [ask(url, *written, f"Token {token}")[0] for token in ("x" * 20, READS, WRITES)] == [401, 403, 204]
        assert ask(url, *written)[0] == 401
        assert ask(url, "/write?db=other", "cpu used=0.5", f"Token {WRITES}")[0] == 404
        assert ask(url, f"/write?db=shop&u=collector&p={WRITES}", "cpu used=0.5")[0] == 204
        asked = "/api/suggest?type=metrics&q=c"
        assert [ask(url, asked, None, f"Bearer {token}")[0] for token in (WRITES, READS)] == [403, 200]
        assert ask(url, "/ping")[0] == 204
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert len(points(file, "cpu")) == 2
