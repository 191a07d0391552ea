"""When the incidents of a worker process are over."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from outlast import Fault, Incident, Kind
from outlast._runtime.durable.quiet import QUIET_S
from outlast.extend import Quiet
from outlast.testing import run_virtual

if TYPE_CHECKING:
    import pytest


def test_an_incident_ends_when_nothing_has_happened_for_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        incident, other = Incident("jobs", verb="are failing"), Incident("jobs journal")
        quiet = Quiet(incident, other)
        for _ in range(3):
            incident.fault(Fault(Kind.BUG, "ValueError", "no such account", "settle"))
            for _ in range(int(QUIET_S / 10) - 1):
                quiet.look(loop.time())
                await asyncio.sleep(10)
            assert incident.is_open
        await asyncio.sleep(20)
        quiet.look(loop.time())
        assert not incident.is_open
        said = len(caplog.records)
        await asyncio.sleep(10 * QUIET_S)
        quiet.look(loop.time())
        assert len(caplog.records) == said, "it is not reminded of"
        incident.fault(Fault(Kind.BUG, "ValueError", "no such account", "settle"))
        quiet.end()
        said = len(caplog.records)
        await asyncio.sleep(10 * QUIET_S)
        assert len(caplog.records) == said

    run_virtual(main)
    assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 2
