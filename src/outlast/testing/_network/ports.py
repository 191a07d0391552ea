"""A TCP port for a server under test that nobody else is given while the server is down."""

import random
import socket
from pathlib import Path

from outlast._core.faults import OutlastError

_EPHEMERAL_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_LOW_DEFAULT = 32_768
"""The lowest port that the kernel chooses for clients: Linux's default, below that of other systems (49,152)."""

_LOW = 10_000
_TRIES = 200


class NoFreePortError(OutlastError):
    """No TCP port could be bound in the range that servers under test use."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that can be bound on `host` now and that the kernel never chooses for a client.

    A port of the kernel's ephemeral range would not do for a server that goes down: a client that keeps dialling it is
    given that very port as its own source port once in some 28,000 attempts, and is then connected to itself.

    Raises NoFreePortError after 200 ports that were taken. Another process can take the port before the caller does.
    """
    high = max(_LOW + _TRIES, _ephemeral_low())
    # The ports must differ between processes that start at the same time, whatever seeds they use for their own work.
    chooser = random.SystemRandom()
    for _ in range(_TRIES):
        port = chooser.randrange(_LOW, high)
        if _can_bind(host, port):
            return port
    msg = f"tried {_TRIES} ports of {host} between {_LOW} and {high} and all were taken; give a port"
    raise NoFreePortError(msg)


def _ephemeral_low() -> int:
    try:
        return int(_EPHEMERAL_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_LOW_DEFAULT


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # Without the option a port whose last connections linger in TIME_WAIT looks taken to us, but not to a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
