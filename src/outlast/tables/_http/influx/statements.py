"""The few statements of InfluxQL that clients send before they write, and their results in the shape of InfluxDB 1."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from outlast.tables._http.answers import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT_CHARS_MAX: Final = 4_096
STATEMENTS_MAX: Final = 16
_NAME: Final = r"""(?:"(?P<quoted>(?:[^"\\]|\\.)+)"|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))"""
_CREATE: Final = re.compile(rf"create\s+database\s+(?:if\s+not\s+exists\s+)?{_NAME}(?:\s+with\s+.+)?", re.IGNORECASE | re.DOTALL)
_SHOW_DATABASES: Final = re.compile(r"show\s+databases", re.IGNORECASE)
_SHOW_POLICIES: Final = re.compile(rf"show\s+retention\s+policies(?:\s+on\s+{_NAME})?", re.IGNORECASE)
_ANSWERED: Final = "CREATE DATABASE, SHOW DATABASES and SHOW RETENTION POLICIES"


@dataclass(frozen=True, slots=True)
class CreateDatabase:
    """`CREATE DATABASE name`, with whatever follows WITH."""

    name: str


@dataclass(frozen=True, slots=True)
class ShowDatabases:
    """`SHOW DATABASES`."""


@dataclass(frozen=True, slots=True)
class ShowPolicies:
    """`SHOW RETENTION POLICIES [ON name]`. Without a name: of the database of the request."""

    name: str


def statements(text: str) -> list[CreateDatabase | ShowDatabases | ShowPolicies]:
    """Return the statements of `text`, parted by semicolons. Raises `RefusedError` (400) for one that is not answered here."""
    if len(text) > TEXT_CHARS_MAX:
        raise RefusedError(400, f"error parsing query: it has {len(text):,} characters, and {TEXT_CHARS_MAX:,} are read")
    parts = [part.strip() for part in text.split(";")]
    found = [_statement(part) for part in parts if part][: STATEMENTS_MAX + 1]
    if len(found) > STATEMENTS_MAX:
        raise RefusedError(400, f"error parsing query: it has more than {STATEMENTS_MAX} statements")
    if not found:
        raise RefusedError(400, 'missing required parameter "q"')
    return found


def _statement(text: str) -> CreateDatabase | ShowDatabases | ShowPolicies:
    if match := _CREATE.fullmatch(text):
        return CreateDatabase(_name(match))
    if _SHOW_DATABASES.fullmatch(text):
        return ShowDatabases()
    if match := _SHOW_POLICIES.fullmatch(text):
        return ShowPolicies(_name(match))
    cut = text if len(text) <= 60 else text[:60] + "…"
    msg = f"error parsing query: {cut!r} is not answered here: {_ANSWERED} are; read points with /api/query"
    raise RefusedError(400, msg)


def _name(match: re.Match[str]) -> str:
    quoted = match["quoted"]
    return match["bare"] or "" if quoted is None else re.sub(r"\\(.)", r"\1", quoted)


def results(each: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Return the results of statements, one a statement: a series, or None where there is nothing to show."""
    return {
        "results": [
            {"statement_id": number} if series is None else {"statement_id": number, "series": [series]}
            for number, series in enumerate(each)
        ]
    }


def databases_series(names: Sequence[str]) -> dict[str, Any]:
    """Return the result of SHOW DATABASES."""
    series: dict[str, Any] = {"name": "databases", "columns": ["name"]}
    return {**series, "values": [[name] for name in names]} if names else series


def policies_series() -> dict[str, Any]:
    """Return the result of SHOW RETENTION POLICIES: the one that every database of the original begins with."""
    columns = ["name", "duration", "shardGroupDuration", "replicaN", "default"]
    return {"columns": columns, "values": [["autogen", "0s", "168h0m0s", 1, True]]}
