"""Commands that change something: append and trim. They hold the folder, so no service may run on it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Final, TypeVar

import click

from outlast._cli.streams.group import explained, on_stream
from outlast.extend import OwnThread, size_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from outlast.streams import Appended, Stream, Streams

T = TypeVar("T")

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
def append(folder: Path, stream: str, records: tuple[str, ...], headers: tuple[str, ...], *, create: bool, as_json: bool) -> int:
    """Append each RECORD to STREAM, or without any each line of standard input, and say at which positions.

    They are on disk when this ends with exit code 0; otherwise it says how many are. The line ends are no part of the records.

    Example: outlast streams append --create ./data orders "first" "second"

    journalctl -o cat | outlast streams append ./data log
    """
    common = _headers(headers)
    total = _Total()

    async def act(opened: Streams) -> None:
        into = await _stream(opened, stream, create=create)
        if records:
            total.add(await into.append([record.encode("utf-8", "surrogateescape") for record in records], headers=common))
        else:
            await _append_lines(into, sys.stdin.buffer, common, total)

    try:
        with explained("append to", folder, stream):
            _run(folder, act)
    finally:
        # Also when it fails: what is stored is stored.
        if total.first is not None or as_json:
            _say(total, stream, as_json=as_json)
    return 0


@click.command()
@on_stream
@click.argument("before", type=click.IntRange(min=0))
def trim(folder: Path, stream: str, before: int, *, as_json: bool) -> int:
    """Let go of all records of STREAM below the position BEFORE. Their room comes back whole segments at a time.

    Example: outlast streams trim ./data orders 100000
    """

    async def act(opened: Streams) -> tuple[int, int]:
        found = await opened.open(stream)
        was = found.oldest
        await found.trim(before)
        return was, found.oldest

    with explained("trim", folder, stream):
        was, oldest = _run(folder, act)
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

    def add(self, appended: Appended) -> None:
        """Add those of one append."""
        self.records += appended.next - appended.first
        self.first = appended.first if self.first is None else self.first
        self.next = appended.next


def _run(folder: Path, act: Callable[[Streams], Awaitable[T]]) -> T:
    from outlast.streams import Streams

    # Raises the error of a folder that is not there.
    folder.stat()

    async def main() -> T:
        async with Streams(folder) as opened:
            return await act(opened)

    return asyncio.run(main())


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


async def _append_lines(into: Stream, source: BinaryIO, headers: dict[str, str] | None, total: _Total) -> None:
    """Append lines as they come, all that have come at once: so a pipe is quick, and somebody who types waits for nothing."""
    rest = b""
    # A thread that waits for somebody to type does not keep the process from its end.
    thread = OwnThread("standard input")
    while data := await thread.run(_read, source):
        *lines, rest = (rest + data).split(b"\n")
        for batch in _batches(lines):
            total.add(await into.append(batch, headers=headers))
        if len(rest) > LINE_BYTES_MAX:
            raise ValueError(f"a line is longer than {size_text(LINE_BYTES_MAX)}, the most that is taken")
    if rest:
        total.add(await into.append(rest, headers=headers))


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
