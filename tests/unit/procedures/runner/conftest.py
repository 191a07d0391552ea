"""The boot time of a runner is that of the loop, in tests of virtual time."""

from __future__ import annotations

import asyncio

import pytest

from outlast.procedures._runner import lease


@pytest.fixture(autouse=True)
def _boottime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "boottime", lambda: asyncio.get_running_loop().time())
