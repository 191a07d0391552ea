"""The incident book: few lines, exact counts, nothing distinct hidden, no secret told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast._core.faults import Fault, Kind, Scope
from outlast._core.incidents import IncidentBook, Line
from outlast._core.reaction import CRITICAL

REFUSED = Fault(Kind.TRANSIENT, "ECONNREFUSED", "connection refused", "db")
SHUTDOWN = Fault(Kind.TRANSIENT, "57P01", "terminating connection", "db")


def numbered(code: int, kind: Kind = Kind.TRANSIENT) -> Fault:
    return Fault(kind, f"E{code}", f"number {code}", "db")


def test_an_outage_of_a_minute_is_a_handful_of_lines_however_many_faults() -> None:
    lines: list[Line] = []
    book = IncidentBook("db")
    for tick in range(60_000):
        now = tick / 1_000
        lines += [line for line in (book.fault(REFUSED, now), book.remind(now)) if line]
    lines += [line for line in (book.better(60.0), book.resolve(90.0)) if line]
    assert [line.text.split(" (")[0] for line in lines] == [
        "db is down: TRANSIENT ECONNREFUSED connection refused",
        "db still down after 30 s",
        "db is back after 60.0 s",
        "db resolved: out for 60.0 s",
    ]
    assert "60000 faults" in lines[-1].text
    assert lines[-1].fields["outlast.count"] == 60_000


def test_reminders_grow_to_a_quarter_of_an_hour() -> None:
    book = IncidentBook("db")
    book.fault(REFUSED, 0.0)
    times = []
    for _ in range(9):
        assert book.remind_at is not None
        times.append(book.remind_at)
        assert book.remind(book.remind_at - 0.001) is None
        assert book.remind(book.remind_at) is not None
    assert times == [30, 90, 210, 450, 930, 1830, 2730, 3630, 4530]


def test_a_new_distinct_fault_is_shown_at_once_and_a_known_one_is_not() -> None:
    book = IncidentBook("db")
    assert book.fault(REFUSED, 0.0) is not None
    line = book.fault(SHUTDOWN, 0.1)
    assert line is not None
    assert "57P01" in line.text
    assert book.fault(SHUTDOWN, 0.2) is None
    assert book.fault(REFUSED, 0.3) is None
    assert book.faults == 4


@given(st.lists(st.integers(0, 50), max_size=400))
def test_counts_are_exact_also_beyond_the_bound(codes: list[int]) -> None:
    book = IncidentBook("db", distinct_max=8)
    lines = [line for line in (book.fault(numbered(code), float(at)) for at, code in enumerate(codes)) if line]
    assert book.faults == len(codes)
    assert sum(seen.count for seen in book.distinct.values()) + book.others == len(codes)
    assert len(book.distinct) <= 8
    assert len(lines) <= 9, "one for each that is kept, and one that says there are others"
    for seen in book.distinct.values():
        assert any(seen.fault.code in line.text for line in lines)


def test_critical_is_never_folded_away() -> None:
    book = IncidentBook("disk", distinct_max=1)
    broken = Fault(Kind.FATAL, "EIO", "input/output error", "disk")
    book.fault(REFUSED, 0.0)
    lines = [book.fault(broken, float(at)) for at in range(10)]
    assert all(line is not None and line.level == 50 for line in lines)


def test_what_ends_is_told_once_although_it_is_critical() -> None:
    book, ended = IncidentBook("db"), Fault(Kind.FATAL, "EIO", "input/output error", "db", Scope.CHILD)
    lines = [book.fault(ended, 0.0) for _ in range(100)]
    assert [line.level for line in lines if line] == [CRITICAL]
    assert book.faults == 100


def test_flapping_stays_one_incident_with_its_relapses_counted() -> None:
    book, lines = IncidentBook("db"), []
    for at in range(10):
        lines += [book.fault(REFUSED, float(at))]
        book.worse()
        lines += [book.better(at + 0.5)]
    assert sum(line is not None for line in lines) == 2
    assert book.incidents == 1
    assert "9 relapses" in (book.summary(10.0) or "")


def test_a_quiet_recovery_does_not_remind_but_a_flapping_one_does() -> None:
    book = IncidentBook("db")
    book.fault(REFUSED, 0.0)
    book.better(1.0)
    assert book.remind(30.0) is None
    book.fault(REFUSED, 31.0)
    book.worse()
    book.better(32.0)
    assert book.remind(90.0) is not None


def test_payloads_are_cut_and_secrets_are_redacted() -> None:
    book = IncidentBook("db")
    fault = Fault(Kind.TRANSIENT, "x", "postgresql://app:hunter2@host/db " + "y" * 5_000, "db", hint="password=hunter2")
    line = book.fault(fault, 0.0)
    assert line is not None
    assert "hunter2" not in line.text
    assert len(line.text) < 1_000


def test_only_a_bug_asks_for_its_traceback() -> None:
    book = IncidentBook("loop settle", "is failing")
    line = book.fault(Fault(Kind.BUG, "ValueError@shop:3", "ValueError: no", "settle"), 0.0)
    assert line is not None
    assert line.with_traceback
    line = book.fault(REFUSED, 0.0)
    assert line is not None
    assert not line.with_traceback


def test_nothing_open_says_nothing() -> None:
    book = IncidentBook("db")
    assert (book.better(0.0), book.resolve(0.0), book.remind(0.0), book.summary(0.0)) == (None,) * 4
