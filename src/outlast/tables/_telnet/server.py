"""The telnet door: `put` lines over TCP, as a part of a service."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Final, cast

from outlast import ConfigurationError, Phase, Stopping
from outlast.extend import Figure, Listener, SystemHealth, parse_address
from outlast.tables._telnet.door import Door
from outlast.tables._telnet.limits import PutLimits

if TYPE_CHECKING:
    from outlast import Service, Stop
    from outlast.extend import Act, Lag
    from outlast.tables._tables import Tables

SWEEPS: Final = 4
"""Looks at idle connections within the time that they may be idle."""
logger = logging.getLogger("outlast.tables")


class PutServer:
    """Takes points by OpenTSDB's telnet commands, on a port of its own, as a part of a service.

        tables.attach(service)
        PutServer(tables, "127.0.0.1:4242").attach(service)

    `put METRIC TIME VALUE TAG=VALUE ...` stores a point. A line that is not stored is answered with a line that says why; one
    that is stored is not answered. So that nobody has to guess, `version` is answered after all before it is durable. A line
    without its newline is not taken. While the store is away for a short time, lines are held and senders wait; after that they
    are refused with the first cause.

    It goes through the phases of the service: at REFUSE the listener closes and no more lines are read, in the drain those that
    were read are written, at CLOSE connections end. It writes no line for what clients do. `listen` is "host:port" with an IP
    address; port 0 takes a free one, see `port`. The protocol has neither tokens nor TLS: beyond the loopback interface it
    wants `open_to_all=True`. Raises `ConfigurationError`, here and from the start of the service for an address that cannot be
    had.
    """

    system = "put"

    def __init__(
        self, tables: Tables, listen: str = "127.0.0.1:4242", *, limits: PutLimits | None = None, open_to_all: bool = False
    ) -> None:
        self._host, self._wanted_port = parse_address(listen)
        if not (open_to_all or ipaddress.ip_address(self._host).is_loopback):
            msg = f"{listen} is open to other machines, and put has no tokens; listen on 127.0.0.1, or say open_to_all=True"
            raise ConfigurationError(msg)
        self.name = listen
        self._tables: Final = tables
        self._limits: Final = limits or PutLimits()
        self._service: Service | None = None
        self._listener: Listener | None = None
        self._door: Door | None = None
        self._port = self._wanted_port
        self._serving = False

    def attach(self, service: Service) -> PutServer:
        """Make it a part of `service`, and return it. Once a server, and after the tables: they end later than it does."""
        if self._service is not None:
            msg = f"the server on {self.name} is part of {self._service.name} already; make one server for each service"
            raise ConfigurationError(msg)
        self._service = service
        service.on_start(self._start)
        service.on_stop(self._refuse, phase=Phase.REFUSE)
        service.on_stop(self._close, phase=Phase.CLOSE)
        service.task(name=f"put {self.name}")(self._serve)
        service.show(self)
        return self

    @property
    def port(self) -> int:
        """The port it listens on: the one that was chosen, once the service has started."""
        return self._port

    @property
    def address(self) -> str:
        """The address it listens on, as "host:port"."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    # The life of the service.

    async def _start(self) -> None:
        self._listener = Listener(self._host, self._wanted_port, logger)
        self._port = self._listener.port

    async def _serve(self, stop: Stop) -> None:
        listener, service = cast("Listener", self._listener), cast("Service", self._service)
        self._door = Door(self.name, self._tables, self._limits, service.gate, stop)
        listener.accept(self._door.take)
        self._serving = True
        logger.info("taking put lines on %s", self.address)
        try:
            while True:
                await stop.sleep(self._limits.idle_s / SWEEPS)
                self._door.close_idle()
        except Stopping:
            return

    async def _refuse(self) -> None:
        cast("Listener", self._listener).close()
        if self._door is not None:
            self._door.refuse()

    async def _close(self) -> None:
        self._serving = False
        if self._door is not None:
            await self._door.end()

    # Shown, from any thread.

    def figures(self) -> list[Figure]:
        """Return how many connections and points there are and were, and what was refused."""
        door = self._door
        refused: dict[str, float] = {} if door is None else dict(door.refused)
        cuts: dict[str, float] = {} if door is None else dict(door.cuts)
        return [
            Figure.gauge("open_connections", "Connections that are open.", 0 if door is None else door.open),
            Figure.gauge("connections_limit", "Connections that may be open at a time.", self._limits.connections_max),
            Figure.counter("points", "Points that came as lines.", 0 if door is None else door.points),
            Figure.counter("refused_points", "Points that were not stored.", refused, labels=("outcome",)),
            Figure.counter("half_lines", "Lines that their sender did not end.", 0 if door is None else door.halves),
            Figure.counter("cut", "Connections that were refused or ended from here.", cuts, labels=("code",)),
        ]

    def health(self) -> SystemHealth:
        """Return whether it takes lines."""
        if not self._serving:
            return SystemHealth(False, "not serving")
        return SystemHealth(True, "stopping" if self._door is not None and self._door.is_stopping else "serving")

    def lag(self) -> Lag | None:
        """Return None: it follows nothing."""
        return None

    def acts(self) -> list[Act]:
        """Return nothing: there is nothing to do by hand."""
        return []
