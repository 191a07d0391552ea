"""The socket a server listens on: bound with a clear error, and accepting by our own hand, so that every socket is counted."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from outlast._core.faults import ConfigurationError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    Take = Callable[[socket.socket, str], None]

BACKLOG: Final = 1_024
"""Connections that the kernel keeps until they are accepted; the kernel has a bound of its own (net.core.somaxconn)."""
AT_ONCE: Final = 100
"""Connections that are accepted before the event loop has its turn again."""
PAUSE_S: Final = 0.5
"""The wait after the process or the machine had no file or memory left for a socket, in seconds."""
WHY: Final = {
    errno.EADDRINUSE: "another process listens there; end it, choose another port, or port 0 for one that is free",
    errno.EACCES: "this user may not; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own, 127.0.0.1, or 0.0.0.0 for all",
}


class Listener:
    """One listening socket."""

    def __init__(self, host: str, port: int, logger: logging.Logger) -> None:
        """Take the address; the kernel keeps connections until `accept`. Raises `ConfigurationError` with the next step.

        `logger` is told, once, when there is no file or memory left for a socket.
        """
        self._logger = logger
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With the protocol named, as asyncio wants it: only then does it set TCP_NODELAY on what is accepted, without which the
        # second part of each answer waits 40 ms for the client's kernel.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._accepting: tuple[asyncio.AbstractEventLoop, Take] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self.paused = 0
        """The number of times that it had to wait for a file or memory."""
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((host, port))
            self._socket.listen(BACKLOG)
        except OSError as exc:
            self._socket.close()
            where = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
            why = WHY.get(exc.errno or 0, "choose another address")
            raise ConfigurationError(f"cannot listen on {where}: {exc.strerror or exc}; {why}") from exc

    @property
    def port(self) -> int:
        """The port: another one than was asked for if that was 0."""
        return int(self._socket.getsockname()[1])

    def accept(self, take: Take) -> None:
        """Accept connections from now on: `take` is called for each, with its socket and the address it came from."""
        loop = asyncio.get_running_loop()
        self._accepting = loop, take
        loop.add_reader(self._socket.fileno(), self._accept, loop, take)

    def close(self) -> None:
        """Take those who wait in the kernel already, and close."""
        if self._accepting is not None:
            loop, take = self._accepting
            for _ in range(2 + BACKLOG // AT_ONCE):
                if not self._accept(loop, take):
                    break
            loop.remove_reader(self._socket.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close()

    def _accept(self, loop: asyncio.AbstractEventLoop, take: Take) -> bool:
        """Accept some; return whether there may be more."""
        for _ in range(AT_ONCE):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return False
            except OSError as exc:
                self._wait(exc, loop, take)
                return False
            sock.setblocking(False)
            take(sock, str(address[0]))
        return True

    def _wait(self, exc: OSError, loop: asyncio.AbstractEventLoop, take: Take) -> None:
        """Leave newcomers to the kernel for a while. Said once: that it is full is what clients do."""
        if self.paused == 0:
            self._logger.warning(
                "cannot accept connections: %s; newcomers wait in the kernel (said once). Raise the limit of open files"
                " or lower connections_max",
                os.strerror(exc.errno or 0),
            )
        self.paused += 1
        fileno = self._socket.fileno()
        loop.remove_reader(fileno)
        self._pause = loop.call_later(PAUSE_S, loop.add_reader, fileno, self._accept, loop, take)
