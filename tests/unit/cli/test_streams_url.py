"""`outlast streams` with the URL of a node: the output, the JSON and the exit codes of a folder. The node is in this process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx2
import pytest
from click.testing import CliRunner, Result

import outlast
from outlast import Fault, Kind, Unavailable
from outlast._cli.app import app
from outlast._cli.streams import change, look, node, place
from outlast.http import ProblemMiddleware
from outlast.streams import (
    Client,
    ClientStream,
    Node,
    OutcomeUnknownError,
    Record,
    RecordPage,
    Sent,
    StreamInfo,
    Streams,
)

if TYPE_CHECKING:
    from collections.abc import Callable


URL = "http://127.0.0.1:4437"


class Asking(httpx2.AsyncBaseTransport):
    """Asks a node of the folder, on the event loop of the command, which is another each time."""

    def __init__(self, folder: Path, note: Callable[[httpx2.Request, httpx2.Response], None]) -> None:
        self._folder = folder
        self._note = note
        self._streams: Streams | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._streams is None:
            self._streams = await Streams(self._folder).__aenter__()
            self._asgi = httpx2.ASGITransport(app=ProblemMiddleware(Node(self._streams)))
        response = await self._asgi.handle_async_request(request)
        self._note(request, response)
        return response

    async def aclose(self) -> None:
        if self._streams is not None:
            await self._streams.__aexit__(None, None, None)


class InProcess(Client):
    """A client whose node is in this process, and ends with it."""

    def __init__(self, url: place.Url, transport: Asking) -> None:
        headers = {} if url.token is None else {"authorization": f"Bearer {url.token}"}
        self._own = httpx2.AsyncClient(transport=transport, base_url=url.url, headers=headers)
        super().__init__(url.url, client=self._own, deadline_s=node.DEADLINE_S)

    async def close(self) -> None:
        await super().close()
        await self._own.aclose()


class Served:
    """A folder that a node serves while a command asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[httpx2.Request] = []
        self.answered: Callable[[httpx2.Request, httpx2.Response], None] = lambda request, response: None

    def client_of(self, url: place.Url) -> Client:
        def note(request: httpx2.Request, response: httpx2.Response) -> None:
            self.asked.append(request)
            self.answered(request, response)

        return InProcess(url, Asking(self.folder, note))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    found = Served(tmp_path / "data")
    found.folder.mkdir()
    monkeypatch.setattr(node, "client_of", found.client_of)
    monkeypatch.setattr(change, "client_of", found.client_of)
    return found


def streams(*words: object, data: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["streams", *map(str, words)], input=data)


def the_line(result: Result) -> str:
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("outlast: ")
    return line


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_records_are_appended_and_printed(served: Served) -> None:
    result = streams("append", "--create", URL, "orders", "first", "second ü")
    assert (result.exit_code, result.stdout) == (0, "2 records appended, at 0 to 1\n"), result.output
    appended = streams("append", URL, "orders", "third", "--json")
    assert objects(appended) == [{"stream": "orders", "records": 1, "first": 2, "next": 3}]
    assert streams("cat", URL, "orders").stdout == "first\nsecond ü\nthird\n"
    assert streams("cat", URL, "orders", "--from", 1, "--limit", 1).stdout == "second ü\n"
    assert streams("tail", URL, "orders", "-n", 1).stdout == "third\n"
    assert streams("tail", URL, "orders", "-n", 0).stdout == ""


def test_lines_of_standard_input_are_requests_one_after_the_other(served: Served) -> None:
    result = streams("append", "--create", URL, "log", data=b"a\n\xff\xfe\nlast")
    assert result.stdout == "3 records appended, at 0 to 2\n"
    posts = [request for request in served.asked if request.method == "POST"]
    assert [request.headers["producer-seq"] for request in posts] == ["0", "1", "2"]
    assert len({request.headers["producer-id"] for request in posts}) == 1
    found = objects(streams("cat", URL, "log", "--json"))
    assert [each.get("data", each.get("data_base64")) for each in found] == ["a", "//4=", "last"]


