"""A server as a command: who comes in, how much one may send, the line that says where it is, and what keeps it from serving."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

import click

from outlast import ConfigurationError
from outlast._cli.errors import SHOW_S, CommandError, Exit
from outlast._cli.values import Address, Duration, Size
from outlast.extend import OwnThread
from outlast.logs._last_words import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from outlast import Admission, Service, Stop
    from outlast.http import Server, Tokens

    Command = Callable[..., int]
    Needs = Callable[[str, str], str | None]

HEALTH: Final = frozenset({"/livez", "/readyz"})


class Clients(TypedDict):
    """The options of a server, as `outlast.http` wants them."""

    listen: str
    tokens: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    open_to_all: bool
    connections: int
    connections_per_client: int
    body_size: int
    stop_within: float


def client_options(address: str, what: str, variable: str) -> Callable[[Command], Command]:
    """Return what adds the options of `Clients`, and `--admin`, to a command that serves `what` at `address`."""
    tokens = f"Let in who has one of these tokens: lines of NAME SCOPE[,SCOPE] SECRET. Without, from ${variable}."
    options = (
        click.option("--stop-within", type=Duration(), default="10s", show_default=True, help="The time that a stop may take."),
        click.option("--body-size", type=Size(), default="16M", show_default=True, help="The largest body of a request."),
        click.option(
            "--connections-per-client", type=click.IntRange(1), default=1000, show_default=True, help="… of one address."
        ),
        click.option("--connections", type=click.IntRange(1), default=4000, show_default=True, help="Open connections at most …"),
        click.option("--open-to-all", is_flag=True, help="Listen beyond loopback without tokens and without TLS."),
        click.option("--tls-key", type=_file(), help="Its key, as PEM."),
        click.option("--tls-cert", type=_file(), help="Speak TLS with this certificate, as PEM."),
        click.option("--tokens", type=_file(), help=tokens),
        click.option(
            "--admin",
            type=Address(),
            metavar="ADDRESS",
            help="Answer /livez, /readyz, /statusz and /metrics on HOST:PORT; PORT alone is on loopback.",
        ),
        click.option(
            "--listen",
            type=Address(),
            default=address,
            show_default=True,
            metavar="ADDRESS",
            help=f"HOST:PORT of the {what}; port 0 takes a free one.",
        ),
    )

    def add(command: Command) -> Command:
        for option in options:
            command = option(command)
        return command

    return add


def _file() -> click.Path:
    return click.Path(dir_okay=False, path_type=Path)


def server_of(app: Any, chosen: Clients, *, tokens: Tokens | None, admission: Admission | None = None) -> Server:  # noqa: ANN401 - any ASGI application
    """Return the server of an application. Raises `ConfigurationError`, `ValueError`, and a usage error for half a TLS."""
    from outlast.http import Limits, Server, Tls

    cert, key = chosen["tls_cert"], chosen["tls_key"]
    if (cert is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key come together.")
    limits = Limits(
        connections_max=chosen["connections"],
        connections_per_client_max=chosen["connections_per_client"],
        body_bytes_max=chosen["body_size"],
    )
    return Server(
        app,
        chosen["listen"],
        limits=limits,
        tokens=tokens,
        admission=admission,
        tls=None if cert is None or key is None else Tls(cert, key),
        open_to_all=chosen["open_to_all"],
    )


def tokens_of(file: Path | None, variable: str, needs: Needs, **ways: Any) -> Tokens | None:  # noqa: ANN401 - of `Tokens`
    """Return those of the file, or of the environment; None where there are neither."""
    from outlast.http import Tokens

    if file is not None:
        return Tokens.from_file(file, needs=needs, **ways)
    return Tokens.from_environment(variable, needs=needs, **ways) if os.environ.get(variable) else None


def announce(service: Service, said: Callable[[], tuple[Mapping[str, Any], str]], *, as_json: bool) -> None:
    """Add a task that prints one line on stdout once it serves: the object of `said` as JSON, or its text."""

    @service.task()
    async def announce(stop: Stop) -> None:
        await service.until_ready()
        values, text = said()
        line = json.dumps({**values, "pid": os.getpid()}) if as_json else text
        # Somebody may keep stdout open and not read it: the thread is left behind then.
        OwnThread("standard output").start(functools.partial(bounded, functools.partial(click.echo, line), SHOW_S))
        await stop.wait()


@contextlib.contextmanager
def served(what: str) -> Generator[None]:
    """Turn what keeps a server from its start into one line and an exit code."""
    try:
        yield
    except ConfigurationError as error:
        text = str(error).replace("or say open_to_all=True", "or say --open-to-all")
        text = text.replace("give each process a path of its own", "give each server a --journal of its own")
        raise CommandError(f"cannot serve: {text}", Exit.CONFIGURATION) from error
    except ImportError as error:
        raise CommandError(f"cannot serve {what}: {error}", Exit.CONFIGURATION) from error
    except ValueError as error:
        raise CommandError(f"cannot serve {what}: {error}", Exit.USAGE) from error
