"""JSON of any kind: every message comes back byte for byte as it was sent, and what is no JSON is refused as a whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fuzzed_node import Call, ask, check
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import JSON, NO_JSON
from store_parts import disk_in_memory, opened

from outlast.streams import Node
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

PATH: Final = b"/v1/stream/a"
TYPE: Final = ((b"content-type", b"application/json"),)
BLANKS: Final = st.text(" \t\r\n", max_size=2).map(str.encode)
CHANGED_BY_PARSING: Final = [
    b"9007199254740993", b"1.0", b"1E2", b"-0", b"1e400", b"0.1e-9", b"1" * 5000, b'{"a":1,"a":2}', b'"\\ud800"', b'"\\u0000"',
]  # fmt: skip


def messages() -> SearchStrategy[bytes]:
    """Return one message of JSON, as some client may print it."""
    printed = st.builds(
        lambda value, ascii_only, wide: json.dumps(
            value, ensure_ascii=ascii_only, separators=(" , ", " : ") if wide else (",", ":"), indent=1 if wide else None
        ).encode("utf-8", "surrogatepass"),
        JSON.filter(is_json),
        st.booleans(),
        st.booleans(),
    )
    return st.one_of(printed, st.sampled_from(CHANGED_BY_PARSING))


def is_json(value: Any) -> bool:
    """Python prints infinities, which JSON has not."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


@given(st.lists(st.tuples(BLANKS, messages(), BLANKS), min_size=1, max_size=6), BLANKS)
@settings(max_examples=100, deadline=None)
def test_messages_come_back_as_they_were_sent(parts: list[tuple[bytes, bytes, bytes]], around: bytes) -> None:
    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            node = Node(streams)
            await check(node, Call("PUT", PATH, headers=TYPE))
            sent = around + b"[" + b",".join(map(b"".join, parts)) + b"]" + around
            assert (await check(node, Call("POST", PATH, headers=TYPE, parts=(sent,)))).status == 204
            stream = await streams.open("a")
            assert [record.data async for record in stream.read()] == [message for _, message, _ in parts]
            got = await ask(node, Call("GET", PATH))
            assert got.body == b"[" + b",".join(message for _, message, _ in parts) + b"]"

    run_virtual(main)


@given(
    st.lists(messages(), min_size=1, max_size=3), st.sampled_from(NO_JSON), st.binary(min_size=1, max_size=3), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_a_body_that_breaks_anywhere_is_refused_as_a_whole_or_is_json(
    parts: list[bytes], broken: bytes, junk: bytes, at: int
) -> None:
    whole = b"[" + b",".join(parts) + b"]"
    at %= len(whole)

    async def main() -> None:
        async with opened(disk_in_memory()) as streams:
            node = Node(streams)
            await check(node, Call("PUT", PATH, headers=TYPE))
            for body in (whole[:at], whole[:at] + junk + whole[at:], b"[" + b",".join([*parts, broken]) + b"]"):
                # `check` sees to it that nothing of what is refused is stored.
                answer = await check(node, Call("POST", PATH, headers=TYPE, parts=(body,)))
                assert answer.status in {204, 400, 413}
                assert (answer.status == 204) == is_one(body) or len(body) > 1000

    run_virtual(main)


def is_one(body: bytes) -> bool:
    """Whether Python takes it for JSON with a message in it; it takes NaN as well, which is none."""
    try:
        return json.loads(body.decode(), parse_constant=refuse, parse_int=str) != []
    except (ValueError, RecursionError):
        return False


def refuse(constant: str) -> None:
    raise ValueError(constant)
