"""The questions of `/api/query`, from a URL or from JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from outlast.tables._errors import InvalidQueryError
from outlast.tables._model import INT64_MAX
from outlast.tables._query.aggregators import aggregator
from outlast.tables._query.downsample import Downsample
from outlast.tables._query.filters import filter_of_value, tag_filter
from outlast.tables._query.rates import Rate
from outlast.tables._query.times import time_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outlast.tables._query.aggregators import Aggregator
    from outlast.tables._query.filters import TagFilter

M_FORM: Final = "write m=AGGREGATOR:[DOWNSAMPLE:][rate:]METRIC[{TAG=VALUE,...}][{TAG=FILTER,...}]"
FILTERS_MAX: Final = 50
"""Filters of one part."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a query: series of one metric, merged by groups."""

    metric: str
    aggregator: Aggregator
    filters: tuple[TagFilter, ...] = ()
    downsample: Downsample | None = None
    rate: Rate | None = None
    explicit_tags: bool = False
    """Only series that have no other tags than the filters name."""
    shown: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """The part as it was asked."""


@dataclass(frozen=True, slots=True)
class Query:
    """The parts, and the time they are asked for: milliseconds since 1970, both included."""

    start_ms: int
    end_ms: int
    parts: tuple[Part, ...]
    in_ms: bool = False
    """Whether the times of the answer are milliseconds; else seconds."""
    as_arrays: bool = False
    show_query: bool = False


def query_of_url(params: Mapping[str, Sequence[str]], now_ms: int, parts_max: int) -> Query:
    """Return the query of a URL's parameters. Raises `InvalidQueryError`."""
    _check_offered({"timezone": _first(params, "tz")})
    if "tsuid" in params:
        raise InvalidQueryError(f"tsuid is not offered; {M_FORM}")
    asked = params.get("m", ())
    if not asked:
        raise InvalidQueryError(f"Missing sub queries; {M_FORM}")
    _check_parts(len(asked), parts_max)
    start_ms, end_ms = _stretch(_first(params, "start"), _first(params, "end"), now_ms)
    # A part that is asked twice is answered once.
    parts = tuple(part_of_text(text) for text in dict.fromkeys(asked))
    return Query(start_ms, end_ms, parts, _is_on(params, "ms"), _is_on(params, "arrays"), _is_on(params, "show_query"))


def query_of_json(body: object, params: Mapping[str, Sequence[str]], now_ms: int, parts_max: int) -> Query:
    """Return the query of a JSON object. Raises `InvalidQueryError`."""
    if not is_object(body):
        raise InvalidQueryError("a query is a JSON object with start and queries")
    asked = body
    parts = _listed(asked, "queries")
    if not parts:
        raise InvalidQueryError("Missing queries")
    _check_parts(len(parts), parts_max)
    _check_offered(asked)
    start_ms, end_ms = _stretch(_time_text(asked, "start"), _time_text(asked, "end"), now_ms)
    return Query(
        start_ms,
        end_ms,
        tuple(part_of_json(part) for part in parts),
        in_ms=asked.get("msResolution") is True or _is_on(params, "ms"),
        as_arrays=_is_on(params, "arrays"),
        show_query=asked.get("showQuery") is True or _is_on(params, "show_query"),
    )


def part_of_text(text: str) -> Part:
    """Return the part that an `m=` says. Raises `InvalidQueryError`."""
    pieces = _split(text, ":")
    if not 2 <= len(pieces) <= 5:
        raise InvalidQueryError(f"Invalid parameter m={text[:200]} ({len(pieces)} parts between colons); {M_FORM}")
    downsample: str | None = None
    rate: Rate | None = None
    explicit_tags = False
    for piece in pieces[1:-1]:
        if piece.lower().startswith("rate"):
            rate = Rate.parse(piece)
        elif piece[:1].isdigit():
            downsample = piece
        elif piece.lower() == "explicit_tags":
            explicit_tags = True
        else:
            raise InvalidQueryError(f"m={text[:200]} has a part {piece[:50]!r} that is not offered; {M_FORM}")
    metric, filters = metric_and_filters(pieces[-1])
    shown = {"aggregator": pieces[0], "metric": metric, "downsample": downsample, "rate": rate is not None}
    return _part(pieces[0], metric, filters, downsample, rate, explicit_tags=explicit_tags, shown=shown)


def part_of_json(asked: object) -> Part:
    """Return the part that an object of `queries` says. Raises `InvalidQueryError`."""
    if not is_object(asked):
        raise InvalidQueryError("each of queries is an object with aggregator and metric")
    part = asked
    if part.get("tsuids"):
        raise InvalidQueryError("tsuids are not offered; name the metric and its tags")
    filters = [_filter_of_json(each) for each in _listed(part, "filters")]
    tags: object = part.get("tags") or {}
    if not is_object(tags):
        raise InvalidQueryError("the tags of a query are an object: a value for each tag")
    filters += [filter_of_value(tag, _text(value, f"the tag {tag[:50]!r}"), group_by=True) for tag, value in tags.items()]
    downsample = part.get("downsample")
    rate = _rate_of_json(part.get("rateOptions")) if part.get("rate") is True else None
    return _part(
        _text(part.get("aggregator"), "the aggregator"),
        _text(part.get("metric"), "the metric"),
        filters,
        None if downsample is None or downsample == "" else _text(downsample, "downsample"),
        rate,
        explicit_tags=part.get("explicitTags") is True,
        shown=part,
    )


