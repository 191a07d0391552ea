"""`outlast streams` on a real folder: its output, and every message that a user can meet."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from outlast._cli.app import app
from outlast._cli.streams import change, folder, group
from outlast._cli.streams.group import holder_of
from outlast.extend import LOCAL_FILES
from outlast.streams import StoredStreams, StreamOptions, Streams
from outlast.streams._consumers import OpenedFiles
from outlast.streams._consumers._cursor import Event, EventKind
from outlast.streams._consumers._file import CursorFile
from outlast.streams._consumers._runs import Run
from outlast.streams._format.frames import encode_frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path


def streams(*words: object, data: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["streams", *map(str, words)], input=data)


def objects(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def the_line(result: Result) -> str:
    """What a mistake writes: one line on stderr, and no traceback."""
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("outlast: ")
    return line


def using(folder: Path, act: Callable[[Streams], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Streams(folder) as opened:
            await act(opened)

    asyncio.run(main())


def store(folder: Path, name: str, records: Sequence[bytes], *, close: bool = False, **options: int) -> None:
    async def act(opened: Streams) -> None:
        stream = await opened.create(name, StreamOptions(**options))  # type: ignore[arg-type]
        for record in records:
            await stream.append(record)
        if close:
            await stream.close()

    using(folder, act)


def cursors(folder: Path, name: str, *events: Event) -> None:
    stream = StoredStreams(folder).open(name)
    file = CursorFile(folder / "streams" / stream.id, name, int(stream.id, 16), OpenedFiles(LOCAL_FILES, lambda each: each()))
    file.write([], events, sync=True)
    file.close()


@contextmanager
def newer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write what a newer version of outlast would."""
    with monkeypatch.context() as patch:
        patch.setitem(encode_frame.__kwdefaults__, "version", 99)
        patch.setattr("outlast.streams._format.meta.FIRST_VERSION", 99)
        patch.setattr("outlast.streams._format.frames.VERSION", 99)
        yield


def test_records_are_appended_and_printed(tmp_path: Path) -> None:
    result = streams("append", "--create", tmp_path, "orders", "first", "second ü")
    assert (result.exit_code, result.stdout) == (0, "2 records appended, at 0 to 1\n")
    appended = streams("append", tmp_path, "orders", "third", "--header", "kind=test=1", "--json")
    assert objects(appended) == [{"stream": "orders", "records": 1, "first": 2, "next": 3}]
    assert streams("cat", tmp_path, "orders").stdout == "first\nsecond ü\nthird\n"
    assert streams("cat", tmp_path, "orders", "--from", 1, "--limit", 1).stdout == "second ü\n"
    assert streams("tail", tmp_path, "orders", "-n", 1).stdout == "third\n"
    assert streams("tail", tmp_path, "orders", "-n", 0).stdout == ""
    (found,) = objects(streams("tail", tmp_path, "orders", "-n", 1, "--json"))
    assert found["time"]
    assert found | {"time": ""} == {"position": 2, "time": "", "data": "third", "headers": {"kind": "test=1"}}


def test_lines_of_standard_input_are_records_and_the_last_needs_no_end(tmp_path: Path) -> None:
    result = streams("append", "--create", tmp_path, "log", data=b"a\n\n\xff\xfe\nlast")
    assert result.stdout == "4 records appended, at 0 to 3\n"
    found = objects(streams("cat", tmp_path, "log", "--json"))
    assert [each.get("data") for each in found] == ["a", "", None, "last"]
    assert found[2]["data_base64"] == "//4="
    empty = streams("append", tmp_path, "log", "--json", data=b"")
    assert objects(empty) == [{"stream": "log", "records": 0, "first": None, "next": 0}]


def test_many_lines_are_few_appends_and_come_back_as_they_were(tmp_path: Path) -> None:
    data = b"".join(b"%d\n" % number for number in range(30_000))
    assert streams("append", "--create", tmp_path, "log", data=data).stdout == "30,000 records appended, at 0 to 29999\n"
    result = streams("cat", tmp_path, "log")
    assert result.stdout_bytes == data
    assert StoredStreams(tmp_path).open("log").size_bytes < 2 * len(data) + 30_000 * 4


