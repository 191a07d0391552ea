"""What every system must do that shows itself: answer at any time, from any thread, always with the same names."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

import exposition
import outlast
from outlast._core.shown import NAME
from outlast._serve.metrics import Collector
from outlast.changes import Changes, PostgresSink
from outlast.extend import Figure, Lag, SystemHealth
from outlast.jobs import Jobs
from outlast.postgres import Postgres
from outlast.sqlite import Sqlite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from outlast.extend import Shown

DSN = "postgresql://nobody@127.0.0.1:1/nothing"


def of_jobs(service: outlast.Service, directory: Path) -> None:
    Jobs(Postgres(DSN), journal_path=directory / "journal").work(service, workers=3, queues=("default", "mails"))


def of_changes(service: outlast.Service, directory: Path) -> None:
    del directory
    Changes(Postgres(DSN), "shop", sink=PostgresSink(Postgres(DSN, name="warehouse"))).attach(service)


def of_admission(service: outlast.Service, directory: Path) -> None:
    del directory
    outlast.Admission("orders").attach(service)


def of_sqlite(service: outlast.Service, directory: Path) -> None:
    Sqlite(directory / "work.db").attach(service)


@pytest.fixture(params=[of_jobs, of_changes, of_admission, of_sqlite], ids=["jobs", "changes", "admission", "sqlite"])
def shown(request: pytest.FixtureRequest, tmp_path: Path) -> Shown:
    """A system that was attached to a service and has not begun."""
    service = outlast.Service("shop")
    attach: Callable[[outlast.Service, Path], None] = request.param
    attach(service, tmp_path)
    found: list[Shown] = service.all_shown()
    assert len(found) == 1, "it registers itself, once"
    return found[0]


def names(figures: Any) -> list[tuple[Any, ...]]:
    return [(figure.name, figure.kind, figure.unit, figure.labels, figure.text) for figure in figures]


def test_it_has_a_kind_and_a_name(shown: Shown) -> None:
    assert NAME.fullmatch(shown.system)
    assert shown.name


def test_it_answers_before_it_has_begun(shown: Shown) -> None:
    assert shown.figures()
    assert all(isinstance(figure, Figure) for figure in shown.figures())
    health = shown.health()
    assert isinstance(health, SystemHealth)
    assert health.state
    assert health.well is None, "it does not run: nobody knows"
    lag = shown.lag()
    assert lag is None or isinstance(lag, Lag)


def test_its_names_are_the_same_each_time(shown: Shown) -> None:
    assert names(shown.figures()) == names(shown.figures())
    assert len({figure.name + figure.unit.value for figure in shown.figures()}) == len(shown.figures())
    assert [act.name for act in shown.acts()] == [act.name for act in shown.acts()]


def test_it_answers_in_any_thread(shown: Shown) -> None:
    answers: list[Any] = []

    def ask() -> None:
        answers.extend([shown.figures(), shown.health(), shown.lag(), shown.acts()])

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(answers) == 4


def test_its_page_is_well_formed_and_nothing_is_left_out(shown: Shown) -> None:
    families = exposition.read(Collector(tuple, lambda: [shown])().text)
    assert families["outlast_left_out_samples"].samples == {(): 0}
    assert families["outlast_system_shown"].samples == {(("system", shown.system), ("name", shown.name)): 1}
    for figure in shown.figures():
        assert any(name.startswith(f"outlast_{shown.system}_{figure.name}") for name in families) or not figure.samples


def test_its_acts_say_what_they_do(shown: Shown) -> None:
    for act in shown.acts():
        assert act.name
        assert act.text.endswith(".")
        assert act.concerns is None or act.concerns >= 0
        assert callable(act.run)


def test_nothing_it_shows_is_a_secret_of_its_dsn(shown: Shown) -> None:
    told = [shown.name, shown.health().state, *(figure.text for figure in shown.figures())]
    assert "nobody" not in json.dumps(told)
