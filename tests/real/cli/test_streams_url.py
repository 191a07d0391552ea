"""`outlast streams` with the URL of a node that is a process of its own: tokens, a kill -9 under a tail, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from outlast.testing import free_port

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "outlast", "streams"]
TOKENS = "looker read 0123456789abcdef-read\nwriter read,write 0123456789abcdef-write\n"


def begun(*words: object, **environment: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *map(str, words)], stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environment}
    )


def node(folder: Path, port: int, tokens: Path) -> subprocess.Popen[bytes]:
    process = begun("serve", folder, "--listen", f"127.0.0.1:{port}", "--tokens", tokens, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["port"] == port
    return process


def append(url: str, token: Path, record: str) -> subprocess.CompletedProcess[bytes]:
    words = [*COMMAND, "append", "--create", url, "orders", record, "--token-file", str(token)]
    return subprocess.run(words, capture_output=True, check=False, timeout=60)


def test_a_tail_goes_on_behind_a_node_that_was_killed_and_ends_cleanly_with_ctrl_c(tmp_path: Path) -> None:
    folder, tokens, token, port = tmp_path / "data", tmp_path / "tokens", tmp_path / "token", free_port()
    folder.mkdir()
    tokens.write_text(TOKENS, encoding="utf-8")
    token.write_text("0123456789abcdef-write\n", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    with node(folder, port, tokens) as first:
        assert append(url, token, "one").stdout == b"1 records appended, at 0 to 0\n"
        with begun("tail", "-f", url, "orders", OUTLAST_STREAMS_TOKEN="0123456789abcdef-read") as reader:
            assert reader.stdout is not None
            assert reader.stderr is not None
            assert reader.stdout.readline() == b"one\n"
            append(url, token, "two")
            assert reader.stdout.readline() == b"two\n"
            first.kill()
            first.wait()
            assert b"waiting for it" in reader.stderr.readline()
            with node(folder, port, tokens) as second:
                append(url, token, "three")
                assert reader.stdout.readline() == b"three\n"
                reader.send_signal(signal.SIGINT)
                out, err = reader.communicate()
                second.terminate()
                assert second.wait() == 0
    assert (reader.returncode, out, err) == (0, b"", b"")


def test_who_may_not_is_told_in_one_line(tmp_path: Path) -> None:
    folder, tokens, port = tmp_path / "data", tmp_path / "tokens", free_port()
    folder.mkdir()
    tokens.write_text(TOKENS, encoding="utf-8")
    (tmp_path / "looker").write_text("0123456789abcdef-read", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    with node(folder, port, tokens) as process:
        refused = append(url, tmp_path / "looker", "one")
        nobody = subprocess.run([*COMMAND, "ls", url], capture_output=True, check=False, timeout=60)
        process.terminate()
    gone = subprocess.run([*COMMAND, "ls", url], capture_output=True, check=False, timeout=60)
    for done, says in ((refused, "403"), (nobody, "401"), (gone, "Connect")):
        assert done.returncode in {1, 69}
        assert done.stdout == b""
        (line,) = done.stderr.decode().splitlines()
        assert says in line, line
        assert "0123456789abcdef" not in line