def test_an_append_whose_answer_is_lost_is_stored_once(served: Served) -> None:
    streams("append", "--create", served.folder, "orders", "first")
    lost = iter([True, False])

    def lose(request: httpx2.Request, response: httpx2.Response) -> None:
        if request.method == "POST" and next(lost):
            raise httpx2.ReadError("the connection broke")

    served.answered = lose
    result = streams("append", URL, "orders", "second")
    assert (result.exit_code, result.stdout) == (0, "1 records appended, at 1 to 1\n"), result.output
    assert [request.method for request in served.asked].count("POST") == 2
    assert streams("cat", served.folder, "orders").stdout == "first\nsecond\n"


def test_messages_of_a_list_are_a_record_each(served: Served) -> None:
    async def make() -> None:
        async with InProcess(place.Url(URL), Asking(served.folder, lambda request, response: None)) as client:
            await client.create("events", content_type="application/json")

    asyncio.run(make())
    result = streams("append", URL, "events", '{"n": 1}', "[2, 3]", "4")
    assert result.stdout == "4 records appended, at 0 to 3\n"
    assert streams("cat", URL, "events").stdout == '{"n": 1}\n2\n3\n4\n'


def test_what_is_stored_of_an_input_that_fails_is_told(served: Served) -> None:
    result = streams("append", "--create", URL, "log", data=b"a\nb\n\nc\n")
    assert result.exit_code == 64
    assert result.stdout == "2 records appended, at 0 to 1\n"
    assert "an empty record cannot be sent to a node" in the_line(result)


LOOKS = [
    ("ls", "--json"),
    ("ls",),
    ("cat", "orders"),
    ("cat", "orders", "--json"),
    ("cat", "orders", "--from", 2, "--limit", 1, "--json"),
    ("cat", "a/b c", "--json"),
    ("tail", "orders", "-n", 2),
    ("tail", "-f", "done"),
    ("cursors",),
    ("cursors", "--json"),
    ("cursors", "orders", "--json"),
]


@pytest.mark.parametrize("words", LOOKS)
def test_it_prints_what_is_printed_of_the_folder(served: Served, words: tuple[object, ...]) -> None:
    fill(served.folder)
    options = [word for word in words[1:] if str(word).startswith("-f")]
    rest = [word for word in words[1:] if word not in options]
    by_folder = streams(words[0], *options, served.folder, *rest)
    by_url = streams(words[0], *options, URL, *rest)
    assert by_folder.exit_code == 0, by_folder.output
    assert (by_url.exit_code, by_url.stdout, by_url.stderr) == (0, by_folder.stdout, "")


def fill(folder: Path) -> None:
    """A stream that is trimmed and has a consumer, one that is closed, one whose name a URL encodes."""

    async def act() -> None:
        async with Streams(folder) as opened:
            orders = await opened.create("orders")
            await orders.append([b"zero", b"one", b"\xff", b"three"], headers={"kind": "test"})
            await orders.trim(1)
            billing = await orders.consumer("billing")
            got = await billing.fetch(2)
            await billing.acknowledge(got[0].position)
            done = await opened.create("done")
            await done.append(b"all")
            await done.close()
            await (await opened.create("a/b c")).append(b"x")

    asyncio.run(act())


def test_a_fork_is_whole_and_what_it_is_forked_from_may_be_gone(served: Served) -> None:
    async def make() -> None:
        asking = Asking(served.folder, lambda request, response: None)
        async with httpx2.AsyncClient(transport=asking, base_url=f"{URL}/v1/stream/") as client:
            kind = {"content-type": "text/plain"}
            for record in (b"one", b"two"):
                await client.request("PUT" if record == b"one" else "POST", "base", headers=kind, content=record)
            (await client.put("fork", headers=kind | {"stream-forked-from": "/v1/stream/base"})).raise_for_status()
            (await client.delete("base")).raise_for_status()

    asyncio.run(make())
    streams("append", URL, "fork", "three")
    assert streams("cat", URL, "fork").stdout == "one\ntwo\nthree\n"
    assert streams("cat", served.folder, "fork").stdout == "three\n"
    for words in (("cat", URL, "base"), ("cursors", URL, "base")):
        result = streams(*words)
        assert result.exit_code == 66
        assert f"stream 'base' in {URL}: it was deleted; its forks keep" in the_line(result)
    # The name is not free yet.
    assert streams("append", URL, "base", "x").exit_code == 66
    result = streams("append", "--create", URL, "base", "x")
    assert result.exit_code == 1
    assert "was deleted; its forks keep its records, and its name" in the_line(result)


