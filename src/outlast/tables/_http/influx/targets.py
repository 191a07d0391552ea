"""The parameters of a write, in each of the three APIs: which database, which unit, how much is asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast.tables._errors import InvalidQueryError
from outlast.tables._http.answers import RefusedError
from outlast.tables._http.request import parameters
from outlast.tables._lines.units import unit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TARGETS_KEPT: Final = 256
"""Queries that were read lately: reading one costs more than looking it up."""
_BOOLEANS: Final = {"true": True, "false": False}


class Target(NamedTuple):
    """The destination of a body, and how it is to be taken."""

    database: str
    unit_ns: int | None
    """The nanoseconds of a unit of its times; None: told from their size."""
    whole: bool = False
    durable: bool = True


def target_1(query: Mapping[str, str]) -> Target:
    """Return the target of `/write`. Raises `RefusedError` (400)."""
    database = query.get("db", "")
    if not database:
        raise RefusedError(400, "database is required")
    precision = query.get("precision")
    try:
        return Target(database, unit_of("v1", precision))
    except InvalidQueryError:
        raise RefusedError(400, f'invalid precision "{_cut(precision)}" (use n, u, ms, s, m or h)') from None


def target_2(query: Mapping[str, str]) -> Target:
    """Return the target of `/api/v2/write`. Raises `RefusedError` (400)."""
    bucket = query.get("bucket", "")
    if not bucket:
        raise RefusedError(400, "missing bucket value")
    try:
        return Target(bucket, unit_of("v2", query.get("precision")))
    except InvalidQueryError:
        raise RefusedError(400, "invalid precision; valid precision units are ns, us, ms, and s") from None


def target_3(query: Mapping[str, str]) -> Target:
    """Return the target of `/api/v3/write_lp`. Raises `RefusedError` (400)."""
    database = query.get("db", "")
    if not database:
        raise RefusedError(400, "missing query parameter 'db'")
    try:
        unit_ns = unit_of("v3", query.get("precision"))
    except InvalidQueryError as error:
        raise RefusedError(400, str(error)) from None
    whole = not _boolean(query, "accept_partial", unless=True)
    return Target(database, unit_ns, whole, durable=not _boolean(query, "no_sync", unless=False))


def _cut(value: str | None) -> str:
    return (value or "")[:20]


def _boolean(query: Mapping[str, str], name: str, *, unless: bool) -> bool:
    value = query.get(name)
    if value is None:
        return unless
    if value not in _BOOLEANS:
        raise RefusedError(400, f"serde error: provided string was not `true` or `false`: {name}={value[:20]}")
    return _BOOLEANS[value]


def target_of(raw_query: bytes, read: Callable[[Mapping[str, str]], Target]) -> Target:
    """Return the target that a query names, read by one of the functions above. Raises `RefusedError` (400)."""
    # A query with a password is not kept: nothing of a secret stays in memory but its digest.
    if b"p=" in raw_query or b"%70" in raw_query:
        return read(parameters(raw_query))
    return _kept(raw_query, read)


@lru_cache(TARGETS_KEPT)
def _kept(raw_query: bytes, read: Callable[[Mapping[str, str]], Target]) -> Target:
    return read(parameters(raw_query))
