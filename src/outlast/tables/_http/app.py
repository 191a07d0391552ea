"""The application: every protocol over HTTP that writes tables or reads them, behind one table of paths."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError, OutlastError
from outlast.extend import Act, Figure, Lag, SystemHealth
from outlast.tables._http.answers import JSON, Answer, Refused, RefusedError, refused_by, retry_after
from outlast.tables._http.body import BODY_BYTES_MAX, ClientGoneError
from outlast.tables._http.influx import doors as influx
from outlast.tables._http.opentsdb import doors as opentsdb
from outlast.tables._http.request import Request, send_answer
from outlast.tables._query.bounds import QueryLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from outlast import Service
    from outlast.tables._http.request import Receive, Routes, Scope, Send
    from outlast.tables._tables import Tables

HEALTH_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz"})
_PROTOCOLS: Final[tuple[Callable[[TablesApp], Routes], ...]] = (influx.routes, opentsdb.routes)
"""Each returns the routes of one protocol. A path belongs to one of them."""


class TablesApp:
    """Serves tables over HTTP, as an ASGI application, by the protocols of InfluxDB 1, 2 and 3 and of OpenTSDB.

        app = TablesApp(tables).attach(service)
        Server(app, "127.0.0.1:8086", tokens=tokens).attach(service)

    `/write`, `/api/v2/write` and `/api/v3/write_lp` take lines; `/ping`, `/health`, `/ready` and `/query` answer what clients
    ask before they write. `/api/put` takes OpenTSDB's points, and `/api/query`, `/api/suggest` and others read. Answers are
    those of the originals. What may be stored when it is sent again is 503 or 429, with Retry-After and the first cause, and
    what cannot is 400. A store that is away is told from memory, before a body is read.

    One store is one database. The `db` or `bucket` that a client names decides nothing, and every name is taken; with
    `databases`, those alone are, and another one is answered 404, as the originals do. Organisations, retention policies and
    consistency levels are not looked at.
    """

    system = "tables_http"

    def __init__(
        self,
        tables: Tables,
        *,
        databases: Collection[str] | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
        queries: QueryLimits | None = None,
    ) -> None:
        """Do nothing yet. `body_bytes_max` bounds a body, before and after it is inflated; `queries` bounds what reads.

        Raises `ValueError`.
        """
        if body_bytes_max < 1:
            raise ValueError(f"application of tables: body_bytes_max is 1 or more, not {body_bytes_max}")
        if databases is not None and not all(databases):
            raise ValueError("application of tables: a database without a name")
        self.tables: Final = tables
        self.databases: Final = None if databases is None else frozenset(databases)
        self.body_bytes_max: Final = body_bytes_max
        self.query_limits: Final = queries or QueryLimits()
        self.name = "tables"
        self._answered: Counter[int] = Counter()
        self._service: Service | None = None
        self._routes: Final[Routes] = {path: route for protocol in _PROTOCOLS for path, route in protocol(self).items()}

    def attach(self, service: Service) -> TablesApp:
        """Show its figures in a service, and return it. Once an application."""
        if self._service is not None:
            msg = f"this application of tables is part of {self._service.name} already; make one for each service"
            raise ConfigurationError(msg)
        self._service = service
        service.show(self)
        return self

    def needed_scope(self, method: str, path: str) -> str | None:
        """Return the scope that a request needs, for `Tokens(..., needs=app.needed_scope)`.

        "write" for what writes and for what writers ask about databases, "read" for what reads, whatever its method; None for
        handshakes and health, as with the originals.
        """
        route = self._routes.get(path)
        if route is not None:
            return route.needs
        return None if path in HEALTH_PATHS else ("read" if method in {"GET", "HEAD"} else "write")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            msg = f"tables are served over HTTP, and no {scope['type']}"
            raise ValueError(msg)
        try:
            answer = await self._answer(scope, receive, send)
        except ClientGoneError:
            return
        except Exception:
            # Whoever is around this answers it.
            self._answered[500] += 1
            raise
        if answer is not None:
            self._answered[answer.status] += 1
            await send_answer(send, answer, head=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Answer | None:
        route = self._routes.get(scope["path"])
        if route is None:
            return _plain(Refused(404, "path not found"))
        method = scope["method"]
        handler = route.handlers.get(method) or (route.handlers.get("GET") if method == "HEAD" else None)
        if handler is None:
            allowed = ", ".join(route.handlers).encode()
            return route.said(Refused(405, "method not allowed", headers=((b"allow", allowed),)))
        try:
            return await handler(Request(scope, receive, send))
        except RefusedError as error:
            return route.said(error.refused)
        except OutlastError as error:
            refused = refused_by(error)
            if refused is None:
                raise
            return route.said(refused)

    # Shown, from any thread.

    def figures(self) -> list[Figure]:
        """Return the requests by the status of their answers."""
        counts = {str(status): float(count) for status, count in dict(self._answered).items()}
        return [Figure.counter("answers", "Requests by the status of their answer.", counts, labels=("status",))]

    def health(self) -> SystemHealth:
        """Return that it is well: it has no state of its own."""
        return SystemHealth(True, "answering")

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> list[Act]:
        """Return nothing: there is nothing to do by hand."""
        return []


def _plain(refused: Refused) -> Answer:
    """Return an error of a path of no protocol, so that a client of any reads it."""
    body = json.dumps({"code": "not found", "message": refused.text, "error": refused.text}).encode()
    return Answer(refused.status, body, (JSON, *refused.headers, *retry_after(refused.retry_after_s)))
