"""`outlast streams` as a process: ended by Ctrl-C, by a reader that leaves, with its input still open."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from outlast.streams import StoredStreams

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


def test_the_first_service_of_the_docs_goes_on_behind_what_it_has_acknowledged_after_kill_9(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "streams.md").read_text(encoding="utf-8")
    sample = page.split("```python\n", 1)[1].split("```", 1)[0].replace("every_s=1.0", "every_s=0.01")
    (tmp_path / "shop.py").write_text(sample, encoding="utf-8")
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-u", "-m", "outlast", "up", "shop:service"]
    printed: list[int] = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as service:
            assert service.stdout is not None
            lines = [service.stdout.readline() for _ in range(10)]
            service.send_signal(number)
            lines += service.communicate()[0].splitlines()
        printed += [int(line.split()[0]) for line in lines]
    # What was being worked on when it was killed may come twice, and nothing is left out.
    assert sorted(set(printed)) == list(range(max(printed) + 1))
    assert len(printed) - len(set(printed)) <= 1
    (consumer,) = StoredStreams(tmp_path / "data").open("orders").consumers()
    assert consumer.next >= max(printed) + 1
    assert service.returncode == 0
