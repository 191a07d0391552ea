"""The first look at a request, when its headers are there: who sends it, and whether it may come in. A refusal costs no task."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

import httptools

from outlast import Stopping
from outlast.admission import Refusal
from outlast.http._app.admitting import AdmissionMiddleware
from outlast.http._app.extensions import TICKET, TOKEN
from outlast.http._app.problem import Problem, refusal_wire
from outlast.http._app.tokens import TokenMiddleware
from outlast.http._server import refusals

if TYPE_CHECKING:
    from outlast import Admission
    from outlast.http._app.asking import Asking
    from outlast.http._app.extensions import App
    from outlast.http._app.tokens import Tokens

    Headers = list[tuple[bytes, bytes]]


class Screen:
    """Asks the tokens, and then admission, before anything is made of a request.

    `look` is for a request that is next. Of one that was sent ahead nothing is asked before its turn: then `around` does it.
    """

    def __init__(self, tokens: Tokens | None, admission: Admission | None, ask: Asking, body_bytes_max: int | None) -> None:
        self._tokens = tokens
        self._admission = admission
        self._ask = ask
        self._body_bytes_max = body_bytes_max
        self._unknown_bytes = body_bytes_max or 0

    def around(self, app: App) -> App:
        """Return `app` behind the same questions, which are not asked again where `look` has."""
        if self._admission is not None:
            bytes_max = self._body_bytes_max
            app = AdmissionMiddleware(app, self._admission, ask=self._ask, body_bytes_max=bytes_max, releases=False)
        return app if self._tokens is None else TokenMiddleware(app, self._tokens)

    def look(self, method: str, path: str, headers: Headers, client: str, url: bytes) -> dict[str, Any] | Problem | Refusal:
        """Return what the scope has to hold of it; or why the request does not come in. `url` is its target, with the query."""
        known: dict[str, Any] = {}
        token = None
        try:
            if self._tokens is not None:
                query = url.partition(b"?")[2] if self._tokens.reads_query else b""
                found = self._tokens.check(method, path, headers, query)
                if isinstance(found, Problem):
                    return found
                known[TOKEN] = token = found
            if self._admission is not None:
                key, tenant, criticality, cost, size_bytes, deadline_s = self._ask(method, path, headers, client, token)
                got = self._admission.arrive(
                    key=key,
                    tenant=tenant,
                    cost=cost,
                    size_bytes=self._unknown_bytes if size_bytes is None else size_bytes,
                    deadline_s=deadline_s,
                    criticality=criticality,
                )
                if type(got) is Refusal:
                    return got
                known[TICKET] = got
        except Stopping:
            return refusals.STOPPING
        except Exception:  # noqa: BLE001 - a rule of the user's: asked again by `around`, what it raises is answered and logged
            return known
        return known


def path_of(url: bytes) -> str:
    """Return the path of a target as the application will see it. Raises as the parser of URLs does, for one that is none."""
    path: str = httptools.parse_url(url).path.decode("ascii")
    return urllib.parse.unquote(path) if "%" in path else path


def wire(refused: Problem | Refusal, request_id: str, *, head: bool, close: bool, more: bytes) -> bytes:
    """Return the answer to a request that did not come in."""
    if isinstance(refused, Refusal):
        return refusal_wire(refused.reason, refused.retry_after_s, request_id=request_id, head=head, close=close, more=more)
    return refused.wire(
        request_id=request_id, head=head, more=more + (b"" if refused.close or not close else b"connection: close\r\n")
    )
