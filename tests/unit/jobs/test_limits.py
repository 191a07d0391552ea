"""What a job, a handler and a queue may ask for: all else is refused where it comes in, with the limit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import outlast
from outlast.jobs import InvalidJobError, Job, Jobs, NewJob
from outlast.jobs._limits import SECONDS_MAX, bounded_delay_s, moment
from outlast.postgres import Postgres

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"deadline_s": 1e12}, "deadline_s must be from 0 to 3.15576e.09 seconds, not 1000000000000.0"),
        ({"deadline_s": NAN}, "not nan"),
        ({"deadline_s": INF}, "not inf"),
        ({"deadline_s": -1}, "not -1"),
        ({"deadline_s": "60"}, "not '60'"),
        ({"delay_s": 1e300}, "delay_s must be from 0"),
        ({"delay_s": NAN}, "not nan"),
        ({"delay_s": -0.1}, "not -0.1"),
        ({"delay_s": 10**5000}, "not a int that cannot be shown"),
        ({"run_at": datetime(9999, 12, 31, tzinfo=UTC)}, "run_at must be before the year 9000"),
        ({"run_at": datetime(9999, 12, 31)}, "run_at must be before the year 9000"),  # noqa: DTZ001
        ({"deadline_at": datetime(9000, 1, 1, tzinfo=UTC)}, "deadline_at must be before the year 9000"),
        ({"deadline_at": 12.5}, "deadline_at must be a datetime"),
        ({"priority": 2**31}, "priority must be a whole number from -2147483648 to 2147483647"),
        ({"priority": 1.5}, "not 1.5"),
        ({"attempts_max": 0}, "attempts_max must be a whole number from 1 to 1000000, not 0"),
        ({"attempts_max": 2**31}, "not 2147483648"),
        ({"queue": "a\x00b"}, "NUL"),
        ({"queue": ""}, "not empty"),
        ({"unique_key": "\ud800"}, "half a surrogate pair"),
        ({"unique_key": "k" * 2001}, "at most 2000 bytes, not 2001"),
        ({"payload": NAN}, "the payload is no JSON"),
        ({"payload": "\x00"}, "NUL"),
        ({"kind": "n" * 3000}, "the kind of a job must have at most 2000 bytes"),
        ({"wait_s": NAN}, "wait_s must be from 0"),
        ({"wait_s": -1}, "wait_s must be from 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_it_is_refused_before_anything_is_asked(options: dict[str, Any], says: str) -> None:
    jobs = Jobs(Postgres("host=127.0.0.1 port=1"))
    with pytest.raises(InvalidJobError, match=says):
        asyncio.run(jobs.enqueue(**{"kind": "note", **options}))
    options.pop("wait_s", None)
    if options:
        with pytest.raises(InvalidJobError):
            asyncio.run(jobs.enqueue_many([NewJob("good"), NewJob(**{"kind": "note", **options})]))


@pytest.mark.parametrize(
    "options",
    [
        {"lease_s": 0},
        {"lease_s": NAN},
        {"lease_s": INF},
        {"poll_s": -1},
        {"poll_s": NAN},
        {"retention_s": -1.0},
        {"retention_s": 1e12},
        {"payload_bytes_max": 0},
        {"payload_bytes_max": 2**40},
    ],
    ids=str,
)
def test_senseless_settings_of_a_queue_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(outlast.ConfigurationError, match=f"jobs: {next(iter(options))} must be .* not "):
        Jobs(Postgres("dbname=x"), **options)


@pytest.mark.parametrize(
    "options", [{"timeout_s": NAN}, {"timeout_s": 0}, {"timeout_s": INF}, {"attempts_max": 0}, {"kind": "\x00"}], ids=str
)
def test_senseless_settings_of_a_handler_are_refused(options: dict[str, Any]) -> None:
    jobs = Jobs(Postgres("dbname=x"))
    with pytest.raises(outlast.ConfigurationError, match="jobs: "):

        @jobs.handler(**{"kind": "note", **options})
        async def note(job: Job) -> None:
            return


def test_a_time_without_a_zone_is_local() -> None:
    naive = datetime(2026, 1, 31, 12, 0)  # noqa: DTZ001 - that is what it is about
    assert moment("run_at", naive) == naive.astimezone()
    east = datetime(2026, 1, 31, 12, 0, tzinfo=timezone(timedelta(hours=5)))
    assert moment("run_at", east) == east
    assert moment("run_at", datetime(1, 1, 1, tzinfo=UTC)).year == 1


def test_a_wait_that_somebody_asked_for_is_brought_into_range() -> None:
    asked = (NAN, -INF, -1.0, 5.0, INF, 1e300)
    assert [bounded_delay_s(each, 1.0) for each in asked] == [1.0, 1.0, 1.0, 5.0, SECONDS_MAX, SECONDS_MAX]
