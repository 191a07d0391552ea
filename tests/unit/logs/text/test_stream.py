"""A stream folded: nothing lost, nothing reordered, every byte accounted for at every instant. The time is given."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast._core.fold import FoldPolicy
from outlast.logs._masking.shape import canonical
from outlast.logs.text import TextFold, TextOptions
from outlast.logs.text._keys import Keys
from outlast.logs.text._records import LINE_BYTES_MAX, Records
from outlast.logs.text._stats import STORMS_MAX, Report
from outlast.logs.text._stream import HOLD_S
from outlast.logs.text._summaries import format_of

OURS = b"outlast: "

PYTHON = b"""2026-01-31 ERROR it failed
Traceback (most recent call last):
  File "x.py", line 3, in f
    foo()
ValueError: bad

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "y.py", line 3, in g
    bar()
    ^^^^^
KeyError: 'x'
"""
JAVA = b"""java.lang.RuntimeException: y
\tat a.b(C.java:1)
Caused by: java.io.IOException: z
\tat q
\t... 12 more
"""
GO = b"""panic: boom

goroutine 1 [running]:
main.main()
\t/x/main.go:12 +0x1d
"""
PRETTY = b"""{
  "a": 1
}
"""


def fold_all(data: bytes, options: TextOptions | None = None, piece: int = 1 << 20) -> tuple[bytes, TextFold]:
    fold = TextFold(options or TextOptions())
    out = [fold.feed(data[at : at + piece], 0.0) for at in range(0, len(data), piece)]
    return b"".join([*out, fold.end(1.0)]), fold


def records_of(data: bytes, piece: int = 1 << 20) -> list[bytes]:
    records = Records()
    found: list[bytes] = []
    keys = Keys()
    for at in range(0, len(data), piece):
        batch = records.feed(data[at : at + piece])
        if batch.joined is not None:
            try:
                keys.count(batch)
            except Exception:  # noqa: BLE001 - MayContinue: as the stream does
                batch = records.regroup(batch)
        found += batch.records
    return found + records.flush().records


def test_a_storm_becomes_its_first_record_and_one_summary() -> None:
    out, fold = fold_all(b"a failed after 1 ms\n" * 1000)
    assert out.splitlines() == [
        b"a failed after 1 ms",
        b"outlast: 999 more until 00:00:01Z, 1000 in all since 00:00:00Z: a failed after 1 ms",
    ]
    assert (fold.stats.records, fold.stats.shown, fold.stats.summarised, fold.stats.pending) == (1000, 1, 999, 0)


def test_what_differs_is_shown_at_once_in_the_middle_of_a_storm() -> None:
    storm = b"connect failed: [Errno 111] after %d ms\n"
    lines = [storm % number for number in range(5000)]
    lines[2500:2500] = [b"connect failed: [Errno 113] after 1 ms\n", b"disk full\n"]
    fold = TextFold()
    assert fold.feed(b"".join(lines), 0.0) == lines[0] + lines[2500] + lines[2501]


def test_order_is_kept_and_a_burst_is_shown_where_it_came() -> None:
    data = b"a 1\nb 1\na 2\na 3\nb 2\nc 1\na 4\n"
    out, _ = fold_all(data, TextOptions(FoldPolicy(burst=2), never_fold="^c"))
    assert out.startswith(b"a 1\nb 1\na 2\nb 2\nc 1\n")
    assert b"2 more" in out


def test_nothing_folded_means_nothing_changed() -> None:
    for data in (b"a\nb\n", b"a\nb", b"", b"\n", b"a\r\nb\r\n", b"\x00\xff\n\x1a"):
        assert fold_all(data)[0] == data


@pytest.mark.parametrize("record", [PYTHON, JAVA, PRETTY])
@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_records_of_several_lines_stay_together(record: bytes, piece: int) -> None:
    data = b"before\n" + record * 3 + b"behind\n"
    assert records_of(data, piece) == [b"before", *[record[:-1]] * 3, b"behind"]
    out, fold = fold_all(data, piece=piece)
    assert out.startswith(b"before\n" + record + b"behind\n")
    assert (fold.stats.records, fold.stats.summarised) == (5, 2)
    assert fold.stats.lines == data.count(b"\n")


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_the_trace_of_a_goroutine_stays_with_its_panic(piece: int) -> None:
    assert records_of(GO + b"exit status 2\n", piece) == [GO[:-1], b"exit status 2"]


@given(
    st.lists(st.sampled_from(["a", " b", "", "Traceback (most recent call last):", "E: x", "}", "Caused by: y"])),
    st.integers(1, 9),
)
def test_cutting_into_records_loses_no_byte(lines: list[str], piece: int) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    assert b"".join(record + b"\n" for record in records_of(data, piece)) == data


def test_a_held_record_is_given_when_nothing_continues_it() -> None:
    fold = TextFold()
    assert fold.feed(b"one\n", 10.0) == b""
    assert fold.next_due_at() == 10.0 + HOLD_S
    assert fold.due(10.0 + HOLD_S / 2) == b""
    assert fold.due(10.0 + HOLD_S) == b"one\n"


def test_reminders_come_by_time_and_the_end_is_no_resolution() -> None:
    fold = TextFold(TextOptions(FoldPolicy(reminder_first_s=5.0, quiet_s=30.0)))
    fold.feed(b"x 1\nx 2\nx 3\nx 4\n", 0.0)
    fold.due(1.0)
    assert b"3 more until" in fold.due(6.0)
    quiet = fold.due(40.0)
    assert b"quiet since 00:00:01Z, 4 in all since 00:00:00Z" in quiet
    assert b"resolved" not in quiet
    assert fold.feed(b"x 5\nx 6\n", 41.0) == b"x 5\n"


def test_critical_is_never_folded() -> None:
    for line in (b"12:00:00 CRITICAL disk %d gone\n", b'{"level":"critical","n":%d}\n', b"level=CRITICAL n=%d\n"):
        data = b"".join(line % number for number in range(50))
        out, fold = fold_all(data + b"x\n")
        assert out == data + b"x\n"
        assert fold.stats.shown == 51


def test_key_fields_choose_what_makes_the_key() -> None:
    lines = [json.dumps({"msg": "down", "level": "error", "who": who}) for who in ("ann", "bob", "carl")]
    lines += [json.dumps({"level": "error", "msg": "up", "who": "ann"}), "plain text"]
    out, _ = fold_all("".join(f"{line}\n" for line in lines).encode(), TextOptions(key_fields=("level", "msg")))
    shown = [line for line in out.decode().splitlines() if "outlast.what" not in line]
    assert shown == [lines[0], lines[3], lines[4]]
    logfmt = b"level=error msg=down who=ann\nlevel=error msg=down who=bob\nlevel=error msg=up who=bob\n"
    out, _ = fold_all(logfmt, TextOptions(key_fields=("level", "msg")))
    assert out.splitlines()[:2] == logfmt.splitlines()[::2]


def test_a_summary_is_written_as_the_stream_is() -> None:
    out, _ = fold_all(b'{"level":"error","n":1}\n' * 3)
    said = json.loads(out.splitlines()[1])
    assert (said["outlast.count"], said["outlast.total"], said["outlast.over"]) == (2, 3, True)
    assert said["outlast.example"] == '{"level":"error","n":1}'
    out, _ = fold_all(b'level=error msg="it failed" n=1\n' * 3)
    assert b" outlast.count=2 " in out.splitlines()[1]
    assert format_of(out.splitlines()[1]) == "logfmt"
    out, _ = fold_all(b"plain\n" * 3, TextOptions(summaries_as="json"))
    assert json.loads(out.splitlines()[1])["outlast.count"] == 2


def test_at_the_end_the_greatest_storms_have_a_line_each_and_the_rest_share() -> None:
    data = b"".join(b"table t%d\n" % number * (number + 2) for number in range(25))
    out, _ = fold_all(data)
    said = [line for line in out.decode().splitlines() if line.startswith("outlast: ")]
    assert [line.split(" more")[0] for line in said[:3]] == ["outlast: 25", "outlast: 24", "outlast: 23"]
    assert [line.count(" | ") for line in said[3:]] == [9, 9, 1]
    told = {part.rpartition(": ")[2]: int(part.split(" more")[0]) for line in said for part in line[9:].split(" | ")}
    assert told == {f"table t{number}": number + 1 for number in range(25)}
    out, _ = fold_all(data, TextOptions(summaries_as="json"))
    assert out.count(b"outlast.count") == 25


def test_a_line_beyond_the_bound_passes_and_nothing_more_is_held_than_that() -> None:
    fold = TextFold()
    piece = b"x" * (LINE_BYTES_MAX // 4)
    out = [fold.feed(b"a\na\n", 0.0)]
    for _ in range(40):
        out.append(fold.feed(piece, 0.0))
        assert len(fold.unsaid()) <= LINE_BYTES_MAX + len(piece)
    out += [fold.feed(b"\na\nb\n", 0.0), fold.end(0.0)]
    whole = b"".join(out)
    assert whole.startswith(b"a\n" + piece * 40 + b"\nb\n")
    assert fold.stats.overlong_lines == 1
    assert fold.stats.summarised == 2


def test_a_flood_of_keys_is_one_named_storm_with_exact_counts() -> None:
    fold = TextFold(TextOptions(FoldPolicy(keys_max=100)))
    words = [f"table t{number} is full\n".encode() for number in range(5000)]
    out = fold.feed(b"".join(words), 0.0) + fold.due(0.2) + fold.end(0.5)
    shown = [line for line in out.splitlines() if not line.startswith(OURS)]
    assert fold.stats.records == 5000 == len(shown) + fold.stats.summarised
    assert b"of other kinds, for which there was no place" in out


def test_if_the_fold_fails_everything_it_was_given_can_be_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = TextFold()
    assert fold.feed(b"a\nb\nc", 0.0) == b"a\n"

    def fail(*args: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Keys, "count", fail)
    before = fold.unsaid()
    with pytest.raises(RuntimeError):
        fold.feed(b"d\ne\nf\n", 1.0)
    assert fold.unsaid() == before == b"b\nc"
    with pytest.raises(RuntimeError):
        fold.due(9.0)
    assert fold.unsaid() == before


LINE = st.sampled_from(
    [
        b"down after %d ms",
        b"code %d",
        b"  at frame %d",
        b"Traceback (most recent call last):",
        b"",
        b'{"status":%d}',
        b"CRITICAL %d",
    ]
)
STEPS = st.lists(
    st.tuples(st.lists(st.tuples(LINE, st.integers(0, 3)), max_size=12), st.floats(-5, 40), st.integers(1, 400)), max_size=12
)


@given(STEPS, st.integers(1, 3), st.integers(1, 4))
def test_every_record_is_shown_summarised_or_pending_at_each_instant(
    steps: list[tuple[list[tuple[bytes, int]], float, int]], burst: int, keys_max: int
) -> None:
    folded: list[bytes] = []
    fold = TextFold(TextOptions(FoldPolicy(burst=burst, keys_max=keys_max)), folded=folded.extend)
    now, came, out = 100.0, b"", b""

    def check() -> None:
        stats = fold.stats
        assert stats.records == stats.shown + stats.summarised + stats.pending
        assert stats.records == stats.shown + len(folded)
        shown = [line for line in out.split(b"\n")[:-1] if not line.startswith(OURS) and b"outlast.what" not in line]
        assert stats.lines == len(shown) + sum(record.count(b"\n") + 1 for record in folded)
        assert stats.lines + fold.unsaid().count(b"\n") == came.count(b"\n")
        assert Counter(shown) + Counter(b"\n".join(folded).split(b"\n") if folded else []) == Counter(
            came.removesuffix(fold.unsaid()).split(b"\n")[:-1]
        )

    for lines, wait_s, piece in steps:
        data = b"".join((line % number if b"%d" in line else line) + b"\n" for line, number in lines)
        for at in range(0, len(data), piece):
            came += data[at : at + piece]
            out += fold.feed(data[at : at + piece], now)
            check()
        now += wait_s
        out += fold.due(now)
        check()
    out += fold.end(now)
    check()
    assert fold.stats.pending == 0


@given(st.lists(st.sampled_from([b"a %d", b"b %d", b"code %d"]).flatmap(lambda line: st.integers(0, 9).map(lambda n: line % n))))
def test_the_first_of_each_kind_is_shown_in_order(lines: list[bytes]) -> None:
    out, _ = fold_all(b"".join(line + b"\n" for line in lines))
    firsts = {canonical(line): line for line in reversed(lines)}
    shown = [line for line in out.splitlines() if not line.startswith(OURS)]
    assert shown == [line for at, line in enumerate(lines) if canonical(line) not in map(canonical, lines[:at])]
    assert set(shown) == set(firsts.values())


def test_the_report_lists_the_greatest_storms() -> None:
    _, fold = fold_all(b"a 1\n" * 10 + b"b 1\n" * 100 + b"c 1\n" * 5)
    assert [(tally.example, tally.folded) for tally in fold.report.top(2)] == [("b 1", 99), ("a 1", 9)]
    text = fold.report.text(0.0, 2)
    assert text.splitlines()[1].split()[0] == "99"
    assert text.splitlines()[-1].split() == ["4", "in", "1", "more", "storms"]
    assert "115 records (115 lines)" in fold.stats.text(1.0)


def test_the_report_is_bounded_and_its_sum_exact() -> None:
    out, fold = fold_all(b"".join(b"table t%d\n" % (number // 2) for number in range(4 * STORMS_MAX)))
    assert out.count(b"1 more until") == 2 * STORMS_MAX
    assert len(fold.report.top(10**9)) <= STORMS_MAX
    assert sum(tally.folded for tally in fold.report.top(10**9)) + fold.report.forgotten_folded == 2 * STORMS_MAX


def test_an_empty_report_is_a_heading() -> None:
    assert len(Report().text(0.0).splitlines()) == 1


def test_groups_of_exceptions_with_different_members_are_different_records() -> None:
    group = """ERROR:shop:failed
  + Exception Group Traceback (most recent call last):
  |   File "shop.py", line 4, in settle
  |     raise ExceptionGroup("tasks failed", errors)
  | ExceptionGroup: tasks failed (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | {}: x
    +---------------- 2 ----------------
    | RuntimeError: y
    +------------------------------------
"""
    fold = TextFold()
    text = "".join(group.format(name) for name in ("ValueError", "KeyError", "ValueError", "KeyError"))
    out = fold.feed(text.encode(), 0.0) + fold.end(1.0)
    assert out.count(b"ERROR:shop:failed\n") == 2
    assert (fold.stats.records, fold.stats.shown) == (4, 2)
