"""`outlast streams` with the URL of a node that is a process of its own: tokens, a kill -9 under a tail, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from click.testing import CliRunner

from outlast._cli.app import app
from outlast.testing import free_port

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "outlast", "streams"]
TOKENS = "looker read 0123456789abcdef-read\nwriter read,write 0123456789abcdef-write\n"


def begun(*words: object, **environment: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *map(str, words)], stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environment})


def node(folder: Path, port: int, tokens: Path) -> subprocess.Popen[bytes]:
    process = begun("serve", folder, "--listen", f"127.0.0.1:{port}", "--tokens", tokens, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["port"] == port
    return process


def streams(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["streams", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_a_tail_goes_on_behind_a_node_that_was_killed_and_ends_cleanly_with_ctrl_c(tmp_path: Path) -> None:
    folder, tokens, port = tmp_path / "data", tmp_path / "tokens", free_port()
    writer, looker = tmp_path / "writer", tmp_path / "looker"
    folder.mkdir()
    tokens.write_text(TOKENS, encoding="utf-8")
    writer.write_text("0123456789abcdef-write\n", encoding="utf-8")
    looker.write_text("0123456789abcdef-read\n", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    with node(folder, port, tokens) as first:
        appended = streams("append", "--create", url, "orders", "one", "--token-file", writer)
        assert appended == (0, "1 records appended, at 0 to 0\n", "")
        assert streams("append", url, "orders", "two", "--token-file", looker)[0] == 78
        assert streams("ls", url)[0] == 78
        with begun("tail", "-f", url, "orders", OUTLAST_STREAMS_TOKEN="0123456789abcdef-read") as reader:
            assert reader.stdout is not None
            assert reader.stderr is not None
            assert reader.stdout.readline() == b"one\n"
            streams("append", url, "orders", "two", "--token-file", writer)
            assert reader.stdout.readline() == b"two\n"
            first.kill()
            first.wait()
            assert b"waiting for it" in reader.stderr.readline()
            with node(folder, port, tokens) as second:
                streams("append", url, "orders", "three", "--token-file", writer)
                assert reader.stdout.readline() == b"three\n"
                reader.send_signal(signal.SIGINT)
                out, err = reader.communicate()
                second.terminate()
                assert second.wait() == 0
    assert (reader.returncode, out, err) == (0, b"", b"")
