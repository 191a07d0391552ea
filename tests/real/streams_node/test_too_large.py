"""What never fits is refused as too large, before it is stored and, where its length is declared, before it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from node_at_work import BYTES, STREAM, at_work
from served import get

from outlast.streams._model import APPEND_BYTES_MAX, RECORDS_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunAsync

JSON = "application/json"


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (BYTES, bytes(1_001)),
        (JSON, b"[%s]" % b",".join([b"1"] * 500)),
    ],
    ids=["bytes", "messages"],
)
def test_a_body_above_the_bound_is_413_however_it_comes(
    run_async: RunAsync, tmp_path: Path, method: str, content_type: str, body: bytes
) -> None:
    async def main() -> None:
        async with at_work(tmp_path, body_bytes_max=1_000) as node:
            await node.create("a", content_type)
            name = "a" if method == "POST" else "b"
            path, kind = f"{STREAM}{name}", f"Content-Type: {content_type}"
            chunked = get(path, kind, "Transfer-Encoding: chunked", method=method)
            chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            declared = get(path, kind, f"Content-Length: {len(body)}", method=method)
            for request in (declared + body, declared, chunked):
                async with await node.served.connect() as client:
                    client.send(request)
                    answer = await client.answer()
                    assert (answer.status, answer.code) == (413, "too large")
            assert node.streams.names() == ["a"]
            assert (await node.streams.open("a")).tail == 0

    run_async(main)


@pytest.mark.parametrize(
    "body", [b"[%s]" % b",".join([b"1"] * (RECORDS_MAX + 1)), b"[" + b"1," * (APPEND_BYTES_MAX // 16) + b"1]"], ids=len
)
def test_messages_that_never_fit_into_one_append_are_413(run_async: RunAsync, tmp_path: Path, body: bytes) -> None:
    async def main() -> None:
        async with at_work(tmp_path, body_bytes_max=APPEND_BYTES_MAX) as node:
            await node.create("a", JSON)
            answer = await node.ask("POST", "a", f"Content-Type: {JSON}", body=body)
            assert answer.status == 413
            assert (await node.streams.open("a")).tail == 0

    run_async(main)