def _part(
    aggregator_name: str,
    metric: str,
    filters: list[TagFilter],
    downsample: str | None,
    rate: Rate | None,
    *,
    explicit_tags: bool,
    shown: Mapping[str, Any],
) -> Part:
    if not metric:
        raise InvalidQueryError("Missing the metric")
    if len(filters) > FILTERS_MAX:
        raise InvalidQueryError(f"a part has at most {FILTERS_MAX} filters, not {len(filters)}")
    chosen = Downsample.parse(downsample) if downsample else None
    return Part(metric, aggregator(aggregator_name), tuple(dict.fromkeys(filters)), chosen, rate, explicit_tags, shown)


def metric_and_filters(text: str, *, may_lack_values: bool = False) -> tuple[str, list[TagFilter]]:
    """Return the parts of "metric{tag=value,...}{tag=filter,...}": the first braces make groups, the second do not.

    `may_lack_values`: a tag without a value may have any. Raises `InvalidQueryError`.
    """
    metric, brace, rest = text.partition("{")
    if not brace:
        return metric, []
    if not rest.endswith("}"):
        raise InvalidQueryError(f"Missing '}}' at the end of: {text[:200]}")
    groups = rest[:-1].split("}{")
    if len(groups) > 2:
        raise InvalidQueryError(f"{text[:200]!r} has more than two pairs of braces; {M_FORM}")
    filters: list[TagFilter] = []
    for place, group in enumerate(groups):
        for pair in _split(group, ",") if group else []:
            tag, sign, value = pair.partition("=")
            if may_lack_values:
                sign, value = "=", value or "*"
            if not (tag and sign and value):
                raise InvalidQueryError(f"invalid tag: {pair[:100]}; {M_FORM}")
            filters.append(filter_of_value(tag, value, group_by=place == 0))
    return metric, filters


def _split(text: str, at: str) -> list[str]:
    """Return the pieces of a text between the characters `at` that stand in no bracket."""
    pieces, depth, begin = list[str](), 0, 0
    for place, char in enumerate(text):
        if char in "{([":
            depth += 1
        elif char in "})]":
            depth = max(0, depth - 1)
        elif char == at and depth == 0:
            pieces.append(text[begin:place])
            begin = place + 1
    return [*pieces, text[begin:]]


def _filter_of_json(asked: object) -> TagFilter:
    if not is_object(asked):
        raise InvalidQueryError("each of filters is an object with type, tagk and filter")
    each = asked
    return tag_filter(
        _text(each.get("tagk"), "tagk"),
        _text(each.get("type"), "the type of a filter"),
        _text(each.get("filter"), "filter"),
        group_by=each.get("groupBy") is True,
    )


def _rate_of_json(asked: object) -> Rate:
    if asked is None:
        return Rate()
    if not is_object(asked):
        raise InvalidQueryError("rateOptions is an object: counter, counterMax, resetValue, dropResets")
    options = asked
    return Rate(
        options.get("counter") is True,
        _number(options.get("counterMax"), "counterMax", INT64_MAX),
        _number(options.get("resetValue"), "resetValue", 0),
        options.get("dropResets") is True,
    )


def _number(value: object, what: str, otherwise: int) -> int | float:
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= INT64_MAX:
        raise InvalidQueryError(f"{what} is a number of 64 bits, not {str(value)[:50]}")
    return value


def _listed(asked: Mapping[str, Any], name: str) -> list[Any]:
    value: object = asked.get(name) or []
    if not is_list(value):
        raise InvalidQueryError(f"{name} is an array")
    return value


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a value of JSON is an object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Return whether a value of JSON is an array."""
    return isinstance(value, list)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidQueryError(f"{what} is a text, not {str(value)[:50]!r}")
    return value


def _time_text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidQueryError(f"{name} is a text or a whole number, not {str(value)[:50]!r}")
    return value if isinstance(value, str) else str(value)


def _stretch(start: str, end: str, now_ms: int) -> tuple[int, int]:
    if not start:
        raise InvalidQueryError("Missing start time")
    start_ms = time_ms(start, now_ms)
    end_ms = time_ms(end, now_ms) if end else now_ms
    if end_ms < start_ms:
        raise InvalidQueryError(f"End time [{end_ms}] must be greater than or equal to the start time [{start_ms}]")
    return start_ms, end_ms


def _check_offered(asked: Mapping[str, Any]) -> None:
    """Raise `InvalidQueryError` for what would change the answer, and is not offered."""
    if asked.get("delete") is True:
        raise InvalidQueryError("Deleting data is not enabled; a query only reads, and points go by the retention of their table")
    if asked.get("useCalendar") is True:
        raise InvalidQueryError("useCalendar is not offered; an interval such as 1d has 24 hours")
    zone = asked.get("timezone")
    if zone is not None and zone != "" and zone != "UTC":  # noqa: PLR1714 - it may be anything, also what no set takes
        raise InvalidQueryError(f"times are in UTC; the timezone {str(zone)[:50]!r} is not offered")


def _check_parts(count: int, parts_max: int) -> None:
    if count > parts_max:
        raise InvalidQueryError(f"a query has at most {parts_max} parts, not {count}; ask several times")


def _first(params: Mapping[str, Sequence[str]], name: str) -> str:
    values = params.get(name, ())
    return values[0] if values else ""


def _is_on(params: Mapping[str, Sequence[str]], name: str) -> bool:
    """Return whether a flag is there: with any value but "false", as in `?ms`."""
    values = params.get(name)
    return values is not None and (not values or values[0].lower() != "false")
