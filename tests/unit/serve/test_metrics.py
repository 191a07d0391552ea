"""The text format of Prometheus, and the page that collects figures."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

import exposition
from outlast import Fault, Kind
from outlast._core.redact import clean
from outlast._core.shown import Act, Figure, Lag, SystemHealth, Unit
from outlast._serve import metrics
from outlast._serve.metrics import Collector, Group
from outlast._serve.metrics import exposition as written

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

LEFT_OUT = (
    "# HELP outlast_left_out_samples Samples left out of this answer: too many, or twice the same labels.\n"
    "# TYPE outlast_left_out_samples gauge\noutlast_left_out_samples "
)
WELL = SystemHealth(well=True, state="sending")


async def nothing() -> int:
    return 0


@dataclass
class Outbox:
    """A system that shows what it is told to."""

    name: str = "orders"
    system: str = "outbox"
    shown: Sequence[Figure] = ()
    is_well: SystemHealth = WELL
    behind: Lag | None = None
    able_to: Sequence[Act] = ()
    threads: set[int] = field(default_factory=set)

    def figures(self) -> Sequence[Figure]:
        self.threads.add(threading.get_ident())
        return self.shown

    def health(self) -> SystemHealth:
        return self.is_well

    def lag(self) -> Lag | None:
        return self.behind

    def acts(self) -> Sequence[Act]:
        return self.able_to


def collected(*systems: Any, now: float = 1000.0) -> dict[str, exposition.Family]:
    return exposition.read(Collector(tuple, lambda: systems, clock=lambda: now)().text)


def value(families: dict[str, exposition.Family], figure: str, /, **labels: str) -> float:
    return families[figure].samples[tuple(labels.items())]


# The format


def test_the_text_format_of_prometheus() -> None:
    figures = [
        Figure.gauge("up", "Whether it runs.", True),
        Figure.counter("lines", "Lines.", {'a "b"\\': 12345678.0}, labels=("place",)),
        Figure.counter("read", "Bytes\\ read.", 0.25, unit=Unit.BYTES),
    ]
    assert written([Group("outlast_guard", figures)]) == (
        "# HELP outlast_guard_up Whether it runs.\n# TYPE outlast_guard_up gauge\noutlast_guard_up 1\n"
        "# HELP outlast_guard_lines_total Lines.\n# TYPE outlast_guard_lines_total counter\n"
        'outlast_guard_lines_total{place="a \\"b\\"\\\\"} 12345678\n'
        "# HELP outlast_guard_read_bytes_total Bytes\\\\ read.\n# TYPE outlast_guard_read_bytes_total counter\n"
        "outlast_guard_read_bytes_total 0.25\n" + LEFT_OUT + "0\n"
    )


@given(st.text(max_size=200), st.text(max_size=20))
def test_the_value_of_a_label_is_read_as_it_was_on_one_line_and_without_secrets(text: str, other: str) -> None:
    group = Group("outlast_x", [Figure.gauge("up", "Up.", {(text, other): 1}, labels=("a", "b"))], {"name": other})
    families = exposition.read(written([group]))
    assert list(families["outlast_x_up"].samples) == [(("name", clean(other)), ("a", clean(text)), ("b", clean(other)))]


@given(st.text(min_size=1, max_size=100).filter(lambda text: text.strip() and "\r" not in text))
def test_a_help_is_read_as_it_was(text: str) -> None:
    families = exposition.read(written([Group("outlast_x", [Figure.gauge("up", text, 1)])]))
    assert families["outlast_x_up"].text == text


@given(st.one_of(st.floats(), st.integers(-(2**70), 2**70)))
def test_a_number_is_read_as_it_was(number: float) -> None:
    read = exposition.read(written([Group("outlast_x", [Figure.gauge("up", "Up.", number)])]))["outlast_x_up"].samples[()]
    assert read == float(number) or (read != read and number != number)  # noqa: PLR0124 - NaN


def test_a_name_of_several_groups_stands_once_with_the_samples_of_all() -> None:
    groups = [Group("outlast_x", [Figure.gauge("up", "Up.", number)], {"name": str(number)}) for number in range(3)]
    families = exposition.read(written(groups))
    assert list(families["outlast_x_up"].samples.values()) == [0, 1, 2]


def test_what_comes_twice_or_as_another_kind_is_left_out_and_counted() -> None:
    up = Figure.gauge("up", "Up.", 1)
    counter = Figure.counter("read", "Read.", 1)
    disguised = Figure.gauge("read", "Read.", {"a": 1, "b": 2}, labels=("a",))
    object.__setattr__(disguised, "name", "read_total")
    families = exposition.read(written([Group("outlast_x", [up, counter]), Group("outlast_x", [up, disguised])]))
    assert families["outlast_x_up"].samples == {(): 1}
    assert families["outlast_x_read_total"].samples == {(): 1}
    assert families["outlast_left_out_samples"].samples == {(): 3}


def test_only_so_many_samples_of_a_figure_are_written() -> None:
    many = Figure.gauge("jobs", "Jobs.", {str(n): n for n in range(metrics.SAMPLES_MAX + 5)}, labels=("queue",))
    families = exposition.read(written([Group("outlast_x", [many])]))
    assert list(families["outlast_x_jobs"].samples.values()) == list(range(metrics.SAMPLES_MAX))
    assert families["outlast_left_out_samples"].samples == {(): 5}


# Systems


def test_a_system_shows_figures_health_lag_and_what_its_acts_concern() -> None:
    fault = Fault(Kind.TRANSIENT, "503", "the peer is away")
    outbox = Outbox(
        shown=[Figure.counter("sent_messages", "Sent.", 7), Figure.gauge("kept", "Kept.", 9, unit=Unit.BYTES)],
        is_well=SystemHealth(well=False, state="waiting", cause=fault, since=990.0),
        behind=Lag(size_bytes=512, seconds=1.5),
        able_to=[Act("retry dead messages", "Tries them again.", nothing, 17), Act("drop all", "Drops.", nothing)],
    )
    families = collected(outbox, Outbox(name="mails", shown=[Figure.counter("sent_messages", "Sent.", 8)]))
    assert families["outlast_outbox_sent_messages_total"].samples == {(("name", "orders"),): 7, (("name", "mails"),): 8}
    about = {"system": "outbox", "name": "orders"}
    assert value(families, "outlast_system_well", **about) == 0
    assert value(families, "outlast_system_unwell_seconds", **about) == 10
    assert value(families, "outlast_system_lag_bytes", **about) == 512
    assert value(families, "outlast_system_lag_seconds", **about) == 1.5
    assert value(families, "outlast_system_act_concerns", **about, act="retry dead messages") == 17
    assert str(value(families, "outlast_system_act_concerns", **about, act="drop all")) == "nan"
    assert value(families, "outlast_system_well", system="outbox", name="mails") == 1


def test_what_is_not_known_is_not_well() -> None:
    families = collected(Outbox(is_well=SystemHealth(well=None, state="unknown")))
    assert str(value(families, "outlast_system_well", system="outbox", name="orders")) == "nan"


def test_what_was_read_elsewhere_comes_with_its_age_and_is_left_out_when_it_says_nothing_about_now() -> None:
    def outbox(read_at: float) -> Outbox:
        return Outbox(shown=[Figure.gauge("rows", "Rows.", 3, read_at=read_at)], behind=Lag(seconds=4, read_at=read_at))

    now, about = 1000.0, {"system": "outbox", "name": "orders"}
    fresh = collected(outbox(now - metrics.STALE_S), now=now)
    assert value(fresh, "outlast_outbox_rows", name="orders") == 3
    assert value(fresh, "outlast_system_lag_seconds", **about) == 4
    assert value(fresh, "outlast_system_figure_age_seconds", **about, figure="rows") == metrics.STALE_S
    stale = collected(outbox(now - metrics.STALE_S - 1), now=now)
    assert "outlast_outbox_rows" not in stale
    assert "outlast_system_lag_seconds" not in stale
    assert value(stale, "outlast_system_figure_age_seconds", **about, figure="rows") == metrics.STALE_S + 1


def test_a_system_that_cannot_be_shown_costs_the_others_nothing_and_is_told_once(expected_logs: Any) -> None:
    expected_logs("outbox broken cannot be shown")

    class Broken(Outbox):
        def lag(self) -> Lag | None:
            if self.shown:
                raise ZeroDivisionError
            return None

    broken = Broken("broken", shown=[Figure.gauge("rows", "Rows.", 1)])
    collector = Collector(tuple, lambda: [broken, Outbox()])
    for _ in range(3):
        families = exposition.read(collector().text)
        assert value(families, "outlast_system_shown", system="outbox", name="broken") == 0
        assert value(families, "outlast_system_shown", system="outbox", name="orders") == 1
        assert value(families, "outlast_system_well", system="outbox", name="orders") == 1
    assert len(expected_logs.messages) == 1
    broken.shown = []
    assert value(exposition.read(collector().text), "outlast_system_shown", system="outbox", name="broken") == 1


def test_a_system_that_cannot_say_its_name_goes_by_its_class(expected_logs: Any) -> None:
    expected_logs("metrics: Nameless  cannot be shown")

    class Nameless(Outbox):
        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "name":
                raise LookupError
            return super().__getattribute__(attribute)

    families = exposition.read(Collector(tuple, lambda: [Nameless(), Outbox()])().text)
    assert value(families, "outlast_system_shown", system="Nameless", name="") == 0
    assert value(families, "outlast_system_well", system="outbox", name="orders") == 1


def test_only_so_many_systems_and_figures_of_one_are_shown() -> None:
    figures = [Figure.gauge(f"a{number}", "A.", 1) for number in range(metrics.FIGURES_MAX + 1)]
    families = collected(Outbox(shown=figures))
    assert f"outlast_outbox_a{metrics.FIGURES_MAX - 1}" in families
    assert f"outlast_outbox_a{metrics.FIGURES_MAX}" not in families
    families = collected(*(Outbox(name=str(number)) for number in range(metrics.SYSTEMS_MAX + 1)))
    assert len(families["outlast_system_shown"].samples) == metrics.SYSTEMS_MAX


def test_one_thread_collects_at_a_time_and_the_others_are_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "WAIT_S", 0.0)
    entered, leave = threading.Event(), threading.Event()

    class Slow(Outbox):
        def health(self) -> SystemHealth:
            entered.set()
            assert leave.wait(60)
            return WELL

    collector = Collector(tuple, lambda: [Slow()])
    codes: list[int] = []
    first = threading.Thread(target=lambda: codes.append(collector().code))
    first.start()
    assert entered.wait(60)
    assert collector().code == 503
    leave.set()
    first.join()
    assert codes == [200]
    assert collector().code == 200
