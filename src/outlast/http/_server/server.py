"""The server: an ASGI application that is served, bounded and stopped as a part of a service."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from outlast import ConfigurationError, Phase
from outlast.extend import Figure, Listener, SystemHealth, parse_address
from outlast.http._app.answering import ProblemMiddleware
from outlast.http._app.asking import ask as default_ask
from outlast.http._server.installed import check
from outlast.http._server.lifespan import Lifespan
from outlast.http._server.limits import Limits
from outlast.http._server.tally import Tally

check()

from outlast.http._server.host import Gated, Host  # noqa: E402 - what it imports is there, and of a kind that we know
from outlast.http._server.screen import Screen  # noqa: E402

if TYPE_CHECKING:
    import ssl

    from outlast import Admission, Service, Stop
    from outlast.extend import Act, Lag
    from outlast.http._app.asking import Asking
    from outlast.http._app.extensions import App
    from outlast.http._app.tokens import Tokens
    from outlast.http._server.tls import Tls

CLOSING: Final = 0.03
"""The share of the stop's deadline that written answers have to leave, after the last request has ended: CLOSE has others too."""
logger = logging.getLogger("outlast.http")


@dataclass(frozen=True, slots=True)
class _Life:
    """The parts of a server that has started."""

    host: Host
    listener: Listener
    lifespan: Lifespan
    problems: ProblemMiddleware
    context: ssl.SSLContext | None


class Server:
    """Serves an ASGI application over HTTP/1.1 as a part of a service.

        server = Server(app, "127.0.0.1:8080").attach(service)

    It takes the address when the service starts, accepts connections when the service works, and goes with it through its
    phases: at REFUSE the listener and idle connections close, in the drain each request (which holds the gate of the service)
    may finish, with `Connection: close`, and what has not ended then is cancelled and named. It sets no signal handlers, never
    ends the process, and writes no line for what clients do: that is counted in `/metrics`.

    `listen` is "host:port" with an IP address; port 0 takes a free one, see `port`. Beyond the loopback interface it wants
    `tokens` or `tls`, or `open_to_all=True`. `limits` bounds clients. `tokens` and `admission` are asked when the headers of a
    request are there: one that does not come in is answered before anything is made of it. `ask` returns what a request asks
    of admission; it has the arguments of `outlast.http.ask`. Whoever made an admission attaches it to the service. What the
    application raises is answered as problem+json.
    Raises `ConfigurationError`, here for settings and from the start of the service for an address or a file that cannot be had.
    """

    system = "http"

    def __init__(
        self,
        app: App,
        listen: str = "127.0.0.1:8080",
        *,
        limits: Limits | None = None,
        tokens: Tokens | None = None,
        tls: Tls | None = None,
        admission: Admission | None = None,
        ask: Asking = default_ask,
        open_to_all: bool = False,
    ) -> None:
        self._host_name, self._wanted_port = parse_address(listen)
        if not (open_to_all or tokens is not None or tls is not None or ipaddress.ip_address(self._host_name).is_loopback):
            msg = (
                f"{listen} is open to other machines, without tokens and without TLS; pass tokens or tls, listen on 127.0.0.1, "
                "or say open_to_all=True"
            )
            raise ConfigurationError(msg)
        self.name = listen
        self._app = app
        self._limits = limits or Limits()
        self._tls = tls
        asks = tokens is not None or admission is not None
        self._screen = Screen(tokens, admission, ask, self._limits.body_bytes_max) if asks else None
        self._tally = Tally(self._limits)
        self._service: Service | None = None
        self._host: Host | None = None
        self._life: _Life | None = None
        self._port = self._wanted_port
        self._serving = False

    def attach(self, service: Service) -> Server:
        """Make it a part of `service`, and return it. Once a server."""
        if self._service is not None:
            msg = f"the server on {self.name} is part of {self._service.name} already; make one server for each service"
            raise ConfigurationError(msg)
        self._service = service
        service.on_start(self._start)
        service.on_stop(self._refuse, phase=Phase.REFUSE)
        service.on_stop(self._close, phase=Phase.CLOSE)
        service.task(name=f"http {self.name}")(self._serve)
        service.show(self)
        return self

    @property
    def port(self) -> int:
        """The port it listens on: the one that was chosen, once the service has started."""
        return self._port

    @property
    def url(self) -> str:
        """The address as a URL, without a slash at the end."""
        host = f"[{self._host_name}]" if ":" in self._host_name else self._host_name
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}"

    # The life of the service: its hooks run in this order, and the later ones only when `_start` has returned.

    async def _start(self) -> None:
        service = cast("Service", self._service)
        context = None if self._tls is None else self._tls.context()
        listener = Listener(self._host_name, self._wanted_port, logger)
        self._port = listener.port
        lifespan = Lifespan(self._app)
        try:
            await lifespan.start()
        except BaseException:
            listener.close()
            raise
        app: App = Gated(self._app, service.gate)
        if self._screen is not None:
            app = self._screen.around(app)
        name = f"http {self.name}"
        problems = ProblemMiddleware(app, classifiers=service.classifiers, name=name)
        self._tally = Tally(self._limits)
        self._host = Host(
            name,
            problems,
            self._limits,
            self._tally,
            screen=self._screen,
            state=lifespan.state,
            deadline_s=service.deadline_s,
        )
        self._life = _Life(self._host, listener, lifespan, problems, context)

    async def _serve(self, stop: Stop) -> None:
        life = cast("_Life", self._life)
        life.host.begin(stop, life.context)
        life.listener.accept(life.host.take)
        self._serving = True
        logger.info("serving on %s", self.url)
        await stop.wait()

    async def _refuse(self) -> None:
        life = cast("_Life", self._life)
        life.listener.close()
        await life.host.refuse()

    async def _close(self) -> None:
        life = cast("_Life", self._life)
        self._serving = False
        await life.host.end(CLOSING * cast("Service", self._service).deadline_s)
        life.problems.incident.forget_timer()
        await life.lifespan.end()

    # Shown, from any thread.

    def figures(self) -> list[Figure]:
        """Return how many connections and requests there are and were, and what the server has ended by itself."""
        tally = self._tally
        return [
            Figure.gauge("open_connections", "Connections that are open.", tally.open),
            Figure.gauge("connections_limit", "Connections that may be open at a time.", tally.connections_max),
            Figure.counter("requests", "Requests that the application was called for.", tally.requests),
            Figure.counter("refused_requests", "Requests that tokens or admission did not let in.", tally.refused),
            Figure.counter("cut", "Requests and connections that the server ended by itself.", dict(tally.cut), labels=("code",)),
        ]

    def health(self) -> SystemHealth:
        """Return whether it serves."""
        if not self._serving:
            return SystemHealth(False, "not serving")
        return SystemHealth(True, "stopping" if self._host is not None and self._host.stopping else "serving")

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> list[Act]:
        """Return nothing: there is nothing to do by hand."""
        return []
