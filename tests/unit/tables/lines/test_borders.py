"""Where a line begins and ends: newlines in strings, carriage returns, comments, and what is not closed."""

from __future__ import annotations

import pytest
from reading_lines import new_parser, points_of, read


def places(body: str) -> tuple[list[int], list[int]]:
    """Numbers of the lines that are points, and of those that are refused."""
    parsed = new_parser().parse(body.encode(), unit_ns=1)
    return [place for place, *_ in points_of(parsed)], [refusal.place for refusal in parsed.refused]


@pytest.mark.parametrize(
    ("body", "points", "refused"),
    [
        ("", [], []),
        ("\n\n\n", [], []),
        ("m v=1", [1], []),
        ("m v=1\n", [1], []),
        ("\nm v=1\n\n  \nm v=2", [2, 5], []),
        ("# a comment\nm v=1\n  # another\nm v=2\n#", [2, 4], []),
        ('l m="a\nb" 1\nl m="c" 2', [1, 3], []),
        ('l m="a\n\n\nb",n="\n" 1\nl m="c" 2\nx\nl m="d"', [1, 6, 8], [7]),
        ('l m="1\nl m=\\"2\\" 1\n" 1\nl m="c" 2', [1, 4], []),
        ('l m="\n# no comment\n" 1\nl m="c" 2', [1, 4], []),
        # The quote of line 3 is closed by the one that opens in line 4; all of it is one line, and line 5 is line 5.
        ('l m="a" 1\nl m="b" 2\nl m="c 3\nl m="d" 4\nl m="e" 5', [1, 2, 5], [3]),
        # One that nobody closes goes on to the end, as in the original.
        ('l m=1 1\nl m=2 2\nl m="c 3\nl m=4 4\nl m=5 5', [1, 2], [3]),
        # A quote is one after an equals sign in the fields alone.
        ('m,t="x v=1\nm,t=y" v=2', [1, 2], []),
        ('m,t="x v="1\nv=2"\nm v=3', [1, 3], []),
        ('m,t=a="b v=1\nm v=2"\nm v=3', [3], [1, 2]),
        ('m v=1 "\nm v=2', [2], [1]),
        ('m v=1"\nm v=2', [2], [1]),
        ('m a\\="b=1\nm v=2', [1, 2], []),
        ('# v="\nm v=2', [2], []),
        # A backslash takes the newline after it into its line, as in the original.
        ("m v=1 5\\\nm v=2\nm v=3", [3], [1]),
        ("m,a=x\\\ny v=2\nm v=3", [3], [1]),
        ("m,a=x\\\\\ny v=2\nm v=3", [2, 3], [1]),
        ("# x\\\nm v=2", [2], []),
        ("m\\", [], [1]),
        ('m v="\\', [], [1]),
        ("m v=1\r\nm v=2i\r\nm v=3 5\r\n", [1, 2, 3], []),
        ('m v="a\r\nb"\r\nm v=T\r\n', [1, 3], []),
        ("\r\n\r\nm v=1\r\n#\r\n", [3], []),
        ("m v=1\rm v=2", [], [1]),
        ("m v=1\r\r\n", [], [1]),
    ],
)
def test_numbers_of_lines(body: str, points: list[int], refused: list[int]) -> None:
    assert places(body) == (points, refused)


def test_the_same_lines_have_the_same_borders_when_their_shapes_are_known() -> None:
    """The quick way takes whole lines alone: what is in a string is never a line of its own."""
    parser = new_parser()
    parser.parse(b'm v=1\nm s="x"\nm,a=x\\ y s="x",v=1\n' * 40, unit_ns=1)
    body = 'm v=1\nm s="x\nm v=2\n"\nm s="y\\"\nm v=3\n"\nm,a=x\\ y s="\nm v=4\n",v=5\nm v=6\nm s="z'
    parsed = parser.parse(body.encode(), unit_ns=1)
    assert [(place, fields) for place, _, _, fields, _ in points_of(parsed)] == [
        (1, {"v": 1.0}),
        (2, {"s": "x\nm v=2\n"}),
        (5, {"s": 'y"\nm v=3\n'}),
        (8, {"s": "\nm v=4\n", "v": 5.0}),
        (11, {"v": 6.0}),
    ]
    assert [refusal.place for refusal in parsed.refused] == [12]


def test_a_mark_of_the_byte_order_is_skipped_at_the_start_alone() -> None:
    assert read(b"\xef\xbb\xbfm v=1i\r\n") == [(1, "m", {}, {"v": 1}, None)]
    assert read(b"m v=1\n\xef\xbb\xbfm v=1") == [(1, "m", {}, {"v": 1.0}, None), (2, "\ufeffm", {}, {"v": 1.0}, None)]


def test_a_carriage_return_is_never_part_of_the_last_string() -> None:
    assert read('m v="a\r\nb",w="c"\r\n') == [(1, "m", {}, {"v": "a\r\nb", "w": "c"}, None)]