def test_ls_shows_what_there_is(tmp_path: Path) -> None:
    assert streams("ls", tmp_path).stdout == "no streams\n"
    assert streams("ls", tmp_path, "--json").stdout == ""
    store(tmp_path, "orders", [b"a", b"b"])
    store(tmp_path, "audit", [b"x"], close=True)
    assert streams("trim", tmp_path, "orders", 1).stdout == "1 records trimmed; the oldest is at 1\n"
    audit, orders = objects(streams("ls", tmp_path, "--json"))
    assert (audit["name"], audit["is_closed"], audit["records"]) == ("audit", True, 1)
    assert (orders["oldest"], orders["tail"], orders["segments"], orders["is_closed"]) == (1, 2, 1, False)
    table = streams("ls", tmp_path).stdout
    assert "orders" in table
    assert "closed" in table


def test_ls_shows_the_others_when_one_cannot_be_read(tmp_path: Path) -> None:
    store(tmp_path, "orders", [b"a"])
    store(tmp_path, "audit", [b"a"])
    stream = StoredStreams(tmp_path).open("audit")
    for path in (tmp_path / "streams" / stream.id).glob("*.log"):
        path.unlink()
    (tmp_path / "streams" / "0123456789abcdef").mkdir()
    (tmp_path / "streams" / "0123456789abcdef" / "00000000000000000000.log").write_bytes(b"a segment")
    result = streams("ls", tmp_path)
    assert result.exit_code == 1
    assert "cannot be read" in result.stdout
    assert "no segment is in the folder" in result.stderr
    assert "0123456789abcdef belongs to no stream that is known: it has no meta" in result.stderr
    (line,) = [line for line in streams("ls", tmp_path, "--json").stdout.splitlines() if "audit" in line]
    assert "no segment is in the folder" in json.loads(line)["error"]


def test_trim_is_told_in_json_too(tmp_path: Path) -> None:
    store(tmp_path, "orders", [b"a", b"b", b"c"])
    assert objects(streams("trim", tmp_path, "orders", 2, "--json")) == [{"stream": "orders", "trimmed": 2, "oldest": 2}]


def test_cursors_shows_consumers(tmp_path: Path) -> None:
    store(tmp_path, "orders", [b"%d" % number for number in range(20)])
    assert streams("cursors", tmp_path).stdout == "no consumers\n"
    delivered = Event(EventKind.DELIVERED, "billing", (Run(0, 15),))
    aside = Event(EventKind.SET_ASIDE, "billing", tuple(Run(each, each + 1) for each in range(0, 12, 2)))
    cursors(tmp_path, "orders", Event(EventKind.BEGUN, "billing"), delivered, aside)
    (found,) = objects(streams("cursors", tmp_path, "orders", "--json"))
    assert found == {
        "stream": "orders",
        "consumer": "billing",
        "next": 15,
        "lag": 14,
        "open": 9,
        "skipped": 0,
        "set_aside": [[each, each + 1] for each in range(0, 12, 2)],
    }
    table = streams("cursors", tmp_path).stdout
    assert "billing" in table
    assert "and 1 more" in table


def test_cursors_of_a_newer_format_and_damaged_ones_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "orders", [b"a"])
    with newer(monkeypatch):
        cursors(tmp_path, "orders", Event(EventKind.BEGUN, "billing"))
    result = streams("cursors", tmp_path, "orders")
    assert result.exit_code == 78
    assert "cannot read the cursors of stream 'orders'" in the_line(result)
    assert "format 99" in the_line(result)
    (path,) = (tmp_path / "streams").glob("*/consumers")
    path.write_bytes(b"no cursors")
    result = streams("cursors", tmp_path)
    assert result.exit_code == 1
    assert "consumers is damaged" in the_line(result)


