"""A line means the same on the quick way and on the slow one."""

from __future__ import annotations

import re
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading_lines import exactly, new_parser, points_of

from outlast.tables._lines import parser as parser_module
from outlast.tables._lines import plans
from outlast.tables._lines.plans import SEEN_MIN, Plans, Tried

if TYPE_CHECKING:
    from outlast.tables._lines.parser import LineParser

HEADS = ["m", "m,a=b", r"m\ x,a=c\ d"]
BODIES = ["v=1.5", "v=1i", "v=1u", "v=t", 'v="x"', 'f=1,i=1i,u=1u,s="x",b=T', "v=1.5,w=2.5", "w=1i,v=2i"]
"""Shapes that the quick way knows in these tests."""
TEXTS = st.text(alphabet='m,=v w"\\\n\r\t\x001.ieEtuf-+#ß', max_size=30)
PIECES = st.sampled_from(
    [
        *HEADS,
        *BODIES,
        *' ,=\\"\n\r\t.-+iuteE#',
        "1",
        "12345678901234567890",
        "1e5",
        "1e400",
        "9e99",
        "1.5.5",
        "--1",
        "v",
        "time=1",
    ]
)
VALUES = [
    *("1", "1.", ".5", "-.5", "1.5", "1e5", "1E-5", "1e+99", "1e100", "1e400", "-", ".", "1.2.3", "1-2", "+1", "nan", "1_0"),
    *("1i", "-1i", "007i", "9223372036854775807i", "9223372036854775808i", "-9223372036854775808i", "-i", "1u", "-1u"),
    *("9223372036854775807u", "9223372036854775808u", "t", "f", "true", "True", "tRUE", "false", "FALSE", "Fals", '"x"', '""'),
    *(r'"\""', r'"\\"', '"a b"', '"a,b=c"', '"x', 'x"', '"ß"', '"\n"', '"\x00"', "", "1" * 41, "1" * 400, "0." + "3" * 50),
    *(f'"{"s" * 16_383}"', f'"{"ß" * 32_767}"', f'"{"ß" * 32_768}"'),
]
TIMES = ["", " ", " 5", " -5", " 005", "  5", " 5 ", " 5 6", " x", " 9223372036854775807", " 9223372036854775806"]

STRUCTURED = st.builds(
    lambda head, names, values, time: f"{head} {','.join(f'{n}={v}' for n, v in zip(names, values, strict=False))}{time}",
    st.sampled_from([*HEADS, "m,a=", "m,b=1,a=2", "n", ""]),
    st.sampled_from([["v"], ["v", "w"], ["w", "v"], ["f", "i", "u", "s", "b"], ["v", "v"], ["time"]]),
    st.lists(st.sampled_from([value for value in VALUES if len(value) < 1_000]), min_size=1, max_size=5),
    st.sampled_from(TIMES),
)
LINES = STRUCTURED | TEXTS | st.lists(PIECES, max_size=12).map("".join)
WARM = "\n".join(f"{head} {body} 1" for head in HEADS for body in BODIES for _ in range(SEEN_MIN)).encode()


def warm() -> LineParser:
    parser = new_parser()
    assert parser.parse(WARM, unit_ns=1).refused == []
    return parser


WARMED = warm()


@settings(max_examples=400)
@given(
    lines=st.lists(LINES, min_size=1, max_size=4),
    unit_ns=st.sampled_from([None, 1, 10**9]),
    untimed_ns=st.sampled_from([None, 7]),
)
@example(["m v=1i", "m v=1.5", 'm v="a\nm v=1i"'], 1, None)
def test_both_ways_read_the_same(lines: list[str], unit_ns: int | None, untimed_ns: int | None) -> None:
    body = "\n".join(lines).encode()
    quick = WARMED.parse(body, unit_ns=unit_ns, untimed_ns=untimed_ns)
    slow = new_parser().parse(body, unit_ns=unit_ns, untimed_ns=untimed_ns)
    assert exactly(quick) == exactly(slow)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value[:30]))
