"""The group of commands, and what they have in common: the store, and what goes wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click

from outlast._cli.errors import Exit
from outlast._cli.output import as_json_option
from outlast._cli.store import act_on, store_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Dependency
    from outlast._cli.store import StorePlace
    from outlast.procedures import Procedures

T = TypeVar("T")

VARIABLE: Final = "OUTLAST_PROCEDURES_STORE"
EXIT_NOT_ALL: Final = Exit.REFUSED
"""Some of what was named could not be acted upon."""

kind_argument = click.argument("kind")
key_argument = click.argument("key")


@click.group()
def procedures() -> None:
    """Look at the procedures in a store, and act on them, while their services run or not.

    STORE is what the services have: a file (work.db or sqlite:work.db), postgresql://HOST/DATABASE or
    etcd://HOST:PORT[/PREFIX]. It is named by --store, or better by the variable OUTLAST_PROCEDURES_STORE: arguments are seen in
    the list of processes. What is done here, running services learn at once.

    Example: outlast procedures ls --store work.db --state dead

    outlast procedures explain create-table cpu --store work.db
    """


def on_store(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that name a store to a command."""
    return store_options(VARIABLE)(as_json_option(command))


def acted(place: StorePlace, act: Callable[[Procedures], Awaitable[T]]) -> T:
    """Open the store, act on it, close it. Raises `CommandError`."""
    from outlast.procedures import InvalidProcedureError, Procedures

    def made(dependency: Dependency) -> tuple[Procedures, Dependency]:
        found = Procedures(dependency, schema=place.schema, make=False)
        return found, found.store.dependency

    return act_on(
        place,
        made,
        act,
        lacks="it has no procedures, or an earlier version made them: start a service that runs them first",
        invalid=lambda error: isinstance(error, InvalidProcedureError),
    )
