"""The handlers of what reads: queries, names, ranges."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from outlast.tables._errors import InvalidQueryError
from outlast.tables._http.answers import Answer, RefusedError
from outlast.tables._http.opentsdb.said import CONTENT
from outlast.tables._http.request import PARAMETERS_MAX
from outlast.tables._model import Range
from outlast.tables._query import ranges
from outlast.tables._query.aggregators import AGGREGATORS
from outlast.tables._query.ask import is_list, is_object, metric_and_filters, query_of_json, query_of_url
from outlast.tables._query.bounds import check_series
from outlast.tables._query.filters import FILTERS, filter_of_value, literals_of
from outlast.tables._query.metrics import metric_of, suggest_metrics
from outlast.tables._query.run import Queries, QueryDeadlineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from outlast.tables._http.app import TablesApp
    from outlast.tables._http.request import Request
    from outlast.tables._query.bounds import QueryLimits
    from outlast.tables._query.filters import TagFilter

QUESTION_BYTES_MAX: Final = 1 << 20
"""The largest body of a question."""
SUGGESTED: Final = 25
SUGGESTED_MAX: Final = 10_000
"""Names that one answer has, unless `max` says otherwise, and at most."""
SERIES_PAGE: Final = 1_000
"""Series that are looked at with one read of the store."""
VERSION: Final = {
    "version": "2.4.0",
    "short_revision": "outlast",
    "full_revision": "outlast",
    "timestamp": "0",
    "repo_status": "MINT",
    "user": "",
    "host": "",
    "repo": "outlast",
    "branch": "",
}
"""The version of OpenTSDB whose words these are; who speaks them stands in the revision."""


class BrokenOffError(Exception):
    """The end of an answer that has begun: the connection is cut, so that nobody takes it for a whole one."""


class Asked:
    """The handlers. On the event loop's thread only."""

    def __init__(self, app: TablesApp, *, wall: Callable[[], float], limits: QueryLimits) -> None:
        """`wall` returns seconds since 1970: the time that `1h-ago` counts from."""
        self._app: Final = app
        self._wall: Final = wall
        self._limits: Final = limits
        self._queries: Final = Queries(app.tables, self._limits)

    async def query(self, request: Request) -> Answer:
        """Answer `/api/query`. Raises as `Queries.answer`."""
        params = _params(request)
        now_ms = self._now_ms()
        if request.method == "POST":
            query = query_of_json(await self._json(request), params, now_ms, self._limits.parts_max)
        else:
            query = query_of_url(params, now_ms, self._limits.parts_max)
        try:
            return Answer(200, await self._queries.answer(query), (CONTENT,))
        except QueryDeadlineError as error:
            raise RefusedError(504, str(error)) from error

    async def suggest(self, request: Request) -> Answer:
        """Answer `/api/suggest`: names of metrics, tags or values of tags that begin with `q`."""
        members = await self._json(request) if request.method == "POST" else None
        params = _named_once(request) if members is None else _texts(members)
        kind, prefix = params.get("type", ""), params.get("q", "")
        count = _count(params.get("max", ""), "max")
        tables = self._app.tables
        match kind:
            case "metrics":
                names = await suggest_metrics(tables, prefix, count)
            case "tagk":
                names = await tables.tag_names(prefix=prefix, count=count)
            case "tagv":
                names = await tables.tag_values(prefix=prefix, count=count)
            case "":
                raise InvalidQueryError("Missing 'type' parameter; there are metrics, tagk and tagv")
            case _:
                raise InvalidQueryError(f"Invalid 'type' parameter:{kind[:50]}; there are metrics, tagk and tagv")
        return _json(names)

    async def lookup(self, request: Request) -> Answer:
        """Answer `/api/search/lookup`: the series of a metric that have some tags."""
        if request.method == "POST":
            asked = await self._json(request)
            metric, filters = str(asked.get("metric") or ""), _pairs(asked.get("tags"))
            limit = str(asked.get("limit") or "")
        else:
            params = _named_once(request)
            metric, filters = metric_and_filters(params.get("m", ""), may_lack_values=True)
            limit = params.get("limit", "")
        if not metric:
            raise InvalidQueryError("Missing metric. Please supply one: m=METRIC{TAG=VALUE}")
        count = _count(limit, "limit")
        found = await metric_of(self._app.tables, metric)
        results = [{"metric": metric, "tags": tags} for tags in await self._series(found.table, filters, count)]
        return _json(
            {
                "type": "LOOKUP",
                "metric": metric,
                "tags": [{"key": each.tag, "value": each.text} for each in filters],
                "limit": count,
                "startIndex": 0,
                "totalResults": len(results),
                "results": results,
            }
        )

    async def _series(self, table: str, filters: Sequence[TagFilter], count: int) -> list[dict[str, str]]:
        """Return the tags of up to `count` series that all filters let in. Raises `QueryTooLargeError`."""
        ask = Range(table, tags=literals_of(filters))
        found: list[dict[str, str]] = []
        after = seen = 0
        while True:
            page = await self._app.tables.series(ask, after=after, count=SERIES_PAGE)
            found += [tags for tags in (dict(pairs) for _, pairs in page) if all(each.matches(tags) for each in filters)]
            if len(found) >= count or len(page) < SERIES_PAGE:
                return found[:count]
            after, seen = page[-1][0], seen + len(page)
            check_series(seen, self._limits)

    async def range(self, request: Request) -> Answer | None:
        """Send a range of a table, page by page. An answer that breaks off ends with the connection."""
        ask, form = ranges.range_of_url(_params(request), self._now_ms())
        table = await self._app.tables.table(ask.table)
        if table is None:
            raise RefusedError(404, f"there is no table {ask.table[:200]!r}")
        pieces = ranges.range_text(self._app.tables.read(ask), ranges.fields_of(ask, table), form)
        # The store has answered once before a status says that all is well.
        first = await anext(pieces)
        headers = [(b"content-type", form.media_type.encode()), (b"cache-control", b"no-store")]
        await request.send({"type": "http.response.start", "status": 200, "headers": headers})
        if request.method == "HEAD":
            await request.send({"type": "http.response.body", "body": b""})
        else:
            await _send(request, first, pieces)
        return None

    async def aggregators(self, _: Request) -> Answer:
        """Answer `/api/aggregators`."""
        return _json(list(AGGREGATORS))

    async def filters(self, _: Request) -> Answer:
        """Answer `/api/config/filters`: what the filters mean."""
        return _json({name: {"description": text, "examples": example} for name, (_, text, example) in FILTERS.items()})

    async def version(self, _: Request) -> Answer:
        """Answer `/api/version`."""
        return _json(VERSION)

    def _now_ms(self) -> int:
        return int(self._wall() * 1_000)

    async def _json(self, request: Request) -> dict[str, Any]:
        body = await request.body(QUESTION_BYTES_MAX)
        try:
            found: object = json.loads(body)
        except (ValueError, RecursionError):
            raise InvalidQueryError("Unable to parse the given JSON") from None
        if not is_object(found):
            raise InvalidQueryError("the body is a JSON object")
        # Anything but an escape would be no JSON, or no UTF-8.
        if b"\\u" in body:
            _check_texts(found)
        return found


