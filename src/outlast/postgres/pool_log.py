"""psycopg's own lines about our pools: what they tell is in the incident already, with a count."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_OURS: Final[ContextVar[bool]] = ContextVar("outlast_postgres_pool", default=False)
"""Whether what runs now, a pool's task included, belongs to a pool of ours: tasks inherit it."""
_LOGGERS: Final = ("psycopg", "psycopg.pool")


class _NotOurs(logging.Filter):
    """Lets everything pass but records below CRITICAL that come from a pool of ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.CRITICAL or not _OURS.get()


_FILTER: Final = _NotOurs()


def install() -> None:
    """Put the filter on psycopg's loggers; doing it again changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


@contextmanager
def ours() -> Generator[None]:
    """Mark what happens in this block, and the tasks started in it, as our pool's."""
    token = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(token)
