"""Filters and patterns of tag values."""

import random
import re

import pytest

from outlast.tables._errors import InvalidQueryError
from outlast.tables._query.filters import FILTERS, filter_of_value, tag_filter
from outlast.tables._query.patterns import regexp, wildcard


@pytest.mark.parametrize(
    ("kind", "text", "inside", "outside"),
    [
        ("literal_or", "web01|web02", ["web01", "web02"], ["web03", "WEB01", "web01|web02"]),
        ("iliteral_or", "web01|Web02", ["WEB01", "web02"], ["web03"]),
        ("not_literal_or", "web01|web02", ["web03", "WEB01"], ["web01"]),
        ("not_iliteral_or", "web01", ["web03"], ["web01", "WEB01"]),
        ("wildcard", "web*.lax", ["web.lax", "web01.lax"], ["web01.laxx", "xweb01.lax", "WEB.lax"]),
        ("wildcard", "*", ["anything"], []),
        ("iwildcard", "*LAX*", ["web.lax.x", "LAX"], ["la"]),
        ("regexp", "^web[0-9]+$", ["web1", "web42"], ["web", "web4x", "xweb4"]),
    ],
)
def test_a_filter_lets_in(kind: str, text: str, inside: list[str], outside: list[str]) -> None:
    found = tag_filter("host", kind, text, group_by=False)
    assert [found.matches({"host": value}) for value in inside] == [True] * len(inside)
    assert [found.matches({"host": value}) for value in outside] == [False] * len(outside)


@pytest.mark.parametrize("kind", sorted(FILTERS))
def test_a_series_without_the_tag(kind: str) -> None:
    found = tag_filter("host", kind, "web*", group_by=False)
    assert found.matches({"dc": "lax"}) is kind.startswith("not_")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("web01", "literal_or", "web01"),
        ("web01|web02", "literal_or", "web01|web02"),
        ("*", "wildcard", "*"),
        ("web*", "iwildcard", "web*"),
        ("regexp(^web(1|2))", "regexp", "^web(1|2)"),
        ("not_literal_or(a|b)", "not_literal_or", "a|b"),
        # No name of a filter before the bracket: a value.
        ("a(b)", "literal_or", "a(b)"),
    ],
)
def test_the_value_of_a_tag_may_be_a_filter(value: str, kind: str, text: str) -> None:
    found = filter_of_value("host", value, group_by=True)
    assert (found.type, found.text, found.group_by) == (kind, text, True)


def test_the_store_is_asked_for_what_it_can_look_for() -> None:
    assert tag_filter("h", "literal_or", "b|a|", group_by=False).literals == ("a", "b")
    assert tag_filter("h", "wildcard", "a*", group_by=False).literals == ()
    assert tag_filter("h", "not_literal_or", "a", group_by=False).literals is None


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("soundex", "x", r"^there is no filter 'soundex'; there are iliteral_or, .*, wildcard$"),
        ("literal_or", "|", r"^a filter names 1 to 1000 values, not 0$"),
        ("wildcard", "web", r"^Filter must contain an asterisk, 'web' has none; take literal_or$"),
        ("regexp", "a" * 201, r"^a filter has 1 to 200 characters, not 201$"),
        ("literal_or", "", r"is empty$"),
    ],
)
def test_a_filter_that_is_none(kind: str, text: str, said: str) -> None:
    with pytest.raises(InvalidQueryError, match=said):
        tag_filter("host", kind, text, group_by=False)


def test_a_filter_needs_a_tag_and_its_bracket() -> None:
    with pytest.raises(InvalidQueryError, match=r"^Filter must have a tagk$"):
        tag_filter("", "literal_or", "x", group_by=False)
    with pytest.raises(InvalidQueryError, match=r"^Filter must end with a '\)': wildcard\(x\*$"):
        filter_of_value("host", "wildcard(x*", group_by=False)


# Patterns.

EXPRESSIONS = [
    "a", "^a", "a$", "^a$", ".", "^.$", "a*", "^a*$", "^a+$", "^a?b$", "a.b", "^a.*b$", "^(a|bc)d$", "(?:a|b)", "a|^b$|c$",
    "^[ab]+$", "^[^a]$", "^[a-c-]*$", r"^\d+$", r"^\w\W$", r"\.", r"^a\|b$", "^(a|b)(c|d)$", "", "^$", "x(a|)y", r"[\d.]+b",
    "^a*b*c$",
]  # fmt: skip
"""Each is read by Python's `re` in the same way."""


def test_an_expression_means_what_it_means_to_python() -> None:
    rng = random.Random(8)
    texts = ["", *("".join(rng.choice("abcd.|-1 xy_") for _ in range(rng.randrange(1, 6))) for _ in range(300))]
    wrong = [
        (expression, text)
        for expression in EXPRESSIONS
        if expression
        for pattern in [regexp(expression)]
        for text in texts
        if pattern.matches(text) is not (re.search(expression, text) is not None)
    ]
    assert wrong == []


def test_no_pattern_takes_long() -> None:
    """Python's `re` would take longer than the universe has had."""
    text = "a" * 1_000 + "b"
    assert not regexp("^a*a*a*a*a*a*a*a*a*a*c$").matches(text)
    assert not wildcard("*a*a*a*a*a*a*a*a*c").matches(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(a+)+", r"has a \+ behind a bracket"),
        ("a**", r"has a \* behind a \*"),
        ("a{2}", r"has a \{ where a character is wanted"),
        (r"(a)\1", r"has a \\1"),
        (r"\bweb", r"has a \\b"),
        ("(?=a)", "looks around"),
        ("(a", r"has a \( without a \)"),
        ("a)", r"has a \) without a \("),
        ("[a", r"has a \[ without a \]"),
        ("[z-a]", "has a range z-a that is none"),
        ("*a", r"has a \* where a character is wanted \(write \\\* for the character\)"),
        ("(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)", "has more than 50 alternatives"),
        ("a^b", r"has a \^ where a character is wanted"),
    ],
)
def test_an_expression_that_is_not_offered(text: str, what: str) -> None:
    with pytest.raises(InvalidQueryError, match=rf"^the expression .* {what}.*; there are characters, \., "):
        regexp(text)