async def _send(request: Request, first: bytes, pieces: AsyncIterator[bytes]) -> None:
    await request.send({"type": "http.response.body", "body": first, "more_body": True})
    while True:
        try:
            piece = await anext(pieces, b"")
        except Exception as error:
            # Its cause says whether it is news; too late for an answer of its own.
            raise BrokenOffError(f"a range broke off: {error}") from error
        await request.send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})
        if not piece:
            return


def _params(request: Request) -> Mapping[str, Sequence[str]]:
    """Return the parameters of a query, in which one may come several times. Raises `InvalidQueryError`."""
    try:
        raw = request.raw_query.decode("ascii")
        found = parse_qs(raw, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise InvalidQueryError(f"the parameters are no UTF-8, or more than {PARAMETERS_MAX}") from None
    _check_texts(found)
    return found


def _named_once(request: Request) -> Mapping[str, str]:
    """Return the parameters of a query, each of which comes once. Raises `RefusedError` and `InvalidQueryError`."""
    _check_texts(dict(request.query))
    return request.query


def _check_texts(found: object) -> None:
    """Raise `InvalidQueryError` for a text that no store takes: no name and no value has a NUL or half of a surrogate pair."""
    left = [found]
    while left:
        each = left.pop()
        if isinstance(each, str):
            if "\0" in each or any("\ud800" <= char <= "\udfff" for char in each):
                raise InvalidQueryError("a text has a NUL or half of a surrogate pair, and no name or value has; leave it out")
        elif is_object(each):
            left += each
            left += each.values()
        elif is_list(each):
            left += each


def _texts(members: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in members.items() if isinstance(value, str | int)}


def _pairs(tags: object) -> list[TagFilter]:
    """Return the filters of `[{"key": ..., "value": ...}]`."""
    pairs = [each for each in tags if is_object(each)] if is_list(tags) else []
    return [filter_of_value(str(each.get("key") or ""), str(each.get("value") or "*"), group_by=False) for each in pairs]


def _count(text: str, what: str) -> int:
    if not text or text == "0":
        return SUGGESTED
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidQueryError(f"Unable to parse {what!r} as a number: {text[:50]!r}")
    return min(int(text), SUGGESTED_MAX)


def _json(found: object) -> Answer:
    return Answer(200, json.dumps(found).encode(), (CONTENT,))
