"""What is the same: the quick key determines the exact one, names and codes stay, counts do not."""

from __future__ import annotations

import string
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.logs._folding.masks import masked
from outlast.logs._folding.raised import raised_in, raw_exception, raw_raised, tell_exception, tell_raised
from outlast.logs._folding.sameness import first_words, site_of, site_of_braces
from outlast.logs._folding.values import raw_fields, raw_value, tell_fields, tell_value


class Colour(Enum):
    RED = 1


EXCEPTIONS = st.builds(
    lambda kind, args: kind(*args),
    st.sampled_from([ValueError, OSError, KeyError, RuntimeError]),
    st.lists(st.one_of(st.integers(0, 200), st.text(max_size=6), st.lists(st.integers(), max_size=1)), max_size=3),
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.uuids(),
    st.datetimes(),
    st.just(Colour.RED),
    st.builds(PurePosixPath, st.text(string.ascii_letters, max_size=5)),
    st.lists(st.integers(0, 2000), max_size=2),
    EXCEPTIONS,
)
TEMPLATES = st.sampled_from(["%s", "errno=%d and %s", "%s failed with status %s", "%5.2f %r", "no %%, %s", "%(a)s", "%*d %s"])


@given(TEMPLATES, st.lists(VALUES, min_size=2, max_size=3), st.lists(VALUES, min_size=2, max_size=3))
def test_values_that_are_raw_equal_are_told_equal(template: str, first: list[Any], second: list[Any]) -> None:
    one, two = ({"a": first[0]},) if "(a)" in template else tuple(first), tuple(second)
    two = ({"a": second[0]},) if "(a)" in template else two
    site = site_of("x", template)
    assert isinstance(hash(site.raw(one)), int)
    if site.raw(one) == site.raw(two):
        assert site.tell(one) == site.tell(two)


@given(st.dictionaries(st.sampled_from(["host", "status", "request_id", "n"]), VALUES, max_size=3), st.data())
def test_fields_that_are_raw_equal_are_told_equal(first: dict[str, Any], data: st.DataObject) -> None:
    second = {name: data.draw(VALUES) for name in first}
    if raw_fields(first) == raw_fields(second):
        assert tell_fields(first) == tell_fields(second)
    assert "request_id" not in tell_fields(first)


@given(EXCEPTIONS, EXCEPTIONS)
def test_exceptions_that_are_raw_equal_are_told_equal(first: BaseException, second: BaseException) -> None:
    if raw_exception(first) == raw_exception(second):
        assert tell_exception(first) == tell_exception(second)
    if raw_raised(first) == raw_raised(second):
        assert tell_raised(first) == tell_raised(second)
    if type(first) is not type(second):
        assert tell_exception(first) != tell_exception(second)


NAMES = st.text(string.ascii_letters + "_./-", min_size=1, max_size=20)


@given(NAMES, NAMES, st.sampled_from(["no table {}", "cannot open {}: errno 2", "host {} is away after 5 s", "{}"]))
def test_names_of_letters_are_never_merged(first: str, second: str, template: str) -> None:
    if first != second:
        assert masked(template.format(first)) != masked(template.format(second))
        assert tell_value(first, code=False) != tell_value(second, code=False)


@given(
    st.sampled_from(["errno {}", "[Errno {}] refused", "status: {}", "HTTP {} from a", "HTTP/1.1 {} from a", "code={},"])
    | st.sampled_from(["exit {}", "exited with {}", "signal {}", "SQLSTATE {}", "returned {}", "http_status={}", "port {}."]),
    st.integers(0, 99_999),
    st.integers(0, 99_999),
)
def test_codes_are_never_merged(template: str, first: int, second: int) -> None:
    if first != second:
        assert masked(template.format(first)) != masked(template.format(second))


@given(
    st.sampled_from(["attempt {} failed", "{} left", "took {}ms", "took {}s, sorry", "({} of it)", "id-{}00000", "at {:08x}-a"]),
    st.integers(10, 10**9),
    st.integers(10, 10**9),
)
def test_counts_are_always_merged(template: str, first: int, second: int) -> None:
    if "x}" in template:
        # With a letter and a digit, whatever else: letters alone may be a word.
        first, second = (number & 0xF0FFFFFF | 0xA0000001 for number in (first, second))
    assert masked(template.format(first)) == masked(template.format(second))


@given(st.text(max_size=200))
def test_masking_never_fails_and_makes_nothing_longer(text: str) -> None:
    assert len(masked(text)) <= len(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("connection lost", "connection lost"),
        ("", ""),
        ("10.0.0.1:5432 is away since 2026-01-02 03:04:05,678", "10.0.0.1:5432 is away since # #"),
        ("order 6ba7b810-9dad-11d1-80b4-00c04fd430c8 failed", "order # failed"),
        ("object at 0x7f3a2b", "object at #"),
        ("GET /orders/123456/items/2 took 1.5ms", "GET /orders/#/items/2 took #"),
        ("commit deadbeef12 on db-1 (v2)", "commit # on db-1 (v2)"),
        (
            "[Errno 111] refused, errno=113, exited with 3 after 4 tries",
            "[Errno 111] refused, errno=113, exited with 3 after # tries",
        ),
        ("status 1234567", "status #"),
        ("x" * 3_000, "x" * 2_000),
    ],
)
def test_what_is_masked(text: str, result: str) -> None:
    assert masked(text) == result


def test_a_template_tells_which_values_can_matter() -> None:
    assert site_of("x", "attempt %d: cannot reach %s").kept == ((1, False),)
    assert site_of("x", "errno=%d %5.1f %%").kept == ((0, True),)
    assert site_of("x", "%(host)s %(n)d").kept == (("host", False),)
    assert site_of("x", "%*d").kept is None
    assert site_of("x", "no placeholder").kept is None
    assert site_of_braces("x", "{} {1} {host} status {code}").kept == ((0, False), (1, False), ("code", True))


def test_a_value_that_cannot_say_anything_counts_by_its_type() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    assert tell_value(Mute(), code=False) == raw_value(Mute(), code=False)
    assert "Mute" in tell_value(Mute(), code=False)


def test_the_first_words_of_a_kind_are_one_bounded_line() -> None:
    assert first_words("no %s", ("room",), None) == "no room"
    assert first_words("no %(what)s", ({"what": "room"},), ValueError("two\nlines")) == "no room (ValueError: two…"
    assert first_words("no %d", ("room",), None) == "no %d"
    assert len(first_words("x" * 1_000, (), None)) == 301
    assert first_words("", (), None) == ""


def test_what_exc_info_means() -> None:
    error = ValueError()
    assert raised_in(error) is error
    assert raised_in((ValueError, error, None)) is error
    assert raised_in((None, None, None)) is None
    assert raised_in(None) is None
    assert raised_in(True) is None
    try:
        raise error
    except ValueError:
        assert raised_in(True) is error
