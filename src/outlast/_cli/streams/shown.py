"""Records, streams, consumers and findings as people read them, or as lines of JSON."""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast.extend import clean, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outlast.streams import Chunk, ConsumerInfo, Record, Report, StoredConsumer, StoredStream, StreamInfo, VolumeCheck

RANGES_MAX: Final = 5
"""Ranges of records that are set aside, as one line of a table shows them."""


def printer(*, as_json: bool) -> Callable[[Chunk], None]:
    """Return the function that prints records on stdout: as they are, or as lines of JSON."""
    out = sys.stdout.buffer

    def as_lines(chunk: Chunk) -> None:
        out.write(b"\n".join(chunk.records) + b"\n" if len(chunk) else b"")
        out.flush()

    def as_objects(chunk: Chunk) -> None:
        out.write(b"".join(json.dumps(of_record(record), ensure_ascii=False).encode() + b"\n" for record in chunk))
        out.flush()

    return as_objects if as_json else as_lines


def of_record(record: Record) -> dict[str, Any]:
    """Return a record in values of JSON. Bytes that are no UTF-8 are `data_base64` in place of `data`."""
    found: dict[str, Any] = {"position": record.position, "time": datetime.fromtimestamp(record.time, UTC).isoformat()}
    try:
        found["data"] = record.data.decode()
    except UnicodeDecodeError:
        found["data_base64"] = base64.b64encode(record.data).decode()
    return found | ({"headers": dict(record.headers)} if record.headers else {})


def of_stream(stream: StoredStream) -> dict[str, Any]:
    """Return a stream in values of JSON."""
    return {
        "name": stream.name,
        "id": stream.id,
        "oldest": stream.oldest,
        "tail": stream.tail,
        "records": stream.tail - stream.oldest,
        "size_bytes": stream.size_bytes,
        "segments": stream.segments,
        "is_closed": stream.is_closed,
    }


def of_served(info: StreamInfo) -> dict[str, Any]:
    """Return a stream as a node lists it, in the same values."""
    return {
        "name": info.name,
        "id": info.id,
        "oldest": info.oldest,
        "tail": info.tail,
        "records": info.tail - info.oldest,
        "size_bytes": info.size_bytes,
        "segments": info.segments,
        "is_closed": info.closed,
    }


def of_report(report: Report) -> dict[str, Any]:
    """Return what a check has found in values of JSON."""
    return asdict(report) | {"is_healthy": report.is_healthy}


def report_of(check: VolumeCheck) -> Report:
    """Return what a node says of one of its disks. It holds them meanwhile."""
    from outlast.streams import Finding, Report

    findings = tuple(Finding(**finding) for finding in check.findings)
    return Report(check.volume, findings, check.streams, check.segments, check.records, check.size_bytes, is_running=True)


def of_consumer(stream: str, consumer: StoredConsumer | ConsumerInfo) -> dict[str, Any]:
    """Return a consumer in values of JSON; `set_aside` has pairs of positions, the second behind the last."""
    return {
        "stream": stream,
        "consumer": consumer.name,
        "next": consumer.next,
        "lag": consumer.lag,
        "open": consumer.open,
        "set_aside": [[each.start, each.stop] for each in consumer.set_aside],
        "skipped": consumer.skipped,
    }


def reason_of(error: Exception) -> str:
    """Return the reason on one line."""
    return clean(str(error))


def warn(text: str) -> None:
    """Say on stderr what is not in the output."""
    click.echo(f"outlast: {clean(text)}", err=True)


def print_lines(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one line of JSON a row."""
    for row in rows:
        click.echo(json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False))


def print_streams(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of streams; one that cannot be read has its reason below."""
    table = _table("stream", "oldest", "tail", "records", "size", "segments", "")
    for row in rows:
        if "error" in row:
            table.add_row(Text(clean(row["name"])), *[""] * 5, Text("cannot be read", style="bold red"))
            continue
        numbers = [f"{row[key]:,}" for key in ("oldest", "tail", "records")]
        closed = Text("closed" if row["is_closed"] else "", style="dim")
        table.add_row(Text(clean(row["name"])), *numbers, size_text(row["size_bytes"]), f"{row['segments']:,}", closed)
    _print(table, rows, "no streams")
    for row in rows:
        if "error" in row:
            warn(row["error"])


def print_consumers(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of consumers."""
    table = _table("stream", "consumer", "next", "lag", "open", "skipped", "set aside")
    for row in rows:
        aside: list[list[int]] = row["set_aside"]
        shown = ", ".join(f"{first}" if end == first + 1 else f"{first} to {end - 1}" for first, end in aside[:RANGES_MAX])
        more = f" and {len(aside) - RANGES_MAX:,} more" if len(aside) > RANGES_MAX else ""
        numbers = [f"{row[key]:,}" for key in ("next", "lag", "open", "skipped")]
        table.add_row(Text(clean(row["stream"])), Text(clean(row["consumer"])), *numbers, Text(shown + more, style="yellow"))
    _print(table, rows, "no consumers")


def print_report(report: Report) -> None:
    """Print what a check has read and found."""
    for finding in report.findings:
        click.echo(clean(str(finding)))
    counts = ", ".join((_count(report.streams, "stream"), _count(report.segments, "segment"), size_text(report.size_bytes)))
    found = _count(len(report.findings), "finding") if report.findings else "nothing is damaged"
    running = " (a process holds them: what it was writing is no finding)" if report.is_running else ""
    click.echo(f"{report.path}: {_count(report.records, 'record')} in {counts} read: {found}{running}")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what if number == 1 else what + 's'}"


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for title in titles:
        justify: Literal["left", "right"] = "left" if title in {"stream", "consumer", "set aside", ""} else "right"
        table.add_column(title, no_wrap=title != "set aside", justify=justify)
    return table


def _print(table: Table, rows: Sequence[object], nothing: str) -> None:
    Console().print(table if rows else nothing)
