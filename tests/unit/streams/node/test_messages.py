"""JSON mode: each message is stored, and read, byte for byte as it was sent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.streams._node.answers import RefusalError
from outlast.streams._node.messages import messages

NUMBERS = [b"9007199254740993", b"1.0", b"1E2", b"-0", b"1e400", b'{"a":1,"a":2}']


def test_the_members_of_an_array_are_the_slices_that_were_sent() -> None:
    assert messages(b"[" + b",".join(NUMBERS) + b"]") == NUMBERS


@pytest.mark.parametrize("number", [*NUMBERS, b"1" * 5000, b"-1" + b"0" * 400 + b".5e-7"])
def test_one_value_is_one_message_with_the_digits_that_it_came_with(number: bytes) -> None:
    assert messages(number) == [number]


def test_blanks_around_messages_are_left_out_and_those_inside_are_kept() -> None:
    assert messages(b' \r\n\t{"a" : [1,\n2]}\n') == [b'{"a" : [1,\n2]}']
    assert messages(b' [ 1 ,\t"a b"\r\n, { } ] ') == [b"1", b'"a b"', b"{ }"]


def test_an_array_is_opened_once() -> None:
    assert messages(b"[[1,2],[[3]]]") == [b"[1,2]", b"[[3]]"]
    assert messages(b"[[]]") == [b"[]"]
    assert messages(b"[ ]") == []


def test_text_beyond_ascii_is_kept_byte_for_byte() -> None:
    texts = ['"ä"', '"\U0001f600"', '"\\ud800"', '{"é":"e\u0301"}', '"\u2028"']
    assert messages(f"[ {' , '.join(texts)} ]".encode()) == [text.encode() for text in texts]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[",
        b"[1",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1]]",
        b"1 2",
        b"{",
        b'{"a"}',
        b"{a:1}",
        b"'a'",
        b'"a',
        b'"\n"',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"+1",
        b"01",
        b".5",
        b"1.",
        b"\xef\xbb\xbf1",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\x0b1",
        b"\xc2\xa01",
        b"True",
    ],
)
def test_what_is_no_json_is_refused_without_a_word_of_it(body: bytes) -> None:
    with pytest.raises(RefusalError) as caught:
        messages(body)
    problem = caught.value.problem
    assert (problem.status, problem.code, problem.kind) == (400, "json", "rejected")


def test_a_refusal_says_nothing_of_what_was_sent() -> None:
    with pytest.raises(RefusalError) as caught:
        messages(b'{"password":"tulip"')
    assert "tulip" not in caught.value.problem.detail
    assert caught.value.problem.detail.endswith("at character 19")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[[1],"])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    with pytest.raises(RefusalError) as caught:
        messages(opening * 200_000)
    assert caught.value.problem.status == 400


def test_more_messages_than_an_append_may_have_are_refused() -> None:
    assert len(messages(b"[" + b",".join([b"1"] * 65_536) + b"]")) == 65_536
    with pytest.raises(RefusalError) as caught:
        messages(b"[" + b",".join([b"1"] * 65_537) + b"]")
    assert caught.value.problem.status == 413


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60)
@given(st.lists(json_values, max_size=5), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_what_is_printed_in_any_way_comes_back_as_it_was(
    values: list[object],
    ascii_only: bool,  # noqa: FBT001 - hypothesis names its arguments
    indent: int | str | None,
) -> None:
    texts = [json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass") for value in values]
    assert messages(b"[" + b" ,\n".join(texts) + b"]") == texts


@settings(max_examples=100)
@given(st.binary(max_size=30) | st.text(alphabet='[]{},:"0eE+-.\\ u1atrufalsn', max_size=30).map(str.encode))
def test_whatever_comes_is_what_the_parser_of_python_takes_or_refused(body: bytes) -> None:
    try:
        expected = json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        expected = None
        with pytest.raises(RefusalError):
            messages(body)
        return
    got = messages(body)
    assert [json.loads(each) for each in got] == (expected if isinstance(expected, list) else [expected])
