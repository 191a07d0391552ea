"""Filters of series by the value of a tag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from outlast.tables._errors import InvalidQueryError
from outlast.tables._query.patterns import Pattern, regexp, wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Judge = Callable[[str], bool]

VALUES_MAX: Final = 1_000
"""Values that one filter may name."""


@dataclass(frozen=True, slots=True)
class TagFilter:
    """A condition that the value of a tag has to meet. `group_by`: each of its values makes a group of its own."""

    tag: str
    type: str
    text: str
    group_by: bool
    _judge: Judge = field(repr=False, compare=False)

    @property
    def literals(self) -> tuple[str, ...] | None:
        """The values that it lets in, as `Range` has them: empty, any value; None, also series without the tag."""
        if self.type == "literal_or":
            return tuple(sorted(set(self.text.split("|")) - {""}))
        return None if self.type.startswith("not_") else ()

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Return whether a series with these tags meets it. One without the tag does not, unless the filter is negative."""
        value = tags.get(self.tag)
        if value is None:
            return self.type.startswith("not_")
        return self._judge(value)


def _literals(text: str) -> list[str]:
    values = [value for value in text.split("|") if value]
    if not 0 < len(values) <= VALUES_MAX:
        raise InvalidQueryError(f"a filter names 1 to {VALUES_MAX} values, not {len(values)}")
    return values


def _literal_or(text: str) -> Judge:
    return frozenset(_literals(text)).__contains__


def _iliteral_or(text: str) -> Judge:
    values = {value.lower() for value in _literals(text)}
    return lambda value: value.lower() in values


def _not(judge_of: Callable[[str], Judge]) -> Callable[[str], Judge]:
    def negated(text: str) -> Judge:
        judge = judge_of(text)
        return lambda value: not judge(value)

    return negated


def _by_pattern(pattern_of: Callable[[str], Pattern]) -> Callable[[str], Judge]:
    return lambda text: pattern_of(text).matches


FILTERS: Final[Mapping[str, tuple[Callable[[str], Judge], str, str]]] = {
    "literal_or": (_literal_or, "The value is one of these, separated by |.", "host=literal_or(web01|web02)"),
    "iliteral_or": (_iliteral_or, "The value is one of these, in any case.", "host=iliteral_or(web01|web02)"),
    "not_literal_or": (
        _not(_literal_or),
        "The value is none of these, or the tag is missing.",
        "host=not_literal_or(web01|web02)",
    ),
    "not_iliteral_or": (
        _not(_iliteral_or),
        "The value is none of these, in any case, or the tag is missing.",
        "host=not_iliteral_or(web01|web02)",
    ),
    "wildcard": (_by_pattern(wildcard), "The value fits, where * stands for any characters.", "host=wildcard(web*.example)"),
    "iwildcard": (
        _by_pattern(lambda text: wildcard(text, any_case=True)),
        "The value fits in any case, where * stands for any characters.",
        "host=iwildcard(web*.example)",
    ),
    "regexp": (_by_pattern(regexp), "The value has a part that fits a simple regular expression.", "host=regexp(^web[0-9]+)"),
}
"""The types of filters: what makes one of its text, a description, an example."""


def tag_filter(tag: str, type_: str, text: str, *, group_by: bool) -> TagFilter:
    """Return the filter of a type. Raises `InvalidQueryError`."""
    if not tag:
        raise InvalidQueryError("Filter must have a tagk")
    found = FILTERS.get(type_.lower())
    if found is None:
        raise InvalidQueryError(f"there is no filter {type_[:50]!r}; there are {', '.join(sorted(FILTERS))}")
    if not text:
        raise InvalidQueryError(f"the filter {type_} of the tag {tag[:50]!r} is empty")
    return TagFilter(tag, type_.lower(), text, group_by, found[0](text))


def filter_of_value(tag: str, value: str, *, group_by: bool) -> TagFilter:
    """Return the filter that a value is: "web01", "web01|web02", "*", "web*", "regexp(^web)". Raises `InvalidQueryError`."""
    begin, bracket, rest = value.partition("(")
    if bracket and begin.lower() in FILTERS:
        if not rest.endswith(")"):
            raise InvalidQueryError(f"Filter must end with a ')': {value[:100]}")
        return tag_filter(tag, begin, rest[:-1], group_by=group_by)
    if "*" in value:
        # OpenTSDB takes a wildcard without its name for one of any case.
        return tag_filter(tag, "wildcard" if value == "*" else "iwildcard", value, group_by=group_by)
    return tag_filter(tag, "literal_or", value, group_by=group_by)


def literals_of(filters: Iterable[TagFilter]) -> Mapping[str, tuple[str, ...]]:
    """Return what the store is to look for, as `Range.tags`; the filters see what it finds again."""
    asked: dict[str, tuple[str, ...]] = {}
    for each in filters:
        literals = each.literals
        if literals is not None and not asked.get(each.tag):
            asked[each.tag] = literals
    return asked
