"""The boot time of a runner of procedures is that of the loop, in tests of virtual time."""

from __future__ import annotations

import asyncio

import pytest

from outlast.procedures._runner import lease


@pytest.fixture(autouse=True)
def _boottime(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lease.boottime

    def boottime() -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return real()

    monkeypatch.setattr(lease, "boottime", boottime)
