"""The settings of a peer, refused at once where they cannot work."""

from __future__ import annotations

import math
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from outlast import ConfigurationError


def check(name: str, limits: tuple[int, ...], seconds: tuple[float, ...]) -> None:
    """Raise `ConfigurationError` for a number that cannot work."""
    for limit in limits:
        if limit < 1:
            msg = f"{name}: connections_max and body_bytes_max are at least 1, not {limit}"
            raise ConfigurationError(msg)
    for each in seconds:
        if not 0 < each < math.inf:
            msg = f"{name}: deadline_s and connect_timeout_s are finite seconds above 0, not {each}"
            raise ConfigurationError(msg)


def below(url: str, path: str) -> str:
    """Return the URL with a path, or a query alone, appended: never one of another host, whatever the path is."""
    return url + (path if path[:1] in {"", "?"} else f"/{path.lstrip('/')}")


def origin(url: str) -> str:
    """Return the URL without its path."""
    return "/".join(url.split("/", 3)[:3])


def parsed(url: str) -> tuple[str, str, dict[str, str]]:
    """Return the URL without user and password, host and port, and the header by which the two travel."""
    # The URL is not shown: it may hold a password in any place, when it is not well formed.
    msg = "the URL of a peer is http:// or https:// with a host, and has no query or fragment; this one is not (it is not shown)"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(msg) from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise ConfigurationError(msg)
    place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    headers: dict[str, str] = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}", place, headers
