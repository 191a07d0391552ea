"""The values by which a system shows itself."""

from __future__ import annotations

import enum

import pytest

import outlast
from outlast._core.shown import Figure, FigureKind, SystemHealth, Unit


class Light(enum.Enum):
    RED = "red"
    GREEN = "Green"


@pytest.mark.parametrize(
    "name", ["", "Sent", "sent messages", "_sent", "sent_", "sent__messages", "7up", "sent-messages", "größe"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no name; write lower case words"):
        Figure.counter(name, "Messages.", 1)
    with pytest.raises(ValueError, match="is no name"):
        Figure.gauge("queue", "Messages.", {"x": 1}, labels=(name,))


@pytest.mark.parametrize("name", ["sent_total", "size_bytes", "waited_seconds", "share_ratio", "job_count", "build_info"])
def test_units_and_endings_are_added_where_they_belong(name: str) -> None:
    with pytest.raises(ValueError, match="leave out the unit and the ending"):
        Figure.counter(name, "Messages.", 1)


def test_as_many_values_as_labels() -> None:
    with pytest.raises(ValueError, match=r"1 label values, \('a',\), for the labels \('queue', 'state'\)"):
        Figure.gauge("jobs", "Jobs.", {"a": 1}, labels=("queue", "state"))
    with pytest.raises(ValueError, match="0 label values"):
        Figure.gauge("jobs", "Jobs.", 1, labels=("queue",))


def test_a_number_or_a_number_for_each_value_of_a_label() -> None:
    assert Figure.counter("sent", "Sent.", 3).samples == [((), 3)]
    assert Figure.gauge("jobs", "Jobs.", {"a": 1, "b": 2}, labels=("queue",)).samples == [(("a",), 1), (("b",), 2)]
    by_two = Figure.gauge("jobs", "Jobs.", {("a", "dead"): 1}, labels=("queue", "state"), unit=Unit.NONE)
    assert (by_two.samples, by_two.kind) == ([(("a", "dead"), 1)], FigureKind.GAUGE)


def test_the_present_state_among_all_of_them() -> None:
    figure = Figure.states("light", "The light.", Light.GREEN)
    assert (figure.labels, figure.samples) == (("state",), [(("red",), 0.0), (("green",), 1.0)])


@pytest.mark.expected_logs("is down")
def test_a_system_waits_for_the_first_dependency_that_is_down() -> None:
    disk, peer, other = (outlast.Dependency(name) for name in ("disk", "peer", "other"))
    assert SystemHealth.waiting_for(disk, peer, other) is None
    for down in (other, peer):
        down.report(ConnectionRefusedError(111, "refused"))
    waits = SystemHealth.waiting_for(disk, peer, other)
    assert waits == SystemHealth(False, "waiting for peer", peer.fault, peer.health.opened_at)
    assert peer.fault is not None
