"""What is the same: the quick key determines the exact one, names and codes stay, counts do not."""

from __future__ import annotations

import string
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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