def test_every_value_reads_the_same_both_ways(value: str) -> None:
    others = [other for other in VALUES if len(other) < 100]
    for text in [f"m v={value}{time}" for time in TIMES] + [f"m v={value},w={other} 1" for other in others]:
        body = text.encode()
        assert exactly(WARMED.parse(body, unit_ns=1)) == exactly(new_parser().parse(body, unit_ns=1)), text


def test_the_quick_way_is_the_one_of_known_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it were not, the test before this one would compare the slow way with itself."""
    seen: list[str] = []
    parser = warm()
    monkeypatch.setattr(parser_module, "read_body", lambda line, _at: seen.append(line))
    lines = [f"{head} {body} 5" for head in HEADS for body in BODIES]
    parsed = parser.parse("\n".join(lines).encode(), unit_ns=1)
    assert (seen, parsed.points) == ([], len(lines))
    texts = ['m,a=b f=-1.5e-5,i=-12i,u=0u,s="a b,c=d",b=FALSE', "m v=123456789012345678i", 'm,a=b v=""']
    assert parser.parse("\n".join(texts).encode(), unit_ns=None).points == len(texts)
    assert seen == []


def test_a_shape_gets_a_pattern_when_it_was_seen_often() -> None:
    parser, tried = new_parser(), deque[int]()
    for _ in range(SEEN_MIN + 1):
        parser.parse(b"m v=1 1", unit_ns=1)
        tried.append(len(parser._plans.tried("m").plans))
    assert list(tried) == [0] * (SEEN_MIN - 1) + [1, 1]


@pytest.mark.parametrize(
    "line", [r"m a\ b=1 1", r"m a\b=1 1", 'm a"b=1 1', "m " + ",".join(f"f{count}=1" for count in range(201))]
)
def test_names_with_escapes_and_wide_shapes_get_none(line: str) -> None:
    parser = new_parser()
    parsed = parser.parse("\n".join([line] * 100).encode(), unit_ns=1)
    assert (parsed.points, parsed.refused) == (100, [])
    assert parser._plans.tried("m").plans == ()


def test_eight_shapes_of_a_table_are_tried_and_the_newest_stay() -> None:
    parser = new_parser()
    for count in range(20):
        parser.parse(f"m v{count}=1 1\n".encode() * SEEN_MIN, unit_ns=1)
    assert [plan.names for plan in parser._plans.tried("m").plans] == [(f"v{count}",) for count in range(19, 11, -1)]
    parsed = parser.parse("\n".join(f"m v{count}=1 1" for count in range(20)).encode(), unit_ns=1)
    assert [next(iter(fields)) for *_, fields, _ in points_of(parsed)] == [f"v{count}" for count in range(20)]


def test_patterns_take_bounded_memory_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PATTERN_BYTES_MAX", 10_000)
    known = Plans()
    tried = [Tried() for _ in range(50)]
    made = [known.of(f"m{number}", ("v",), "f") for number in range(50)]
    for plan, place in zip(made, tried, strict=True):
        for _ in range(SEEN_MIN):
            known.note(plan, place)
    kept = [plan.match("v=1") is not None for plan in made]
    assert kept == sorted(kept)
    assert 1 < sum(kept) < 49
    for _ in range(SEEN_MIN):
        known.note(made[0], tried[0])
    assert isinstance(made[0].match("v=1"), re.Match)


def test_threads_share_a_parser_without_a_mix_of_shapes() -> None:
    """Each has shapes of one table in another order, so that the plan that was tried last changes between two of its steps."""
    parser, orders = warm(), [BODIES[shift:] + BODIES[:shift] for shift in range(4)]
    bodies = ["\n".join(f"m {body} {place}" for place, body in enumerate(order)) for order in orders]
    expected = [exactly(new_parser().parse(body.encode(), unit_ns=1)) for body in bodies]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(bodies)) as threads:
            runs = [threads.submit(lambda text: exactly(parser.parse(text, unit_ns=1)), body.encode()) for body in bodies * 50]
            assert [run.result() for run in runs] == expected * 50
    finally:
        sys.setswitchinterval(interval)
