"""The group of commands, and what they have in common: the store, and what goes wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click

from outlast._cli.errors import CommandError, Exit
from outlast._cli.output import as_json_option
from outlast._cli.store import FILE_OR_POSTGRESQL, act_on, store_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast import Dependency
    from outlast._cli.store import StorePlace
    from outlast.tables import TableRecord, Tables

    Command = Callable[..., int]
    _Text = click.ParamType[str]
else:
    # Older versions of click have no type argument here.
    _Text = click.ParamType

T = TypeVar("T")

VARIABLE: Final = "OUTLAST_TABLES_STORE"
STORE: Final = "metrics.db"


class StoredText(_Text):
    """A name or a value as stores have them: bytes of an argument that are no UTF-8 are part of none."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        text = str(value)
        if not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text):
            self.fail(f"{text!r} is no UTF-8, and every name in a store is; set the locale of the terminal to UTF-8", param, ctx)
        return text


table_argument = click.argument("table", type=StoredText())


@click.group()
def tables() -> None:
    """Serve tables of metrics to collectors, look at them, ask for their points, and drop them.

    STORE is a file (metrics.db, which is the default) or postgresql://HOST/DATABASE. It is named by --store, or better by the
    variable OUTLAST_TABLES_STORE: arguments are seen in the list of processes. ls, show and query only look, and may be used
    while the server runs.

    Example: outlast tables serve

    outlast tables query cpu --since 1h --format graph
    """


def on_store(command: Command) -> Command:
    """Add the options that name a store, and `--json`, to a command."""
    return store_option(as_json_option(command))


def store_option(command: Command) -> Command:
    """Add the options that name a store to a command."""
    return store_options(VARIABLE, forms=FILE_OR_POSTGRESQL, default=STORE)(command)


def acted(place: StorePlace, act: Callable[[Tables], Awaitable[T]]) -> T:
    """Open the store, act on it, close it; a store is not made for that. Raises `CommandError`."""
    from outlast.tables import InvalidQueryError, Tables

    def made(dependency: Dependency) -> tuple[Tables, Dependency]:
        found = Tables(dependency, schema=place.schema, make=False)
        return found, found.dependency

    return act_on(
        place,
        made,
        act,
        lacks="it has no tables yet: outlast tables serve makes them, with the first points",
        invalid=lambda error: isinstance(error, InvalidQueryError),
    )


def not_there(place: StorePlace, name: str) -> CommandError:
    """Return the error that ends a command about a table that there is not."""
    return CommandError(f"{place}: there is no table {name!r}; outlast tables ls shows those that are there", Exit.NO_INPUT)


async def existing(tables: Tables, place: StorePlace, name: str) -> TableRecord:
    """Return a table. Raises `CommandError`, 66, if there is none."""
    record = await tables.table(name)
    if record is None:
        raise not_there(place, name)
    return record