def test_verify_says_what_is_damaged_and_repairs_it(tmp_path: Path) -> None:
    store(tmp_path, "orders", [b"first", b"second", b"third"])
    result = streams("verify", tmp_path)
    assert result.exit_code == 0
    assert "3 records in 1 stream, 1 segment" in result.stdout
    assert "nothing is damaged" in result.stdout
    (path,) = (tmp_path / "streams").glob("*/*.log")
    data = bytearray(path.read_bytes())
    data[data.index(b"second")] ^= 1
    path.write_bytes(data)
    result = streams("verify", tmp_path)
    assert result.exit_code == 1
    assert "stream 'orders'" in result.stdout
    assert "position 1" in result.stdout
    report = streams("verify", tmp_path, "--json")
    assert report.exit_code == 1
    assert json.loads(report.stdout)["findings"][0]["position"] == 1
    read = streams("cat", tmp_path, "orders")
    assert (read.exit_code, read.stdout) == (1, "first\n")
    assert "is damaged at position 1" in the_line(read)
    assert "go on behind it with --from 2" in the_line(read)
    assert streams("cat", tmp_path, "orders", "--from", 2).stdout == "third\n"
    assert streams("verify", "--repair", tmp_path).exit_code == 0
    assert streams("verify", tmp_path).exit_code == 0


def test_a_folder_that_is_in_use_can_be_looked_at_and_not_changed(tmp_path: Path) -> None:
    async def act(opened: Streams) -> None:
        stream = await opened.create("orders")
        await stream.append([b"a", b"b"])

        def look_at_it() -> None:
            before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            for words in (("ls",), ("cat", "orders"), ("tail", "orders"), ("cursors",), ("cursors", "orders"), ("verify",)):
                assert streams(words[0], tmp_path, *words[1:]).exit_code == 0, words
            for words in (("append", "orders", "x"), ("trim", "orders", 1), ("verify", "--repair")):
                result = streams(words[0], *words[2:][:1] if words[1] == "--repair" else (), tmp_path, *words[1:])
                assert result.exit_code == 69
                line = the_line(result)
                assert f"it is in use by process {os.getpid()} (" in line
                assert line.endswith("; stop that first")
            assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

        await asyncio.to_thread(look_at_it)

    using(tmp_path, act)


