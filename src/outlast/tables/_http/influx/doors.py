"""The doors of InfluxDB: three ways to write lines, and what clients ask before they do."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from outlast.tables._http.answers import JSON, Answer, RefusedError
from outlast.tables._http.influx import said, statements, targets
from outlast.tables._http.request import Request, Route, Routes, parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outlast.tables._http.answers import Refused
    from outlast.tables._http.app import TablesApp
    from outlast.tables._http.influx.targets import Target
    from outlast.tables._model import Written

THREAD_BYTES: Final = 256 * 1024
"""A larger body is parsed in a thread: that takes more than some 10 ms, for which others would wait."""
NAMES_KEPT: Final = 1_000
"""Names of databases that clients have used, for SHOW DATABASES where every name is taken; the oldest go."""
NAME_CHARS_MAX: Final = 255
"""A longer name is taken, and not remembered."""
FORM_BYTES_MAX: Final = 64 * 1024
_FORM: Final = re.compile(rb"\s*application/x-www-form-urlencoded\s*(?:;.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Api:
    """One of the three ways to write lines: its parameters and its words."""

    path: str
    target: Callable[[Mapping[str, str]], Target]
    said: Callable[[Refused], Answer]
    written: Callable[[Written, bool], Answer]
    not_found: str
    """The text for a database that is not there, whose name comes in quotes."""
    empty: str = ""
    """The text for a body without a byte; "" where that is no mistake."""
    shows_lines: bool = False
    """Whether its answers have the lines that are refused."""


APIS: Final = (
    Api("/write", targets.target_1, said.said_1, said.written_1, "database not found: %s"),
    Api("/api/v2/write", targets.target_2, said.said_2, said.written_2, "bucket %s not found", "writing requires points"),
    Api(
        "/api/v3/write_lp",
        targets.target_3,
        said.said_3,
        said.written_3,
        "The following Database does not exist: %s",
        "incoming write was empty",
        shows_lines=True,
    ),
)


def routes(app: TablesApp) -> Routes:
    """Return the routes of InfluxDB 1, 2 and 3."""
    doors = _Doors(app)
    return {
        **{api.path: Route({"POST": partial(doors.write, api)}, api.said) for api in APIS},
        "/ping": Route({"GET": doors.ping, "HEAD": doors.ping}, said.said_1, needs=None),
        "/health": Route({"GET": doors.health}, said.said_2, needs=None),
        "/ready": Route({"GET": doors.ready}, said.said_2, needs=None),
        # Writers ask for their database, and make it; a token that may write has to be enough for that.
        "/query": Route({"GET": doors.query, "POST": doors.query}, said.said_1),
    }


class _Doors:
    """The handlers. On the event loop's thread only."""

    def __init__(self, app: TablesApp) -> None:
        self._app = app
        self._names: dict[str, None] = {}

    async def write(self, api: Api, request: Request) -> Answer:
        """Store a body of lines, and return the answer in the words of its API. Raises as `Tables.write_parsed`."""
        app = self._app
        tables = app.tables
        target = targets.target_of(request.raw_query, api.target)
        if app.databases is None:
            self._note(target.database)
        elif not self._is_known(target.database):
            raise RefusedError(404, api.not_found % _quoted(target.database))
        # While the store is away, nobody has to send a body to be told so.
        tables.check()
        body = await request.body(app.body_bytes_max)
        if not body and api.empty:
            raise RefusedError(400, api.empty)
        if len(body) <= THREAD_BYTES:
            parsed = tables.lines.parse(body, unit_ns=target.unit_ns)
        else:
            parsed = await asyncio.to_thread(tables.lines.parse, body, unit_ns=target.unit_ns)
        if api.shows_lines:
            # Those of points that are refused later on, too.
            parsed.source = body
        written = await tables.write_parsed(
            parsed, client=request.client, durable=target.durable, whole=target.whole, deadline_s=request.deadline_s
        )
        return api.written(written, target.whole)

    # Handshakes.

    async def ping(self, _: Request) -> Answer:
        """Say that somebody is here, and the version; whether the store is there says `health`."""
        return said.NO_CONTENT

    async def health(self, _: Request) -> Answer:
        """Say whether points can be stored now: 200, or 503 with the first cause."""
        if (error := self._app.tables.unavailable()) is not None:
            return _health(503, "fail", str(error))
        return _health(200, "pass", "ready for queries and writes")

    async def ready(self, _: Request) -> Answer:
        """Say that it serves."""
        return _json({"status": "ready"})

    async def query(self, request: Request) -> Answer:
        """Answer the statements that clients send before they write."""
        query = dict(request.query)
        if request.method == "POST" and _FORM.fullmatch(request.headers.get(b"content-type", b"")):
            query |= parameters(await request.body(FORM_BYTES_MAX))
        found = statements.statements(query.get("q", ""))
        return _json(statements.results([self._result(each, query.get("db", "")) for each in found]))

    def _result(self, statement: object, database: str) -> dict[str, Any] | None:
        match statement:
            case statements.CreateDatabase(name):
                if self._app.databases is None:
                    self._note(name)
                elif not self._is_known(name):
                    msg = f"error authorizing query: {_quoted(name)} is none of the databases here, and none is created"
                    raise RefusedError(403, msg)
                return None
            case statements.ShowDatabases():
                if self._app.databases is not None:
                    return statements.databases_series(sorted(self._app.databases))
                # The client is sure to find the one that it asks with: every name is taken.
                return statements.databases_series(sorted({*self._names, *filter(None, [database])}))
            case _:
                return statements.policies_series()

    def _is_known(self, database: str) -> bool:
        known = self._app.databases or ()
        # InfluxDB 1.8 writes a database and its retention policy as one bucket.
        return database in known or database.partition("/")[0] in known

    def _note(self, name: str) -> None:
        if name not in self._names and len(name) <= NAME_CHARS_MAX:
            self._names[name] = None
            if len(self._names) > NAMES_KEPT:
                del self._names[next(iter(self._names))]


def _quoted(name: str) -> str:
    return json.dumps(name[:100], ensure_ascii=False)


def _json(members: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(members).encode() + b"\n", said.joined((JSON,)))


def _health(status: int, word: str, message: str) -> Answer:
    members: dict[str, Any] = {
        "name": "influxdb",
        "message": message,
        "status": word,
        "checks": [],
        "version": said.VERSION,
        "commit": said.BUILD,
    }
    return _json(members, status)
