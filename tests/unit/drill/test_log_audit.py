"""The records of the fluvio drill, its audit, and its counts of state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast._drill.fluvio.audit import LINES_FILE, audit, ids_of_lines
from outlast._drill.fluvio.run import longest_gap, transitions
from outlast._drill.fluvio.wire import RECORD_BYTES, id_of, record

if TYPE_CHECKING:
    from pathlib import Path


def test_a_record_has_its_id_and_what_is_not_whole_has_none() -> None:
    whole = record(7 << 40 | 3)
    assert (len(whole), id_of(whole)) == (RECORD_BYTES, 7 << 40 | 3)
    assert [id_of(data) for data in (whole[:-1], whole + b".", b"x" + whole[1:], whole[:-1] + b"!", b"")] == [None] * 5


def test_the_audit_counts_lost_phantom_and_twice_and_forgives_what_is_unknown() -> None:
    found = audit(acknowledged=[1, 2, 3], refused=[4, 5], readable=[1, 2, 2, 4, 9])
    assert (found.lost, found.phantom, found.twice, found.readable) == (1, 1, 1, 4)
    fine = audit(acknowledged=[1], refused=[2], readable=[1])
    assert (fine.lost, fine.phantom, fine.twice) == (0, 0, 0)


def test_a_torn_line_and_the_one_glued_to_it_are_no_records(tmp_path: Path) -> None:
    (tmp_path / LINES_FILE).write_bytes(
        record(1) + b"\n" + record(2)[:300] + record(3) + b"\n" + record(4) + b"\n" + record(5)[:9]
    )
    assert ids_of_lines(tmp_path) == [1, 4]


def test_a_change_of_state_is_a_step_in_which_all_are_refused() -> None:
    taken, refused = [0.05, 0.15, 0.55], [0.12, 0.25, 0.35]
    assert transitions(taken, refused, 0.0, 1.0) == 2
    assert transitions(taken, [], 0.0, 1.0) == 0
    # What comes after the fault is none of it, also within its last step.
    assert transitions([0.05, 0.36], [0.15], 0.0, 0.35) == 1
    # A step with no answer at all says nothing.
    assert transitions([0.05, 0.95], [], 0.0, 1.0) == 0


def test_the_longest_gap_counts_the_ends() -> None:
    assert longest_gap([1.0, 2.0, 2.5], 0.0, 5.0) == 2.5
    assert longest_gap([], 1.0, 5.0) == 4.0
    assert longest_gap([0.5, 9.0], 1.0, 5.0) == 4.0
