"""The address that a server of this process listens on, as an operator writes it."""

from __future__ import annotations

import ipaddress

from outlast._core.faults import ConfigurationError
from outlast._core.redact import clean


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port", ":port" or "port"; without a host it is the loopback interface.

    The host is an IP address, one of version 6 in brackets, or "localhost". Other names are not looked up: DNS may be down
    too. Raises `ConfigurationError`.
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    host = "127.0.0.1" if host in {"", "localhost"} and not bracketed else host
    try:
        valid = ipaddress.ip_address(host).version == (6 if bracketed else 4) and "%" not in host
    except ValueError:
        valid = False
    if not (valid and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        msg = (
            f"{clean(address)!r} is no address to listen on; write "
            '"127.0.0.1:8080", ":8080" (loopback), "[::1]:8080" or "0.0.0.0:8080" (every interface), port 0 to 65535'
        )
        raise ConfigurationError(msg)
    return host, int(port)
