"""The store that a command is about: a file, the DSN of a PostgreSQL, the URL of an etcd; and one act on it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import click

from outlast import ConfigurationError, Kind, OutlastError, Unavailable
from outlast._cli.database import refusal, silence
from outlast._cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from outlast import Dependency

    Command = Callable[..., int]
    _Stores = click.ParamType["StorePlace"]
else:
    # Older versions of click have no type argument here.
    _Stores = click.ParamType

S = TypeVar("S")
T = TypeVar("T")

SCHEMA: Final = "outlast"
TIMEOUT_S: Final = 5.0
"""Somebody waits at the terminal."""
CONNECTIONS_MAX: Final = 2
"""One to act, and one to listen meanwhile."""
_SCHEMA: Final = "outlast.store.schema"
FILE_OR_POSTGRESQL: Final = "a file (work.db, sqlite:work.db) or postgresql://HOST/DATABASE"
OR_ETCD: Final = "a file (work.db, sqlite:work.db), postgresql://HOST/DATABASE or etcd://HOST:PORT[/PREFIX]"
_WORDS: Final = re.compile(r"[a-z_]+ *=")
"""The DSN of a PostgreSQL in words: `host=db dbname=shop`."""
NOT_MADE: Final = frozenset({"42P01", "3F000", "42703", "no such table"})
"""The codes of a table, a schema or a column that is not there: no service has made them yet, or an earlier version has."""
ETCD: Final = {"etcd": "http", "etcds": "https"}
ETCD_PORT: Final = 2379


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store. Its text may hold a password and is never printed; `str` is for people."""

    scheme: str
    """sqlite, postgresql, etcd or etcds."""
    text: str = field(repr=False)
    """A path, or the whole URL."""
    schema: str = SCHEMA
    """Of a PostgreSQL."""

    def __str__(self) -> str:
        if self.scheme == "sqlite":
            return f"the file {self.text}"
        if self.scheme == "postgresql":
            from outlast.postgres import redact_dsn

            return f"PostgreSQL at {redact_dsn(self.text)}"
        url = urlsplit(self.text)
        return f"etcd at {url.netloc.rpartition('@')[2]}{url.path}"

    def open(self, *, make: bool = False) -> Dependency:
        """Return the dependency, not opened. Raises `CommandError`: 78 for what cannot work.

        66 for a file that is not there, unless it may be made; its connections are those of a command that looks, unless it
        may be made.
        """
        try:
            return self._made(make=make)
        except ImportError as error:
            extra = {"sqlite": "sqlite", "postgresql": "postgres"}.get(self.scheme, "http")
            raise CommandError(f'{self}: {error}; pip install "outlast[{extra}]"', Exit.CONFIGURATION) from error
        except (ConfigurationError, ValueError) as error:
            raise CommandError(f"{self}: {error}", Exit.CONFIGURATION) from None

    def _made(self, *, make: bool) -> Dependency:
        match self.scheme:
            case "sqlite":
                path = Path(self.text)
                if not make and not path.exists():
                    # To look must not make one.
                    raise CommandError(f"there is no file {path}; name the file of the service's store by --store", Exit.NO_INPUT)
                from outlast.sqlite import Sqlite

                return Sqlite(path) if make else Sqlite(path, timeout_s=TIMEOUT_S)
            case "postgresql":
                from outlast.postgres import Postgres

                if make:
                    return Postgres(self.text, application_name="outlast", writable=True)
                return Postgres(
                    self.text,
                    connections_max=CONNECTIONS_MAX,
                    connect_timeout_s=TIMEOUT_S,
                    application_name="outlast-cli",
                    writable=True,
                )
            case _:
                from outlast.etcd import Etcd

                return Etcd(**self._etcd())

    def _etcd(self) -> dict[str, Any]:
        url = urlsplit(self.text)
        login, _, hosts = url.netloc.rpartition("@")
        user, _, password = login.partition(":")
        scheme = ETCD[self.scheme]
        places = [host if ":" in host.rpartition("]")[2] else f"{host}:{ETCD_PORT}" for host in hosts.split(",")]
        return {
            "endpoints": [f"{scheme}://{place}" for place in places],
            "user": unquote(user),
            "password": unquote(password),
            "prefix": unquote(url.path.removeprefix("/")),
            "timeout_s": TIMEOUT_S,
        }


