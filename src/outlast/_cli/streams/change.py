"""Commands that change something: append and trim. They hold the folder, so no service may run on it; or they ask its node."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import click

from outlast._cli.streams.group import explained, on_stream
from outlast._cli.streams.node import STORED_S, client_of
from outlast._cli.streams.place import Url
from outlast.extend import OwnThread, size_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from outlast.streams import Client, ClientStream, Stream, Streams

    Store: TypeAlias = Callable[[list[bytes]], Awaitable[None]]
    """Stores records, in their order, and counts them."""

READ_BYTES: Final = 1 << 20
LINE_BYTES_MAX: Final = 16 << 20
"""A longer line is refused, rather than held in memory without end."""
BATCH_MAX: Final = 10_000
"""Records of one append."""


def add_to(streams: click.Group) -> None:
    """Add the commands."""
    streams.add_command(append)
    streams.add_command(trim)


@click.command()
@on_stream
@click.argument("records", metavar="[RECORD]...", nargs=-1)
@click.option("--create", is_flag=True, help="Make the stream if there is none of this name.")
@click.option("--header", "headers", metavar="NAME=VALUE", multiple=True, help="A header of every record (repeatable).")
def append(
    place: Path | Url, stream: str, records: tuple[str, ...], headers: tuple[str, ...], *, create: bool, as_json: bool
) -> int:
    """Append each RECORD to STREAM, or without any each line of standard input, and say at which positions.

    They are on disk when this ends with exit code 0; otherwise it says how many are. The line ends are no part of the records.
    A node gets one request a record, each with a number, so that one which is sent again is stored once.

    Example: outlast streams append --create ./data orders "first" "second"

    journalctl -o cat | outlast streams append ./data log
    """
    common = _headers(headers)
    if common is not None and isinstance(place, Url):
        raise click.UsageError("--header is for a FOLDER: over HTTP a record has no headers.")
    total = _Total()

    async def act() -> None:
        async with _store(place, stream, common, total, create=create) as store:
            if records:
                await store([record.encode("utf-8", "surrogateescape") for record in records])
            else:
                await _append_lines(store, sys.stdin.buffer)

    try:
        with explained("append to", place, stream):
            asyncio.run(act())
    finally:
        # Also when it fails: what is stored is stored.
        if total.first is not None or as_json:
            _say(total, stream, as_json=as_json)
    return 0


@click.command()
@on_stream
@click.argument("before", type=click.IntRange(min=0))
def trim(place: Path | Url, stream: str, before: int, *, as_json: bool) -> int:
    """Let go of all records of STREAM below the position BEFORE. Their room comes back whole segments at a time.

    Example: outlast streams trim ./data orders 100000
    """
    with explained("trim", place, stream):
        was, oldest = asyncio.run(_trim_node(place, stream, before) if isinstance(place, Url) else _trim(place, stream, before))
    if as_json:
        click.echo(json.dumps({"stream": stream, "trimmed": oldest - was, "oldest": oldest}))
    else:
        click.echo(f"{oldest - was:,} records trimmed; the oldest is at {oldest}")
    return 0


class _Total:
    """The records that were stored, by as many appends as it took."""

    def __init__(self) -> None:
        self.records = 0
        self.first: int | None = None
        self.next = 0

    def add(self, first: int, behind: int) -> None:
        """Add those of one append, by their positions."""
        self.records += behind - first
        self.first = first if self.first is None else self.first
        self.next = behind


async def _trim(folder: Path, stream: str, before: int) -> tuple[int, int]:
    """Trim; return the oldest positions before and after it."""
    async with _opened(folder) as opened:
        found = await opened.open(stream)
        was = found.oldest
        await found.trim(before)
        return was, found.oldest


async def _trim_node(url: Url, stream: str, before: int) -> tuple[int, int]:
    async with client_of(url) as client:
        found = client.stream(stream)
        was = (await found.info()).oldest
        oldest, _ = await found.trim(before)
        return was, oldest


@asynccontextmanager
async def _opened(folder: Path) -> AsyncGenerator[Streams]:
    from outlast.streams import Streams

    # Raises the error of a folder that is not there.
    folder.stat()  # noqa: ASYNC240 - nothing else runs here
    async with Streams(folder) as opened:
        yield opened


@asynccontextmanager
async def _store(
    place: Path | Url, name: str, headers: dict[str, str] | None, total: _Total, *, create: bool
) -> AsyncGenerator[Store]:
    """Return what stores records in a stream and adds them to the total."""
    if isinstance(place, Url):
        async with client_of(place) as client:
            served = await _served(client, name, create=create)
            is_json = (await served.head()).content_type.partition(";")[0].strip().lower() == "application/json"

            async def store(records: list[bytes]) -> None:
                for record in records:
                    if not record:
                        raise ValueError("an empty record cannot be sent to a node: a request has at least one byte")
                    behind = int((await served.append(record, deadline_s=STORED_S)).next)
                    total.add(behind - (_messages(record) if is_json else 1), behind)

            yield store
    else:
        async with _opened(place) as opened:
            into = await _stream(opened, name, create=create)

            async def store(records: list[bytes]) -> None:
                appended = await into.append(records, headers=headers)
                total.add(appended.first, appended.next)

            yield store


def _messages(body: bytes) -> int:
    """Return the number of messages in what a stream of JSON has taken: those of a list are one each."""
    found: list[object] | object = json.loads(body)
    return len(cast("list[object]", found)) if isinstance(found, list) else 1


async def _served(client: Client, name: str, *, create: bool) -> ClientStream:
    from outlast.streams import StreamNotFoundError

    found = client.stream(name)
    try:
        await found.head()
    except StreamNotFoundError as error:
        if not create:
            raise StreamNotFoundError(name, "there is no such stream; --create makes it") from error
        return await client.create(name, exist_ok=True)
    return found


async def _stream(opened: Streams, name: str, *, create: bool) -> Stream:
    from outlast.streams import StreamNotFoundError

    try:
        return await opened.open(name)
    except StreamNotFoundError as error:
        if not create:
            raise StreamNotFoundError(
                name, f"there is no such stream among the {len(opened.names())}; --create makes it"
            ) from error
        return await opened.create(name)


async def _append_lines(store: Store, source: BinaryIO) -> None:
    """Append lines as they come, all that have come at once: so a pipe is quick, and somebody who types waits for nothing."""
    rest = b""
    # A thread that waits for somebody to type does not keep the process from its end.
    thread = OwnThread("standard input")
    while data := await thread.run(_read, source):
        *lines, rest = (rest + data).split(b"\n")
        for batch in _batches(lines):
            await store(batch)
        if len(rest) > LINE_BYTES_MAX:
            raise ValueError(f"a line is longer than {size_text(LINE_BYTES_MAX)}, the most that is taken")
    if rest:
        await store([rest])


def _read(source: BinaryIO) -> bytes:
    """Return what there is, as soon as there is something; nothing at the end."""
    # Not by its buffer: a thread that waits in there makes the interpreter abort at its end.
    return bytes(getattr(source, "raw", source).read(READ_BYTES))


def _batches(lines: list[bytes]) -> Iterator[list[bytes]]:
    for begin in range(0, len(lines), BATCH_MAX):
        yield lines[begin : begin + BATCH_MAX]


def _headers(words: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [word.partition("=") for word in words]
    if wrong := [name for name, equals, _ in pairs if not equals or not name]:
        msg = f"--header {wrong[0]!r} is no header; write NAME=VALUE."
        raise click.UsageError(msg)
    return {name: value for name, _, value in pairs} or None


def _say(total: _Total, stream: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"stream": stream, "records": total.records, "first": total.first, "next": total.next}))
    else:
        click.echo(f"{total.records:,} records appended, at {total.first} to {total.next - 1}")
