"""Writes over the three APIs of InfluxDB: parameters, outcomes, and the answers in the words of each."""

from __future__ import annotations

from typing import Any

import pytest
from standin import StandIn

from asgi_exchange import Exchange
from outlast.tables._model import PointOutcome
from outlast.testing import run_virtual

LATER, NEVER, PERSON = PointOutcome.LATER, PointOutcome.NEVER, PointOutcome.PERSON
V1, V2, V3 = "/write?db=m", "/api/v2/write?bucket=m&org=o", "/api/v3/write_lp?db=m"


def post(tables: StandIn, target: str, body: bytes = b"cpu v=1", headers: dict[str, str] | None = None, **more: Any) -> Exchange:
    """Send a body to an application on `tables`, and return the exchange."""
    path, _, query = target.partition("?")
    exchange = Exchange("POST", path, {"content-length": str(len(body)), **(headers or {})}, body=body)
    exchange.scope["query_string"] = query.encode()
    app = tables.app(**more)
    return run_virtual(lambda: exchange.run(app))


@pytest.mark.parametrize("target", [V1, V2, V3])
def test_all_stored_is_204_without_a_body(target: str) -> None:
    exchange = post(StandIn(), target, b"cpu v=1\ncpu v=2\n")
    assert (exchange.status, exchange.body) == (204, b"")
    assert "content-length" not in exchange.headers
    assert exchange.headers["x-influxdb-version"] == "1.8.10"
