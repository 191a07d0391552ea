"""`verify` over HTTP: every byte is read, in a thread of its own, one check at a time."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from outlast.extend import OwnThread
from outlast.streams._node.answers import RefusalError, refusal
from outlast.streams._node.beside.answer import Answer
from outlast.streams._node.beside.waiting import waited
from outlast.streams._verify import verify

if TYPE_CHECKING:
    from outlast.disk import Disk
    from outlast.streams._node.beside.asked import Asked
    from outlast.streams._verify import Report

CHECK_S_MAX: Final = 3600.0
"""The time for which a request waits for a check. The check goes on, and a further one is refused until it has ended."""
FINDINGS_MAX: Final = 1_000
"""Findings of a volume that are answered with; how many more there are is said."""
AGAIN_S: Final = 60.0


async def check(asked: Asked) -> Answer | None:
    """Check all volumes, or the one that the body names, and answer with what was found; it mends nothing."""
    fields = await asked.fields("volume")
    disks = _wanted(asked.store.disks, fields.text("volume"))
    # Whoever leaves does not end the check.
    reports = await waited(asked, asyncio.shield(asked.checks.begin(disks)), CHECK_S_MAX)
    if reports is None:
        return None
    volumes = [_of_report(disk, report) for disk, report in zip(disks, reports, strict=True)]
    return Answer({"is_healthy": all(report.is_healthy for report in reports), "volumes": volumes})


class Checks:
    """The checks of one node. On the event loop's thread only."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._thread = OwnThread("verify of a node")
        self._under_way: asyncio.Future[list[Report]] | None = None

    def begin(self, disks: list[Disk]) -> asyncio.Future[list[Report]]:
        """Begin to check, and return the future of the reports. Raises `RefusalError` while another check is under way."""
        if self._under_way is not None and not self._under_way.done():
            text = "a check is under way, and one runs at a time"
            raise RefusalError(replace(refusal(409, "check under way", text), retry_after_s=AGAIN_S))
        self._under_way = self._thread.start(partial(_check, disks))
        # Nobody may be there any more when it has ended.
        self._under_way.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._under_way


def _wanted(disks: list[Disk], name: str | None) -> list[Disk]:
    found = [disk for disk in disks if name in {None, disk.name}]
    if not found:
        raise RefusalError(
            refusal(404, "no such volume", f"there is no such volume, only {', '.join(disk.name for disk in disks)}")
        )
    return found


def _check(disks: list[Disk]) -> list[Report]:
    """Check each. In the thread."""
    return [verify(disk.path, files=disk.files) for disk in disks]


def _of_report(disk: Disk, report: Report) -> dict[str, Any]:
    findings = [asdict(finding) for finding in report.findings[:FINDINGS_MAX]]
    left_out = len(report.findings) - len(findings)
    said = {"volume": disk.name, "is_healthy": report.is_healthy, "findings": findings, "findings_left_out": left_out}
    return said | {
        "streams": report.streams,
        "segments": report.segments,
        "records": report.records,
        "size_bytes": report.size_bytes,
    }