def test_trim_says_the_same(served: Served) -> None:
    streams("append", "--create", served.folder, "orders", "a", "b", "c", "d")
    assert objects(streams("trim", URL, "orders", 2, "--json")) == [{"stream": "orders", "trimmed": 2, "oldest": 2}]
    assert streams("trim", URL, "orders", 3).stdout == "1 records trimmed; the oldest is at 3\n"
    assert streams("cat", served.folder, "orders").stdout == "d\n"


def test_verify_has_the_node_read_its_disks(served: Served) -> None:
    for record in ("first", "second", "third"):
        streams("append", "--create", served.folder, "orders", record)
    result = streams("verify", URL)
    assert result.exit_code == 0, result.output
    assert "3 records in 1 stream, 1 segment" in result.stdout
    assert result.stdout.endswith("nothing is damaged (a process holds them: what it was writing is no finding)\n")
    (path,) = (served.folder / "streams").glob("*/*.log")
    data = bytearray(path.read_bytes())
    data[data.index(b"second")] ^= 1
    path.write_bytes(data)
    result = streams("verify", URL)
    assert (result.exit_code, "stream 'orders'" in result.stdout) == (1, True)
    by_folder = json.loads(streams("verify", served.folder, "--json").stdout)
    by_url = json.loads(streams("verify", URL, "--json").stdout)
    assert by_url["findings"] == by_folder["findings"]
    assert set(by_url) == set(by_folder)
    read = streams("cat", URL, "orders")
    assert (read.exit_code, read.stdout) == (1, "first\n")
    assert "is damaged at position 1" in the_line(read)
    assert "go on behind it with --from 2" in the_line(read)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("cat", URL, "audit"), 66, f"cannot read stream 'audit' in {URL}: there is no"),
        (("cursors", URL, "audit"), 66, f"cannot read the cursors of stream 'audit' in {URL}: there is no"),
        (("trim", URL, "audit", "1"), 66, f"cannot trim stream 'audit' in {URL}: there is no"),
        (("append", URL, "audit", "a"), 66, "there is no such stream; --create makes it"),
        (("append", URL, "orders", "a", "--header", "a=b"), 64, "--header is for a FOLDER: over HTTP a record has no headers"),
        (("append", URL, "done", "a", "--create"), 1, f"cannot append to stream 'done' in {URL}: it "),
        (("append", URL, "a\nb", "a", "--create"), 64, "has control characters"),
        (("trim", URL, "orders", "9"), 1, "position 9 is beyond the tail 4; the oldest there is 1"),
        (("cat", URL, "orders", "--from", "0"), 1, "position 0 is gone; the oldest there is 1, the tail 4"),
        (("cat", URL, "orders", "--from", "5"), 1, "position 5 is beyond the tail 4"),
        (("verify", "--repair", URL), 64, "A node does not repair what it serves: stop it, and use --repair on its FOLDER."),
        (("ls", "http://alice:secret@host"), 64, "is seen by everyone who lists processes; use --token-file"),
        (("ls", "http://"), 78, "cannot list the streams in http:"),
        (("ls", URL, "--token-file", "nowhere"), 64, "the token in nowhere cannot be read: No such file or directory"),
        (("ls", URL, "--token-file", "two"), 64, "two holds no token: it is one word of ASCII"),
        (("ls", ".", "--token-file", "two"), 64, "--token-file is for the URL of a node, and '.' is a folder"),
    ],
)
def test_every_mistake_is_one_line_and_an_exit_code(
    words: tuple[str, ...], code: int, says: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two").write_text("one two", encoding="utf-8")
    fill(served.folder)
    result = streams(*words)
    assert (result.exit_code, says in the_line(result)) == (code, True), result.output
    assert "secret" not in result.output
    assert "one two" not in result.output


@pytest.mark.parametrize("by_file", [True, False])
def test_a_token_is_sent_and_never_shown(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_file: bool
) -> None:
    streams("append", "--create", served.folder, "orders", "a")
    file = tmp_path / "token"
    file.write_text("s3cret\n" if by_file else "other", encoding="utf-8")
    monkeypatch.setenv("OUTLAST_STREAMS_TOKEN", "other" if by_file else "s3cret")
    result = streams("cat", URL, "orders", *(("--token-file", file) if by_file else ()))
    assert (result.exit_code, result.stdout) == (0, "a\n"), result.output
    assert {request.headers["authorization"] for request in served.asked} == {"Bearer s3cret"}
    assert "s3cret" not in repr(place.Url(URL, "s3cret"))


class Scripted:
    """A node with one stream, whose answers a test has written. Those who wait at the tail may be refused."""

    unknown = ()

    def __init__(self, *answers: RecordPage | Unavailable | type[KeyboardInterrupt]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, bool]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self, name: str) -> node.NodeStream:
        return node.NodeStream(self, name)  # type: ignore[arg-type]

    def info(self, stream: str) -> StreamInfo:
        return StreamInfo(stream, oldest=0, tail=1)

    def records(self, stream: str, position: int, wait_s: float = 0.0) -> RecordPage:
        self.asked.append((position, wait_s > 0))
        answer = self.answers.pop(0)
        if isinstance(answer, RecordPage):
            return answer
        raise answer


