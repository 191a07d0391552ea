"""Every error that psycopg 3 and asyncpg know, as a fault; and what a driver's own complaints are."""

from __future__ import annotations

import inspect

import asyncpg
import psycopg
import pytest

from outlast import Classifiers, Fault, Kind, Scope
from outlast.postgres import postgres_rule
from outlast.postgres._classify import by_state

RULES = Classifiers([postgres_rule])


def states_of(module: object, base: type[BaseException]) -> dict[str, type[BaseException]]:
    return {
        cls.sqlstate: cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base) and isinstance(getattr(cls, "sqlstate", None), str)
    }


PSYCOPG = states_of(psycopg.errors, psycopg.Error)
ASYNCPG = states_of(asyncpg.exceptions, asyncpg.PostgresError)


def seen(exc: BaseException, phase: str = "query") -> tuple[Kind, str, Scope]:
    fault = RULES.classify(exc, phase=phase)
    return fault.kind, fault.code, fault.scope


def test_the_lists_are_worth_testing() -> None:
    assert len(PSYCOPG) > 240
    assert len(ASYNCPG) > 200


@pytest.mark.parametrize("state", sorted(PSYCOPG))
def test_no_state_of_the_server_is_a_bug_in_any_phase(state: str) -> None:
    for phase in ("query", "connect", ""):
        fault = RULES.classify(PSYCOPG[state]("was auch immer"), phase=phase)
        assert fault.kind is not Kind.BUG
        assert fault.code == state
        assert fault.hint or fault.kind is not Kind.PERMANENT


@pytest.mark.parametrize("state", sorted(set(PSYCOPG) & set(ASYNCPG)))
def test_both_drivers_give_the_same_fault(state: str) -> None:
    for phase in ("query", "connect"):
        assert seen(PSYCOPG[state]("a"), phase) == seen(ASYNCPG[state]("b"), phase)


@pytest.mark.parametrize("state", sorted(PSYCOPG))
def test_a_login_that_is_refused_concerns_everyone(state: str) -> None:
    fault = by_state(state, "refused", "connect")
    assert fault.is_evidence or fault.kind is Kind.FATAL


@pytest.mark.parametrize("state", sorted(state for state in PSYCOPG if state[:2] in {"21", "22", "23", "2B", "38", "P0"}))
def test_what_is_wrong_with_a_statement_is_no_evidence(state: str) -> None:
    assert not RULES.classify(PSYCOPG[state]("x"), phase="query").is_evidence


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (psycopg.InterfaceError("the cursor is closed"), Kind.BUG),
        (psycopg.ProgrammingError("the query has 1 placeholder but 0 parameters were passed"), Kind.BUG),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), Kind.REJECTED),
        (psycopg.errors.PipelineAborted("pipeline aborted"), Kind.TRANSIENT),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), Kind.BUG),
        (asyncpg.exceptions._base.DataError("invalid input for query argument $1: 'x'"), Kind.REJECTED),
        (asyncpg.exceptions._base.OutdatedSchemaCacheError("cached plan must not change"), Kind.TRANSIENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_misuse_of_a_driver_takes_no_server_down(exc: Exception, kind: Kind) -> None:
    fault = RULES.classify(exc, phase="query")
    assert fault.kind is kind
    assert not fault.is_evidence


def test_a_closed_connection_of_asyncpg_is_evidence() -> None:
    fault = RULES.classify(asyncpg.InterfaceError("connection is closed"), phase="query")
    assert fault == Fault(Kind.TRANSIENT, "08003", "connection is closed")
    assert fault.is_evidence


def test_the_reason_is_one_line_without_detail() -> None:
    exc = psycopg.errors.UniqueViolation(
        "doppelter Schlüsselwert\nDETAIL:  Schlüssel »(email)=(ann@example.org)« existiert bereits."
    )
    assert RULES.classify(exc).reason == "doppelter Schlüsselwert"


def test_the_driver_is_asked_by_name_so_neither_has_to_be_installed() -> None:
    alien = type("AdminShutdown", (Exception,), {"sqlstate": "57P01", "__module__": "another.driver"})
    assert postgres_rule(alien("x"), "query") is None
