"""`outlast streams serve` as a process: where it says it is, who comes in, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from outlast.streams import StoredStreams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "outlast", "streams", "serve", "--listen", "127.0.0.1:0"]
TOKENS = "looker read 0123456789abcdef-read\nwriter read,write 0123456789abcdef-write\n"


@contextmanager
def serving(*words: object) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Start it, and yield the process and what it said once it served."""
    command = [*COMMAND, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield process, json.loads(line) if "--json" in words else line
        finally:
            process.kill()


def ask(url: str, method: str = "GET", body: bytes | None = None, token: str | None = None) -> tuple[int, bytes]:
    headers = {"content-type": "text/plain"} | ({} if token is None else {"authorization": f"Bearer {token}"})
    where = urlsplit(url)
    with closing(HTTPConnection(where.netloc, timeout=60)) as connection:
        connection.request(method, where.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_it_says_where_it_serves_and_ends_cleanly_with_what_it_has_acknowledged(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    folder = tmp_path / "data"
    folder.mkdir()
    with serving(folder, "--json", "--report", report, "--retention-age", "1h", "--quota", "10M") as (process, said):
        assert said == {"url": f"http://127.0.0.1:{said['port']}", "port": said["port"], "pid": process.pid}
        url = said["url"]
        assert ask(f"{url}/readyz")[0] == 200
        assert ask(f"{url}/v1/stream/orders", "PUT")[0] == 201
        assert ask(f"{url}/v1/stream/orders", "POST", b"one")[0] == 204
        assert ask(f"{url}/v1/stream/orders") == (200, b"one")
        found = json.loads(ask(f"{url}/v1/streams/orders")[1])
        assert (found["options"]["retention"]["age_s"], found["options"]["quota_bytes"]) == (3600.0, 10 << 20)
        second = subprocess.run([*COMMAND, str(folder)], capture_output=True, text=True, check=False)
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("outlast: ")]
        assert (second.returncode, second.stdout) == (69, "")
        assert f"it is in use by process {process.pid}" in line
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    assert "WARNING" not in err
    assert json.loads(report.read_text(encoding="utf-8"))["exit_code"] == 0
    assert StoredStreams(folder).open("orders").tail == 1


def test_with_tokens_looking_and_changing_are_two_things(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKENS, encoding="utf-8")
    with serving(tmp_path, "--tokens", tokens, "--streams", 1) as (process, line):
        assert line.startswith(f"serving 0 streams in {tmp_path} on http://127.0.0.1:")
        orders = line.split()[-1] + "/v1/stream/orders"
        reads, writes = "0123456789abcdef-read", "0123456789abcdef-write"
        assert ask(orders, "PUT")[0] == 401
        assert ask(orders, "PUT", token=reads)[0] == 403
        assert ask(orders, "PUT", token=writes)[0] == 201
        assert ask(orders, token=reads)[0] == 200
        assert ask(orders + "-more", "PUT", token=writes)[0] == 429
        assert ask(orders)[0] == 401
        assert ask(orders.replace("stream/orders", "verify"), "POST", token=reads)[0] == 403
        assert ask(line.split()[-1] + "/readyz")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def test_an_address_that_is_taken_is_said_in_one_line_and_leaves_the_folder_free(tmp_path: Path) -> None:
    with serving(tmp_path, "--json") as (_, said):
        other = tmp_path / "other"
        other.mkdir()
        command = [*COMMAND, str(other), "--listen", f"127.0.0.1:{said['port']}"]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("outlast: ")]
    assert (second.returncode, second.stdout) == (78, "")
    assert f"127.0.0.1:{said['port']}" in line


def test_nobody_has_to_read_where_it_serves(tmp_path: Path) -> None:
    port_of: list[str] = []
    command = [*COMMAND, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            for line in process.stderr:
                if "serving on " in line:
                    port_of.append(line.split()[-1])
                    break
            assert ask(f"{port_of[0]}/readyz")[0] == 200
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait() == 0
        finally:
            process.kill()
