"""TLS of a server: which files, and what is wrong with them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from outlast import ConfigurationError

if TYPE_CHECKING:
    from os import PathLike


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate (chain) and the key of a server, as PEM files, and the oldest version of TLS it speaks: 1.2 or 1.3.

    `clients` is a file of certificates: with it, a client has to show one that they have signed. The files are read when the
    service starts; a file that is missing, unreadable or wrong is then a `ConfigurationError` that names it.
    """

    certificate: str | PathLike[str]
    key: str | PathLike[str]
    password: str | None = field(default=None, repr=False)
    version_min: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    clients: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.version_min not in {ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3}:
            msg = f"version_min must be TLSv1_2 or TLSv1_3, not {self.version_min!r}: older ones are broken"
            raise ValueError(msg)

    def context(self) -> ssl.SSLContext:
        """Return a context for a server, made from the files as they are now. Raises `ConfigurationError`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.version_min
        context.set_alpn_protocols(["http/1.1"])
        for path in (self.certificate, self.key):
            _readable(path)
        try:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(self.certificate, self.key, password=self.password or "")
        except (ssl.SSLError, ValueError) as exc:
            msg = (
                f"TLS: {_name(self.certificate)} and {_name(self.key)} are no certificate and its key, as PEM "
                f"({getattr(exc, 'reason', None) or exc}); check the files, their order, and the password of the key"
            )
            raise ConfigurationError(msg) from exc
        if self.clients is not None:
            _readable(self.clients)
            try:
                context.load_verify_locations(self.clients)
            except ssl.SSLError as exc:
                msg = f"TLS: {_name(self.clients)} has no certificates, as PEM ({exc.reason or exc})"
                raise ConfigurationError(msg) from exc
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _name(path: str | PathLike[str]) -> str:
    return str(Path(path))


def _readable(path: str | PathLike[str]) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as exc:
        msg = f"TLS: {_name(path)} cannot be read ({exc.strerror}); name a PEM file that this user may read"
        raise ConfigurationError(msg) from exc
