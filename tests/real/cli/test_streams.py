"""`outlast streams` as a process: ended by Ctrl-C, by a reader that leaves, with its input still open."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "outlast", "streams"]


def begun(*words: object) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *map(str, words)], stdin=pipe, stdout=pipe, stderr=pipe)


def filled(folder: Path, lines: int) -> None:
    command = [*COMMAND, "append", "--create", str(folder), "orders"]
    subprocess.run(command, input=b"a line\n" * lines, check=True, stdout=subprocess.DEVNULL)


def test_tail_prints_what_comes_and_ends_cleanly_with_ctrl_c(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    with begun("tail", "-f", tmp_path, "orders") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"a line\n"
        filled(tmp_path, 1)
        assert process.stdout.readline() == b"a line\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_reader_that_leaves_ends_it_without_a_word(tmp_path: Path) -> None:
    filled(tmp_path, 200_000)
    with begun("cat", tmp_path, "orders") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_append_stores_each_line_as_it_comes_and_ctrl_c_ends_it_though_its_input_is_open(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    with begun("append", tmp_path, "orders") as process, begun("tail", "-f", tmp_path, "orders") as reader:
        assert process.stdin is not None
        assert process.stdout is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"a line\n"
        process.stdin.write(b"typed\n")
        process.stdin.flush()
        assert reader.stdout.readline() == b"typed\n"
        reader.terminate()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"1 records appended, at 1 to 1\n"
        assert process.wait() == 130
