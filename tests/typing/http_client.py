"""The client's side of HTTP, as a service uses it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

import httpx
import httpx2

import outlast
from outlast.admission import Throttle
from outlast.http import Answer, AnswerError, AnswerStream, AnswerTooLargeError, HttpPeer, http_rule

orders = HttpPeer("https://orders.internal/v1", headers={"authorization": "Bearer secret"}, deadline_s=2.0)
throttled = HttpPeer("https://orders.internal/v1", throttle=Throttle())
by_httpx = HttpPeer("https://orders.internal/v1", client=httpx.AsyncClient())
by_httpx2 = HttpPeer("https://orders.internal/v1", client=httpx2.AsyncClient())
a_dependency: outlast.Dependency = orders
classifiers = outlast.Classifiers([http_rule])


async def calls() -> None:
    answer = await orders.get("/orders/17", params={"full": True}, accept=(200, 404))
    assert_type(answer, Answer)
    assert_type(answer.status, int)
    assert_type(answer.headers, Mapping[str, str])
    assert_type(answer.body, bytes)
    assert_type(answer.text, str)
    assert_type(answer.json(), Any)
    assert_type(await orders.post("/orders", json={"item": 17}, headers={"idempotency-key": "17"}), Answer)
    assert_type(await orders.request("DELETE", "/orders/17", deadline_s=1.0), Answer)
    async with orders.stream("GET", "/export") as export:
        assert_type(export, AnswerStream)
        assert_type(await export.read(), bytes)
        async for piece in export:
            assert_type(piece, bytes)


def about(error: Exception) -> int | None:
    match error:
        case AnswerError():
            assert_type(error.answer, Answer)
            return error.status
        case AnswerTooLargeError():
            return error.bytes_max
        case _:
            return None