def page(*data: bytes, first: int, closed: bool = False) -> RecordPage:
    records = tuple(Record(first + at, each, 0.0) for at, each in enumerate(data))
    behind = first + len(data)
    return RecordPage(records, behind, oldest=0, tail=behind, closed=closed)


def away() -> Unavailable:
    return Unavailable("node", Fault(Kind.TRANSIENT, "ECONNREFUSED", "nobody listens", "node"), 0.0, 99.0)


def test_tail_follows_what_comes_and_waits_for_a_node_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(node.time, "sleep", waits.append)
    last = page(first=3, closed=True)
    found = Scripted(page(b"one", first=0), page(b"two", first=1), away(), away(), page(b"three", first=2), away(), last)
    monkeypatch.setattr(look, "NodeStreams", lambda url: found)
    result = streams("tail", "-f", URL, "orders")
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\nthree\n")
    # Said once each time that it is away; and nothing is asked twice.
    assert result.stderr == "outlast: the node is away (ECONNREFUSED: nobody listens); waiting for it\n" * 2
    assert waits == [node.AGAIN_S_MAX] * 3
    assert found.asked == [(0, False), (1, True), (2, True), (2, True), (2, True), (3, True), (3, True)]


def test_ctrl_c_is_the_way_to_end_a_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "NodeStreams", lambda url: Scripted(page(b"one", first=0), KeyboardInterrupt))
    result = streams("tail", "-f", URL, "orders")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\n", "")


def test_what_nobody_knows_is_not_called_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def append(self: ClientStream, data: object, **options: object) -> Sent:
        raise OutcomeUnknownError(self.name, "the node has not answered")

    streams("append", "--create", served.folder, "orders", "a")
    monkeypatch.setattr(ClientStream, "append", append)
    result = streams("append", URL, "orders", "a")
    assert result.exit_code == 69
    assert the_line(result).endswith("the node has not answered")


def test_a_full_disk_is_told_by_its_first_cause(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def append(self: ClientStream, data: object, **options: object) -> Sent:
        raise Unavailable("node", Fault(Kind.EXHAUSTED, "low space", "3.0 MiB are left on data", "node"), 4.0, 1.0)

    streams("append", "--create", served.folder, "orders", "a")
    monkeypatch.setattr(ClientStream, "append", append)
    result = streams("append", URL, "orders", "a")
    assert result.exit_code == 69
    assert the_line(result) == f"outlast: cannot append to stream 'orders' in {URL}: low space: 3.0 MiB are left on data"


@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        ("httpx2", ("ls", URL), "httpx2 is not installed: pip install 'outlast[http]'"),
        ("google_crc32c", ("ls", "here"), 'pip install "outlast[streams]"'),
    ],
)
def test_a_package_that_is_not_installed_is_named(tmp_path: Path, module: str, words: tuple[str, ...], says: str) -> None:
    (tmp_path / "here").mkdir()
    code = f"import sys; sys.modules[{module!r}] = None; from outlast._cli.main import main; sys.exit(main())"
    environment = {"PYTHONPATH": str(Path(outlast.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, "streams", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert says in line


@pytest.mark.parametrize(("status", "says"), [(401, "use --token-file or $OUTLAST_STREAMS_TOKEN"), (403, "has not the scope")])
def test_a_token_that_is_not_let_in(served: Served, status: int, says: str) -> None:
    def answered(request: httpx2.Request, response: httpx2.Response) -> None:
        response.status_code = status

    served.answered = answered
    result = streams("ls", URL)
    assert (result.exit_code, says in the_line(result)) == (78, True), result.output
