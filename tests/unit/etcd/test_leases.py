"""The answers about a lease: one that is about to end is not over yet."""

from __future__ import annotations

from typing import Any

import pytest

from outlast.etcd import Etcd, LeaseLostError
from outlast.testing import run_virtual


def answering(told: dict[str, Any]) -> Etcd:
    """An adapter whose etcd gives this answer to everything."""
    adapter = Etcd()

    async def ask(*asked: Any, **how: Any) -> dict[str, Any]:
        return told

    adapter._gateway.ask = ask  # type: ignore[method-assign]
    return adapter


def test_less_than_a_second_is_left_out_and_no_end() -> None:
    assert run_virtual(lambda: answering({"ID": "7", "grantedTTL": "2"}).lease_ttl(7)) == 0
    assert run_virtual(lambda: answering({"ID": "7", "TTL": "5"}).lease_keepalive(7)) == 5


def test_one_that_is_over_is_told_in_two_ways() -> None:
    with pytest.raises(LeaseLostError):
        run_virtual(lambda: answering({"ID": "7", "TTL": "-1"}).lease_ttl(7))
    with pytest.raises(LeaseLostError):
        run_virtual(lambda: answering({"ID": "7"}).lease_keepalive(7))
