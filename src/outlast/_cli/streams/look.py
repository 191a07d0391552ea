"""Commands that only look: ls, cat, tail, cursors, verify. A running service does not notice them; a node is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from outlast._cli.errors import Exit
from outlast._cli.output import as_json_option, printing
from outlast._cli.streams.folder import FolderStreams, reports
from outlast._cli.streams.group import explained, on_place, on_stream
from outlast._cli.streams.node import NodeStreams
from outlast._cli.streams.place import Url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from outlast._cli.streams.folder import FolderStream
    from outlast._cli.streams.node import NodeStream
    from outlast.streams import Chunk


def add_to(streams: click.Group) -> None:
    """Add the commands."""
    for command in (ls, cat, tail, cursors, verify):
        streams.add_command(command)


@click.command()
@on_place
@as_json_option
def ls(place: Path | Url, *, as_json: bool) -> int:
    """Show the streams in FOLDER or of the node at URL, one a line.

    Exit code 1 if one of them cannot be read; the others are shown.

    Example: outlast streams ls /var/lib/shop
    """
    from outlast._cli.streams import shown

    with explained("list the streams in", place), printing(), _looking_at(place) as found:
        rows = list(found.rows())
        for path, reason in found.unknown:
            shown.warn(f"{path} belongs to no stream that is known: {reason}; outlast streams verify says more")
        if as_json:
            shown.print_lines(rows)
        else:
            shown.print_streams(rows)
    return Exit.REFUSED if found.unknown or any("error" in row for row in rows) else 0


@click.command()
@click.option("--from", "start", type=click.IntRange(min=0), default=None, help="The first position; by default the oldest.")
@click.option("--limit", type=click.IntRange(min=0), default=None, help="At most so many records.")
@on_stream
def cat(place: Path | Url, stream: str, start: int | None, limit: int | None, *, as_json: bool) -> int:
    """Print the records of STREAM up to its tail, each with a line end behind it.

    With --json an object a line: position, time, headers if there are any, and data, or data_base64 where it is no UTF-8.

    Example: outlast streams cat /var/lib/shop orders --from 100 --limit 10 --json
    """
    from outlast._cli.streams.shown import printer

    with explained("read", place, stream), printing(), _looking_at(place) as found:
        opened = found.open(stream)
        _print(opened, opened.oldest if start is None else start, limit, printer(as_json=as_json))
    return 0


@click.command()
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="The last so many records.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended, until the stream is closed or Ctrl-C.")
@on_stream
def tail(place: Path | Url, stream: str, lines: int, *, follow: bool, as_json: bool) -> int:
    """Print the last records of STREAM, and with -f those that come.

    The output is that of cat. What is printed from a FOLDER is in the file; it may not be on disk yet. A node that is away is
    waited for.

    Example: outlast streams tail -f /var/lib/shop orders
    """
    from outlast._cli.streams.shown import printer

    out = printer(as_json=as_json)
    with explained("follow" if follow else "read", place, stream), printing(), _looking_at(place) as found:
        opened = found.open(stream)
        position = _print(opened, max(opened.oldest, opened.tail - lines), None, out)
        try:
            while follow and not (opened.is_closed and position == opened.tail):
                opened.wait(position)
                position = _print(opened, position, None, out)
        except KeyboardInterrupt:
            # The way to end it.
            return 0
    return 0


@click.command()
@on_place
@click.argument("stream", required=False)
@as_json_option
def cursors(place: Path | Url, stream: str | None, *, as_json: bool) -> int:
    """Show the consumers of STREAM, or of all streams: the next position, the lag, and the records that are set aside.

    Example: outlast streams cursors /var/lib/shop orders
    """
    from outlast._cli.streams import shown

    act = "read the cursors of" if stream else "read the cursors in"
    with explained(act, place, stream), printing(), _looking_at(place) as found:
        rows = found.consumers(stream)
        if as_json:
            shown.print_lines(rows)
        else:
            shown.print_consumers(rows)
    return 0


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended; the service must be stopped.")
@on_place
@as_json_option
def verify(place: Path | Url, *, repair: bool, as_json: bool) -> int:
    """Read every byte in FOLDER and say what is damaged: stream, segment, position. A node reads those of its own.

    Exit code 1 if something is, and could not be repaired.

    Example: outlast streams verify /var/lib/shop
    """
    from outlast._cli.streams import shown

    if repair and isinstance(place, Url):
        raise click.UsageError("A node does not repair what it serves: stop it, and use --repair on its FOLDER.")
    with explained("repair the streams in" if repair else "verify the streams in", place), printing():
        if isinstance(place, Url):
            with NodeStreams(place) as node:
                found = node.reports()
        else:
            found = reports(place, repair=repair)
        for report in found:
            if as_json:
                click.echo(json.dumps(shown.of_report(report), ensure_ascii=False))
            else:
                shown.print_report(report)
        return 0 if all(finding.is_repaired for report in found for finding in report.findings) else Exit.REFUSED


def _print(opened: FolderStream | NodeStream, position: int, limit: int | None, out: Callable[[Chunk], None]) -> int:
    """Print records up to the tail, and return the position behind the last."""
    left = limit
    while (left is None or left > 0) and (chunk := opened.read(position)):
        out(chunk if left is None else chunk.part(chunk.first, chunk.first + left))
        position = chunk.next
        left = None if left is None else left - len(chunk)
    return position


def _looking_at(place: Path | Url) -> FolderStreams | NodeStreams:
    return NodeStreams(place) if isinstance(place, Url) else FolderStreams(place)
