"""The socket a server listens on: bound with a clear error, and accepting by our own hand, so that every socket is counted."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from outlast import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG: Final = 1_024
"""Connections that the kernel keeps until they are accepted; the kernel has a bound of its own (net.core.somaxconn)."""
AT_ONCE: Final = 100
"""Connections that are accepted before the event loop has its turn again."""
PAUSE_S: Final = 0.5
"""The wait after the process or the machine had no file or memory left for a socket, in seconds."""
NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
WHY: Final = {
    errno.EADDRINUSE: "another process listens there; end it, choose another port, or port 0 for one that is free",
    errno.EACCES: "this user may not; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own, 127.0.0.1, or 0.0.0.0 for all",
}
logger = logging.getLogger("outlast.http")


class Listener:
    """One listening socket."""

    def __init__(self) -> None:
        self._take: Callable[[socket.socket, str], None] | None = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause: asyncio.TimerHandle | None = None
        self.paused = 0
        """The number of times that it had to wait for a file or memory."""

    def bind(self, host: str, port: int) -> int:
        """Take the address, and return the port, which is another one than asked for if that was 0. Connections are kept by the
        kernel until `accept`. Raises `ConfigurationError`, with the next step, if the address cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With the protocol named, as asyncio wants it: only then does it set TCP_NODELAY on what is accepted, without which the
        # second part of each answer waits 40 ms for the client's kernel.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if listening.family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((host, port))
            listening.listen(BACKLOG)
        except OSError as exc:
            listening.close()
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            why = WHY.get(exc.errno or 0, "choose another address")
            raise ConfigurationError(f"cannot listen on {where}: {exc.strerror or exc}; {why}") from exc
        self._socket = listening
        return int(listening.getsockname()[1])

    def accept(self, take: Callable[[socket.socket, str], None]) -> None:
        """Accept connections from now on: `take` is called for each, with its socket and the address it came from."""
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._watch()

    def _watch(self) -> None:
        if self._socket is not None and self._loop is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Take those who wait already, and close. Closing twice is the same as closing once."""
        listening = self._socket
        if listening is None:
            return
        if self._loop is not None:
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(listening.fileno())
            for _ in range(2 + BACKLOG // AT_ONCE):
                if not self._accept():
                    break
            self._loop.remove_reader(listening.fileno())
        self._socket = None
        listening.close()

    def _accept(self) -> bool:
        """Accept some; return whether there may be more."""
        listening, take = self._socket, self._take
        if listening is None or take is None:
            return False
        for _ in range(AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except ConnectionAbortedError:
                continue
            except OSError as exc:
                if exc.errno not in NO_ROOM:
                    raise
                self._wait(exc)
                return False
            sock.setblocking(False)
            take(sock, str(address[0]))
        return True

    def _wait(self, exc: OSError) -> None:
        """Leave newcomers to the kernel for a while. Said once: that it is full is what clients do."""
        if self._loop is None or self._socket is None:
            return
        if self.paused == 0:
            logger.warning(
                "cannot accept connections: %s; newcomers wait in the kernel (said once). Raise the limit of open files"
                " or lower connections_max",
                os.strerror(exc.errno or 0),
            )
        self.paused += 1
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(PAUSE_S, self._watch)
