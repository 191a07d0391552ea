"""What is masked in the texts of Python loggers."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.logs._folding.values import tell_value
from outlast.logs._masking.texts import CODE, INSTANCE, PLANS_MAX, VALUE, _plans, masked, sorts_in

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
        ("10.0.0.1:5432 is away since 2026-01-02 03:04:05,678", "10.0.0.1:5432 is away since #"),
        ("order 6ba7b810-9dad-11d1-80b4-00c04fd430c8 failed", "order # failed"),
        ("object at 0x7f3a2b", "object at #"),
        ("GET /orders/123456/items/2 took 1.5ms", "GET /orders/#/items/# took #"),
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


@pytest.mark.parametrize(
    ("pieces", "numeric", "sorts"),
    [
        (("errno=", ""), (True,), [CODE]),
        (("took ", " ms"), (True,), [INSTANCE]),
        (("request_id=", ""), (False,), [INSTANCE]),
        (("attempt ", " at ", ":", ""), (True, False, True), [INSTANCE, VALUE, CODE]),
        (("no place",), (), []),
    ],
)
def test_a_template_says_of_its_values_what_their_text_would(
    pieces: tuple[str, ...], numeric: tuple[bool, ...], sorts: list[object]
) -> None:
    assert sorts_in(pieces, numeric) == sorts


def test_what_is_recognised_is_bounded() -> None:
    for number in range(2 * PLANS_MAX):
        masked("no user " + "x" * (number % 500) + "y" * (number // 500))
    assert len(_plans) <= PLANS_MAX


def test_a_text_that_is_no_unicode_is_masked() -> None:
    assert masked("\ud800 attempt 17") == "\\ud800 attempt #"
