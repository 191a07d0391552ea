"""The address of a PostgreSQL and our name there; never shown with its secrets."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outlast import ConfigurationError
from outlast.extend import cut

_SECRETS: Final = ("password", "passfile", "sslpassword", "sslkey")
_MAY_BE_SECRET: Final = re.compile(r"://[^@/?#:]*:|pass[a-z]*|sslkey|token|secret", re.IGNORECASE)
_DEFAULT_PORT: Final = 5432
_PASSFILE_FIELDS: Final = 5
"""host:port:database:user:password, each `*` for any, as in libpq."""
_DEFAULT_SOCKET: Final = "/var/run/postgresql"


@dataclass(frozen=True, slots=True)
class Address:
    """One place to dial: a host and a port, or the directory of a Unix socket."""

    host: str
    port: int
    name: str = field(default="", compare=False)
    """The name that its certificate must have: that of the numeric address in `host`."""

    @property
    def is_socket(self) -> bool:
        """Whether `host` is a directory that holds a Unix socket."""
        return self.host.startswith(("/", "@"))

    def __str__(self) -> str:
        """Show it as people write it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Dsn:
    """A parsed connection string, in URI or keyword form. Its `str` and `repr` hold no secret."""

    text: str = field(repr=False)
    options: dict[str, str] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Parse, or raise `ConfigurationError` with the text redacted.

        What the text leaves open is filled in as libpq does, from the environment (PGHOST, PGUSER and the like), so that
        the probe and the driver always mean the same server.
        """
        try:
            parsed = conninfo_to_dict(text)
        except ProgrammingError as error:
            # Not chained, and without what the driver quotes: it quotes pieces of the string, of a password for one.
            said = re.sub(r'"[^"]*"', '"…"', str(error)).partition(":")[0].strip()
            msg = f"cannot read the DSN {redact_dsn(text)!r}: {said}; see libpq's connection strings"
            raise ConfigurationError(msg) from None
        given = {name: str(value) for name, value in parsed.items() if value is not None}
        dsn = cls(text, _defaults() | given)
        wrong = [port for port in dsn.get("port").split(",") if port and not port.isdecimal()]
        if wrong:
            msg = f"cannot read the DSN {dsn}: its port is {', '.join(wrong)}, which is no number"
            raise ConfigurationError(msg)
        return dsn

    def __str__(self) -> str:
        """Show it without its secrets."""
        return redact_dsn(self.text)

    def with_options(self, **options: str | int) -> str:
        """Return a connection string with these options wherever the user set none."""
        return make_conninfo(self.text, **{k: v for k, v in options.items() if k not in self.options})

    def get(self, name: str, default: str = "") -> str:
        """Return one option of the string."""
        return self.options.get(name, default)

    def password(self) -> str:
        """Return the password of the string, of PGPASSWORD, or of the passfile; "" if there is none."""
        return self.options.get("password") or self._from_passfile()

    def _from_passfile(self) -> str:
        path = self.options.get("passfile") or Path.home() / ".pgpass"
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            return ""
        for line in lines:
            fields = re.split(r"(?<!\\):", line)
            if line.startswith("#") or len(fields) != _PASSFILE_FIELDS:
                continue
            for address in self.addresses:
                host = "localhost" if address.host == _DEFAULT_SOCKET else address.name or address.host
                wanted = (host, str(address.port), self.database, self.user)
                if all(have in {"*", want} for have, want in zip(fields, wanted, strict=False)):
                    return re.sub(r"\\(.)", r"\1", fields[4])
        return ""

    @property
    def user(self) -> str:
        """The user to log in as: by default the one who runs the process, as with libpq."""
        return self.options.get("user") or getpass.getuser()

    @property
    def service(self) -> str:
        """The section of pg_service.conf that the rest stands in: only libpq reads it."""
        return self.get("service")

    @property
    def database(self) -> str:
        """The database to log in to: by default the one named like the user."""
        return self.options.get("dbname") or self.user

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Every place to dial, in order."""
        names = (self.get("host") or self.get("hostaddr") or _DEFAULT_SOCKET).split(",")
        hosts = (self.get("hostaddr") or ",".join(names)).split(",")
        ports = (self.get("port") or str(_DEFAULT_PORT)).split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        names = names if len(names) == len(hosts) else hosts
        return tuple(
            Address(host or name or _DEFAULT_SOCKET, int(port or _DEFAULT_PORT), name or host)
            for host, port, name in zip(hosts, ports, names, strict=False)
        )


def redact_dsn(text: str) -> str:
    """Return a DSN that people may see: its secrets replaced by `***`. Never raises.

    In a text that cannot be read nobody knows where a password ends: it is shown up to where one may begin.
    """
    try:
        parsed = conninfo_to_dict(text)
    except ProgrammingError:
        doubtful = _MAY_BE_SECRET.search(text)
        return cut(text) if doubtful is None else f"{cut(text[: doubtful.end()])}***"
    shown = {name: "***" if name in _SECRETS else value for name, value in parsed.items()}
    return make_conninfo("", **shown)


def _defaults() -> dict[str, str]:
    """Return what libpq takes from the environment, as it is now, for options that a string leaves open."""
    return {
        option.keyword.decode(): option.val.decode()
        for option in pq.Conninfo.get_defaults()
        if option.val and option.val != option.compiled
    }
