"""A handler that is to run in a child process must be found there: what cannot is refused, and says what to do."""

from __future__ import annotations

import asyncio
import functools
import sys
import types
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import outlast
from outlast.jobs import Job, Jobs
from outlast.jobs import _process_child as process_child
from outlast.jobs._importable import MAIN, Home, check, main_source, place_of
from outlast.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def plain(job: Job) -> None:
    """Be found."""


async def coroutine(job: Job) -> None:
    """Be refused."""


class Renderer:
    async def __call__(self, job: Job) -> None:
        """Be refused."""

    def method(self, job: Job) -> None:
        """Be found, but be bound to nobody there."""


def queue() -> Jobs:
    return Jobs(Postgres("dbname=nowhere"))


def inner() -> Callable[[Job], None]:
    def nested(job: Job) -> None:
        """Be refused."""

    return nested


def test_a_function_at_the_top_level_is_found_by_module_and_name() -> None:
    place = place_of("render", plain)
    assert place == Home(__name__, "plain")
    check("render", plain, place)
    assert queue().handler("render", process=True)(plain) is plain


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (coroutine, "coroutine is a coroutine function; make it a plain function"),
        (Renderer(), "Renderer is a coroutine function"),
        (functools.partial(coroutine), "partial is a coroutine function"),
        (lambda job: job, "is defined inside a function; define it at the top level"),
        (inner(), "inner.<locals>.nested is defined inside a function"),
        (functools.partial(plain), "is a partial without a name; define a function"),
    ],
)
def test_what_a_child_cannot_find_is_refused_where_it_is_decorated(handler: Any, reason: str) -> None:
    with pytest.raises(outlast.ConfigurationError) as caught:
        queue().handler("render", process=True)(handler)
    assert "the handler of 'render' is to run in a child process (process=True), but" in str(caught.value)
    assert reason in str(caught.value)


def test_what_is_not_what_it_says_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.wraps(plain)
    def wrapped(job: Job) -> None:
        """Claim to be another."""

    for handler, place, reason in (
        (wrapped, place_of("render", wrapped), "make @jobs.handler the outermost decorator"),
        (Renderer().method, Home(__name__, "Renderer.method"), "is not what stands at"),
        (plain, Home(__name__, "nowhere"), "has no attribute 'nowhere'"),
        (plain, Home("no_such_module", "plain"), "No module named 'no_such_module'"),
    ):
        with pytest.raises(outlast.ConfigurationError, match=reason):
            check("render", handler, place)
    session = types.ModuleType(MAIN)
    session.plain = plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MAIN, session)
    with pytest.raises(outlast.ConfigurationError, match="interactive session; put it into a module"):
        check("render", plain, Home(MAIN, "plain"))
    assert main_source() is None


def test_a_service_does_not_start_with_a_handler_that_no_child_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, service = Jobs(Postgres("dbname=nowhere"), journal_path=tmp_path / "journal"), outlast.Service("shop")
    jobs.handler("render", process=True)(plain)
    jobs.work(service)
    monkeypatch.delattr(sys.modules[__name__], "plain")
    with pytest.raises(outlast.ConfigurationError, match="but plain is not at"):
        asyncio.run(service.run())


def test_a_child_that_imports_an_unguarded_program_does_not_become_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, service = Jobs(Postgres("dbname=nowhere"), journal_path=tmp_path / "journal"), outlast.Service("shop")
    jobs.work(service)
    monkeypatch.setattr(process_child, "_parents", [1])
    with pytest.raises(outlast.ConfigurationError, match='start it under if __name__ == "__main__"'):
        asyncio.run(service.run())


def test_a_job_arrives_as_it_was_sent() -> None:
    job = Job(7, "render", {"page": [1, None, "é"]}, 2, 5, "urgent", 9, "k", datetime(2026, 1, 2, tzinfo=UTC), None, 3)
    message = process_child.of_job(job)
    assert process_child.frame(message)
    assert process_child.to_job(message | {"of_a_later_version": 1}) == job
