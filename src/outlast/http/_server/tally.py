"""The connections of a server, how many there are of each client, and counts of what happened to them."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final

from outlast.http._server import refusals

if TYPE_CHECKING:
    from outlast.http._app.problem import Problem
    from outlast.http._server.limits import Limits

REFUSED_AT_ONCE_MAX: Final = 64
"""Connections beyond the limit that are told so at a time; those beyond these are closed without a word."""
REFUSED_SHARE: Final = 16
"""They never take more than one in so many files that the process may open: who serves needs files too."""


class Seat:
    """The seat of one connection among all. Leaving it twice is the same as leaving it once."""

    __slots__ = ("_client", "_left", "_tally", "refused")

    def __init__(self, tally: Tally, client: str, refused: Problem | None) -> None:
        self.refused = refused
        """The answer to a connection beyond a bound, which is told so and ends; None for one that may send requests."""
        self._tally = tally
        self._client = client
        self._left = False

    def leave(self) -> None:
        """Let somebody else have it."""
        if not self._left:
            self._left = True
            self._tally.left(self._client, refused=self.refused is not None)


class Tally:
    """Counts connections by client, and what was done to them by the reason. Its figures may be read from any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.open = 0
        self.told = 0
        """Connections beyond a limit that are being told so."""
        self.clients: dict[str, int] = {}
        """Connections by the address of the client; as many keys as connections at most."""
        self.requests = 0
        """Requests that the application was called for."""
        self.refused = 0
        """Requests that tokens or admission did not let in, before the application was called."""
        self.cut: dict[str, int] = {}
        """What was refused or cut by the server itself, by code."""
        files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        wanted, most = limits.connections_max, files_max * 3 // 4
        self.connections_max = most if wanted is None else min(wanted, most)
        self._told_max = min(REFUSED_AT_ONCE_MAX, files_max // REFUSED_SHARE)

    def count(self, code: str) -> None:
        """Count one thing that the server did by itself."""
        self.cut[code] = self.cut.get(code, 0) + 1

    def enter(self, client: str) -> Seat | None:
        """Return a seat for a connection; None if it is to be closed without a word."""
        refused = None
        per_client_max = self._limits.connections_per_client_max
        if self.open >= self.connections_max:
            refused = refusals.TOO_MANY
        elif per_client_max is not None and self.clients.get(client, 0) >= per_client_max:
            refused = refusals.TOO_MANY_OF_CLIENT
        if refused is None:
            self.open += 1
            self.clients[client] = self.clients.get(client, 0) + 1
            return Seat(self, client, None)
        if self.told >= self._told_max:
            return None
        self.told += 1
        return Seat(self, client, refused)

    def left(self, client: str, *, refused: bool) -> None:
        """Count one less."""
        if refused:
            self.told -= 1
            return
        self.open -= 1
        self.clients[client] -= 1
        if not self.clients[client]:
            del self.clients[client]
