"""Messages from a service to systemd: sd_notify, without a library and without ever waiting.

The protocol is sd_notify(3): datagrams of "NAME=value" lines to the socket that NOTIFY_SOCKET names. The unit needs
`Type=notify`, and `WatchdogSec=` for the watchdog.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import socket
from typing import TYPE_CHECKING, Final

from outlast._core.once import Once
from outlast._core.redact import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUS_CHARS_MAX: Final = 200
ADDRESS_BYTES_MAX: Final = 107
"""sun_path of unix(7) has 108 bytes, one of them for the NUL that ends a path or begins an abstract name."""
USEC_INFINITY: Final = 2**64 - 1
"""The number by which systemd writes "no limit"."""
_NUMBER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
logger = logging.getLogger("outlast")


class Notifier:
    """Tells the service manager how the service is; does nothing where no service manager asked.

    No method waits, raises, or fails the service: a datagram that cannot be handed over is counted in `lost`, with one
    line at DEBUG for each row of losses. A lost READY or STOPPING is sent again with whatever is said next.
    The methods may be called from any thread. There is no lock: two calls that meet cost a line, or a repetition, no more.
    Child processes inherit the environment: systemd does not listen to them unless the unit says
    `NotifyAccess=all`.
    """

    def __init__(self, address: str | None = None, *, watchdog_s: float | None = None) -> None:
        """Speak to the socket at `address`: an absolute path, or "@name" for an abstract one; None to nobody."""
        self.lost = 0
        self._watchdog_s = watchdog_s
        self._address = _sockaddr(address) if address else None
        self._owed = ""
        self._loss = Once()
        self._socket: socket.socket | None = None
        if self._address is not None:
            try:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            except OSError as error:
                logger.warning("systemd will hear nothing from this service: no socket to be had: %s", error)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; each that makes no sense is one WARNING, and not used."""
        address = environ.get("NOTIFY_SOCKET") or None
        if address is not None and _sockaddr(address) is None:
            logger.warning(
                "systemd will hear nothing from this service: NOTIFY_SOCKET is %r, and has to be an absolute path or "
                '"@" and a name, of at most %d bytes',
                clean(address),
                ADDRESS_BYTES_MAX,
            )
            address = None
        return cls(address, watchdog_s=_watchdog_s(environ))

    @property
    def watchdog_interval_s(self) -> float | None:
        """The seconds between two calls of `watchdog`: half of what systemd allows. None if it does not wait for us."""
        return self._watchdog_s / 2 if self._watchdog_s is not None and self._socket is not None else None

    def ready(self, status: str = "") -> None:
        """Send that the start is done."""
        self._send(_lines("READY=1", status), keep="READY=1")

    def stopping(self, status: str = "") -> None:
        """Send that the stop has begun."""
        # What the start still owed is of no interest any more.
        self._owed = ""
        self._send(_lines("STOPPING=1", status), keep="STOPPING=1")

    def status(self, text: str) -> None:
        """Show `text` in `systemctl status`, on one line and cut to 200 characters; an empty text clears it."""
        self._send(f"STATUS={clean(text, STATUS_CHARS_MAX)}")

    def watchdog(self) -> None:
        """Send a sign of life. Call it from what has to be alive: a turn of the event loop."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for `seconds` from now before systemd's time limit of the start or stop ends the service.

        Each call needs another before its seconds are over. Needs a finite number above 0, or raises `ValueError`.
        """
        if not (math.isfinite(seconds) and seconds > 0):
            msg = f"extending systemd's timeout: seconds must be a finite number above 0, not {seconds}"
            raise ValueError(msg)
        self._send(f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * 1e6)}")

    def close(self) -> None:
        """Send nothing any more."""
        closing, self._socket = self._socket, None
        if closing is not None:
            with contextlib.suppress(OSError):
                closing.close()

    def _send(self, text: str, *, keep: str = "") -> None:
        sender, address = self._socket, self._address
        if sender is None or address is None:
            return
        owed = self._owed
        try:
            sender.sendto(f"{owed}\n{text}".strip().encode("utf-8", "replace"), address)
        except OSError as error:
            # Nobody listens, or its queue is full: that is the manager's trouble, not the service's.
            self.lost += 1
            self._owed = keep or owed
            if self._loss.news():
                logger.debug("systemd was not told %s: %s", text.partition("\n")[0], error)
        else:
            self._owed = ""
            self._loss.clear()


def _lines(state: str, status: str) -> str:
    return f"{state}\nSTATUS={clean(status, STATUS_CHARS_MAX)}" if status else state


def _sockaddr(address: str) -> bytes | None:
    """Return the address as the kernel has it, or None if it is none."""
    raw = os.fsencode(address)
    if raw[:1] not in {b"/", b"@"} or len(raw) < 2 or len(raw) > ADDRESS_BYTES_MAX or b"\0" in raw:
        return None
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return the seconds that systemd waits for a sign of life, if it waits for one of this process."""
    limit, pid = environ.get("WATCHDOG_USEC"), environ.get("WATCHDOG_PID")
    if not limit:
        return None
    if pid and not _NUMBER.fullmatch(pid):
        logger.warning("systemd's watchdog is left alone: WATCHDOG_PID is %r, and has to be a process id", clean(pid))
        return None
    if pid and int(pid) != os.getpid():
        return None
    if not _NUMBER.fullmatch(limit) or not 0 < int(limit) < USEC_INFINITY:
        logger.warning("systemd's watchdog is left alone: WATCHDOG_USEC is %r, and has to be microseconds", clean(limit))
        return None
    return int(limit) / 1e6
