"""The routes of OpenTSDB, and their handlers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from outlast.tables._http.opentsdb import asked, points, said
from outlast.tables._http.request import Route
from outlast.tables._telnet.datapoints import Heads

if TYPE_CHECKING:
    from outlast.tables._http.answers import Answer
    from outlast.tables._http.app import TablesApp
    from outlast.tables._http.request import Handler, Request, Routes

VERSIONED: Final = "/api/v1/"
"""Every path is there with the version of the API too, and with a slash at its end: clients write it in each of these ways."""


def routes(app: TablesApp) -> Routes:
    """Return the routes of OpenTSDB."""
    put, ask = _Put(app), asked.Asked(app, wall=time.time, limits=app.query_limits)
    found: Routes = {
        "/api/put": Route({"POST": put}, said.said),
        "/api/version": Route({"GET": ask.version, "POST": ask.version}, said.said, needs=None),
    }
    reading: dict[str, dict[str, Handler]] = {
        "/api/query": {"GET": ask.query, "POST": ask.query},
        "/api/suggest": {"GET": ask.suggest, "POST": ask.suggest},
        "/api/search/lookup": {"GET": ask.lookup, "POST": ask.lookup},
        "/api/aggregators": {"GET": ask.aggregators},
        "/api/config/filters": {"GET": ask.filters},
        "/api/range": {"GET": ask.range},
    }
    found |= {path: Route(handlers, said.said, needs="read") for path, handlers in reading.items()}
    found |= {VERSIONED + path.removeprefix("/api/"): route for path, route in found.items()}
    return found | {f"{path}/": route for path, route in found.items()}


class _Put:
    """The handler of `/api/put`. On the event loop's thread only."""

    def __init__(self, app: TablesApp) -> None:
        self._app: Final = app
        self._heads: Final = Heads(app.tables)

    async def __call__(self, request: Request) -> Answer:
        """Store the points of a body. Raises as `Tables.write_parsed`."""
        tables = self._app.tables
        query = request.query
        # While the store is away, nobody has to send a body to be told so.
        tables.check()
        body = points.read(await request.body(self._app.body_bytes_max), self._heads)
        written = await tables.write_parsed(body.parsed, client=request.client, deadline_s=request.deadline_s)
        return said.put(written, body.points, query)
