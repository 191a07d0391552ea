"""The members of the cluster that may be asked, and which of them is asked first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from outlast import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT: Final = 2379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A member: where it is, and whether it is asked by TLS."""

    host: str
    port: int
    is_tls: bool

    @property
    def place(self) -> str:
        """The host and the port, as people write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, without a path."""
        return f"http{'s' * self.is_tls}://{self.place}"


class Endpoints:
    """The one that answered last is asked until it fails; then the next one. On the event loop's thread only."""

    def __init__(self, given: str | Sequence[str]) -> None:
        """Raises `ConfigurationError` for what is no URL of a member."""
        urls = [each.strip() for each in given.split(",")] if isinstance(given, str) else list(given)
        self.all = tuple(_parsed(url) for url in urls)
        if not self.all:
            msg = "etcd has at least one endpoint, such as http://127.0.0.1:2379"
            raise ConfigurationError(msg)
        self._current = 0

    @property
    def current(self) -> Endpoint:
        """The one that is asked first."""
        return self.all[self._current]

    def in_turn(self) -> tuple[Endpoint, ...]:
        """Return all of them, in the order in which a call tries them."""
        return self.all[self._current :] + self.all[: self._current]

    def failed(self, endpoint: Endpoint) -> None:
        """Ask the next one first, unless somebody has moved on already."""
        if endpoint == self.current:
            self._current = (self._current + 1) % len(self.all)

    def answered(self, endpoint: Endpoint) -> None:
        """Ask this one first: a probe has found it well."""
        self._current = self.all.index(endpoint)


def _parsed(url: str) -> Endpoint:
    # The URL is not shown: it may hold a password in any place, when it is not well formed.
    msg = "an endpoint of etcd is http://HOST:PORT or https://HOST:PORT, without a path, and user and password are arguments"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORT
    except ValueError:
        raise ConfigurationError(msg) from None
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in {"http", "https"} or not host or extra:
        raise ConfigurationError(msg)
    return Endpoint(host, port, parts.scheme == "https")