class Store(_Stores):
    """A store in one of the forms that `forms` says."""

    name = "store"

    def __init__(self, forms: str = OR_ETCD) -> None:
        self.forms: Final = forms
        self._schemes: Final = frozenset(ETCD) if forms == OR_ETCD else frozenset[str]()

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> StorePlace:
        """Return it; a usage error, which quotes no password, for anything else."""
        if isinstance(value, StorePlace):
            return value
        text = str(value).strip()
        scheme, colon, rest = text.partition(":")
        scheme = scheme.lower()
        if not text:
            self.fail(f"it is empty; write {self.forms}", param, ctx)
        if (rest.startswith("//") and scheme in {"postgresql", "postgres"}) or _WORDS.match(text):
            return StorePlace("postgresql", text, SCHEMA if ctx is None else ctx.meta.get(_SCHEMA, SCHEMA))
        if rest.startswith("//") and scheme in self._schemes:
            if not urlsplit(text).netloc.rpartition("@")[2]:
                self.fail(f"it names no host; write {self.forms}", param, ctx)
            return StorePlace(scheme, text)
        if rest.startswith("//"):
            self.fail(f"{scheme}:// is no store that is known; write {self.forms}", param, ctx)
        path = rest if colon and scheme == "sqlite" else text
        if not path:
            self.fail(f"it names no file; write {self.forms}", param, ctx)
        return StorePlace("sqlite", path)


def _keep(ctx: click.Context, param: click.Parameter, value: str) -> None:
    del param
    ctx.meta[_SCHEMA] = value


def store_options(variable: str, *, forms: str = OR_ETCD, default: str | None = None) -> Callable[[Command], Command]:
    """Return what adds the options that name a store to a command: `--store`, by default that of `variable`, and `--schema`."""

    def add(command: Command) -> Command:
        text = "The schema of the catalogue, in a PostgreSQL."
        # Read before the store, which keeps it.
        schema = click.option(
            "--schema", default=SCHEMA, show_default=True, is_eager=True, expose_value=False, callback=_keep, help=text
        )
        text = f"The store; by default ${variable}{f', else {default}' if default else ''}."
        given: dict[str, Any] = {"default": default} if default else {"required": True}
        store = click.option("--store", "place", type=Store(forms), envvar=variable, help=text, **given)
        return store(schema(command))

    return add


def act_on(
    place: StorePlace,
    made: Callable[[Dependency], tuple[AbstractAsyncContextManager[S], Dependency]],
    act: Callable[[S], Awaitable[T]],
    *,
    lacks: str,
    invalid: Callable[[Exception], bool],
) -> T:
    """Open what `made` makes on the store, act on it, close it. Raises `CommandError`, or a usage error for what is `invalid`.

    `lacks` is said of a store in which no service has made anything yet.
    """
    with silence():
        return asyncio.run(_act_on(place, made, act, lacks, invalid))


async def _act_on(
    place: StorePlace,
    made: Callable[[Dependency], tuple[AbstractAsyncContextManager[S], Dependency]],
    act: Callable[[S], Awaitable[T]],
    lacks: str,
    invalid: Callable[[Exception], bool],
) -> T:
    try:
        system, dependency = made(place.open())
    except ConfigurationError as error:
        raise CommandError(f"{place}: {error}", Exit.CONFIGURATION) from None
    try:
        async with system as opened:
            return await act(opened)
    except (click.ClickException, BrokenPipeError):
        # A pipe is broken by who reads what is printed: no store says so in these words.
        raise
    except Unavailable as error:
        raise refusal(str(place), error.fault) from None
    except ConfigurationError as error:
        raise CommandError(f"{place}: {error}", Exit.CONFIGURATION) from None
    except Exception as error:
        if invalid(error):
            raise click.UsageError(str(error)) from None
        fault = dependency.classifiers.classify(error, source=dependency.name)
        if fault.code in NOT_MADE or any(code in fault.reason for code in NOT_MADE):
            raise CommandError(f"{place}: {lacks}", Exit.CONFIGURATION) from None
        if isinstance(error, OutlastError):
            raise CommandError(f"{place}: {error}", Exit.REFUSED) from None
        if fault.kind is Kind.BUG:
            raise
        raise refusal(str(place), fault) from None