def test_tail_follows_a_stream_that_grows_rolls_over_and_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait of the command is a step of the service beside it."""
    steps: list[Callable[[], None]] = []
    monkeypatch.setattr(folder.time, "sleep", lambda _: steps.pop(0)())

    async def act(opened: Streams) -> None:
        loop = asyncio.get_running_loop()
        stream = await opened.create("orders", StreamOptions(segment_bytes=4096))

        def step(act: Callable[[], Awaitable[object]]) -> Callable[[], None]:
            async def awaited() -> None:
                await act()

            return lambda: asyncio.run_coroutine_threadsafe(awaited(), loop).result()

        async def fill() -> None:
            for number in range(100):
                await stream.append(b"%d " % number + bytes(100))

        steps.extend([step(lambda: stream.append(b"one")), lambda: None, step(fill), step(lambda: stream.append(b"two"))])
        steps.append(step(stream.close))
        result = await asyncio.to_thread(streams, "tail", "-f", tmp_path, "orders")
        assert result.exit_code == 0, result.output
        found = result.stdout.splitlines()
        assert (found[0], found[-1], len(found)) == ("one", "two", 102)
        assert StoredStreams(tmp_path).open("orders").segments > 1

    using(tmp_path, act)
    assert steps == []


def test_tail_ends_cleanly_with_ctrl_c_and_says_when_the_stream_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "orders", [b"a"])

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder.time, "sleep", interrupt)
    result = streams("tail", "-f", tmp_path, "orders")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a\n", "")

    async def delete(opened: Streams) -> None:
        await opened.delete("orders")

    monkeypatch.setattr(folder.time, "sleep", lambda _: using(tmp_path, delete))
    result = streams("tail", "-f", tmp_path, "orders")
    assert result.exit_code == 66
    assert the_line(result).endswith("it was deleted")


def test_a_trim_under_tail_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "orders", [b"a"])

    async def trim(opened: Streams) -> None:
        stream = await opened.open("orders")
        await stream.append([b"b", b"c"])
        await stream.trim(3)

    monkeypatch.setattr(folder.time, "sleep", lambda _: using(tmp_path, trim))
    result = streams("tail", "-f", tmp_path, "orders")
    assert result.exit_code == 1
    assert the_line(result).endswith("position 1 is gone; the oldest there is 3, the tail 3")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("ls", "nowhere"), 66, "cannot list the streams in nowhere: there is no nowhere"),
        (("cat", "nowhere", "orders"), 66, "cannot read stream 'orders' in nowhere: there is no nowhere"),
        (("verify", "nowhere"), 66, "cannot verify the streams in nowhere: there is no nowhere"),
        (("append", "nowhere", "orders", "a"), 66, "cannot append to stream 'orders' in nowhere: there is no nowhere"),
        (("cat", "here", "audit"), 66, "cannot read stream 'audit' in here: there is no such stream among the 1 in here"),
        (("cursors", "here", "audit"), 66, "cannot read the cursors of stream 'audit' in here: there is no such stream"),
        (("trim", "here", "audit", "1"), 66, "cannot trim stream 'audit' in here: there is no such stream"),
        (("append", "here", "audit", "a"), 66, "there is no such stream among the 1; --create makes it"),
        (("append", "here", "orders", "a", "--header", "x"), 64, "--header 'x' is no header; write NAME=VALUE."),
        (("append", "here", "orders", "a", "--header", "=x"), 64, "--header '' is no header"),
        (("append", "here", "done", "a", "--create"), 1, "cannot append to stream 'done' in here: it was closed at position 0"),
        (("append", "here", "a\nb", "a", "--create"), 64, "the name of a stream has no control characters"),
        (("trim", "here", "orders", "3"), 1, "position 3 is beyond the tail 2; the oldest there is 1"),
        (("trim", "here", "orders", "-1"), 64, "-1"),
        (("cat", "here", "orders", "--from", "0"), 1, "position 0 is gone; the oldest there is 1, the tail 2"),
        (("cat", "here", "orders", "--from", "3"), 1, "position 3 is beyond the tail 2"),
        (("cat", "here", "newer"), 66, "and 1 folders there belong to no stream that is known"),
        (("cat", "here/file", "orders"), 69, "cannot read stream 'orders' in here/file: Not a directory"),
    ],
)
def test_every_mistake_is_one_line_and_an_exit_code(
    words: tuple[str, ...],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected_logs: Callable[..., None],
) -> None:
    expected_logs("no stream is known of the folder", optional=True)
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    (here / "file").touch()
    store(here, "orders", [b"a", b"b"])
    if "done" in words:
        store(here, "done", [], close=True)
    if "newer" in words:
        with newer(monkeypatch):
            store(here, "newer", [b"a"])
    if words[0] in {"cat", "trim"}:
        streams("trim", here, "orders", 1)
    result = streams(*words)
    assert (result.exit_code, says in the_line(result)) == (code, True), result.output


def test_what_is_stored_of_an_input_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "LINE_BYTES_MAX", 100)
    monkeypatch.setattr(change, "READ_BYTES", 100)
    result = streams("append", "--create", tmp_path, "log", data=b"a\nb\n" + bytes(300))
    assert result.exit_code == 64
    assert result.stdout == "2 records appended, at 0 to 1\n"
    assert "a line is longer than 100 B, the most that is taken" in the_line(result)


def test_a_holder_that_cannot_be_found_out_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    assert holder_of(lock) == ""
    with lock.open("w") as opened:
        assert holder_of(lock) == ""
        fcntl.flock(opened, fcntl.LOCK_EX)
        assert holder_of(lock).startswith(f"process {os.getpid()} (")
        monkeypatch.setattr(group, "PROCESSES", tmp_path)
        assert holder_of(lock) == f"process {os.getpid()}"
        monkeypatch.setattr(group, "LOCKS", tmp_path / "locks")
        assert holder_of(lock) == ""


@pytest.mark.parametrize("command", ["ls", "cat", "append", "tail", "trim", "verify", "cursors"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = streams(command, "--help")
    assert result.exit_code == 0
    assert f"Example: outlast streams {command} " in result.stdout
    assert "--json" in result.stdout
