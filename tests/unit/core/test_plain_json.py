"""What counts as JSON: all that is let through is read again as it was, and PostgreSQL would take it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.plain_json import DEPTH_MAX
from outlast.extend import JsonTooLargeError, NotJsonError, from_json, json_or_text, plain_text, to_json

TEXT = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(["\\u0000", "\\\\ud800", "\U0001f600", '"[{'])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def odd_characters(value: Any) -> bool:
    match value:
        case str():
            return any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in value)
        case list():
            return any(odd_characters(each) for each in value)
        case dict():
            return any(odd_characters(each) for pair in value.items() for each in pair)
        case _:
            return False


@given(VALUES)
def test_what_is_let_through_is_read_again(value: Any) -> None:
    text = None
    with contextlib.suppress(NotJsonError):
        text = to_json(value, 10_000)
    if text is None:
        assert odd_characters(value)
    else:
        # A high half beside a low one is what Python reads as the pair: the text is sound.
        assert not odd_characters(from_json(text))
        assert from_json(text) == value or odd_characters(value)
        assert text.isascii()


def nested(depth: int) -> Any:
    value: Any = 0
    for number in range(depth):
        value = [value] if number % 2 else {"key": value}
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"score": float("nan")}, "Out of range float"),
        ([float("inf")], "Out of range float"),
        ({1, 2}, "set is not JSON serializable"),
        ({"a": "\x00"}, "the character NUL"),
        ({"\x00": 1}, "the character NUL"),
        ("\ud800", "half a surrogate pair"),
        ("\udc00\ud800", "half a surrogate pair"),
        ("\ud800x\udc00", "half a surrogate pair"),
        ("\U0001f600\ud83d", "half a surrogate pair"),
        (nested(DEPTH_MAX + 1), f"the limit is {DEPTH_MAX} levels"),
        (nested(100_000), f"the limit is {DEPTH_MAX} levels"),
        (10**5000, "4300"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_is_said(value: Any, says: str) -> None:
    with pytest.raises(NotJsonError, match=says):
        to_json(value, 1_000_000)


def test_a_broken_value_says_no_more_than_it_may() -> None:
    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise ValueError("secret " * 10_000)

    with pytest.raises(NotJsonError) as caught:
        to_json(Broken(a=1), 100)
    assert len(str(caught.value)) <= 200


def test_its_bounds() -> None:
    assert to_json(nested(DEPTH_MAX), 10_000)
    assert to_json("[" * 1_000, 10_000) == json.dumps("[" * 1_000)
    assert to_json([[]] * 1_000, 10_000)
    with pytest.raises(JsonTooLargeError, match="it has 102 bytes, the limit is 101"):
        to_json("x" * 100, 101)


def test_what_does_not_read_is_shown_as_its_text() -> None:
    deep, number = "[" * 100_000 + "]" * 100_000, "9" * 5_000
    for text in (deep, number, "{"):
        with pytest.raises(NotJsonError):
            from_json(text)
        assert json_or_text(text) == text
    assert (json_or_text('{"a": 1}'), json_or_text(None)) == ({"a": 1}, None)


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_plain_text_is_taken_by_any_column(text: str) -> None:
    plain = plain_text(text, 20)
    assert plain.encode("utf-8").decode("utf-8") == plain
    assert "\x00" not in plain
