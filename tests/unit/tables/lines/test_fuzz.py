"""Any bytes are read without an error, and each line of them is a point, a refusal, or nothing."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_lines import exactly, new_parser, points_of
from test_ways import LINES, warm

if TYPE_CHECKING:
    from outlast.tables._model import Parsed

CORPUS = [
    ast.literal_eval(line)
    for line in (Path(__file__).parent / "fuzz_corpus.txt").read_text(encoding="ascii").splitlines()
    if not line.startswith("#")
]
BYTES = b' ,=\\"\n\r\t#\x00i1.-+e\xff\xc3'
WARMED = warm()


def ends(text: str, start: int) -> int:
    """The end of the line that begins at `start`: its newline, or the end. Written as the rules are, one character by one."""
    place = start
    while text[place : place + 1] in {" ", "\t"}:
        place += 1
    if text[place : place + 1] == "#":
        return (text + "\n").index("\n", place)
    is_fields, is_string = False, False
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 2
            continue
        if is_string:
            is_string = character != '"'
        elif character == "\n":
            return place
        elif is_fields and character == "=" and text[place + 1 : place + 2] == '"':
            is_string = True
            place += 1
        elif character == " ":
            is_fields = True
        place += 1
    return len(text)


def lines_of(body: bytes) -> list[int]:
    """The numbers of all lines that are neither empty nor comments."""
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    start, found = 0, list[int]()
    while start < len(text):
        end = ends(text, start)
        line = text[start:end].removesuffix("\r").lstrip(" \t")
        if line and not line.startswith("#"):
            found.append(text.count("\n", 0, start) + 1)
        start = end + 1
    return found


def check(body: bytes) -> Parsed:
    parsed = new_parser().parse(body, unit_ns=1)
    stored = [place for place, *_ in points_of(parsed)]
    refused = [refusal.place for refusal in parsed.refused]
    assert refused == sorted(refused)
    assert sorted([*stored, *refused]) == lines_of(body)
    assert parsed.points == len(stored) + len(refused)
    for refusal in parsed.refused:
        assert refusal.reason.startswith(f"line {refusal.place}, column ")
        assert (refusal.reason + refusal.text).encode()
        assert len(refusal.reason) < 400
    return parsed


@pytest.mark.parametrize("body", CORPUS, ids=range(len(CORPUS)))
def test_the_corpus(body: bytes) -> None:
    assert exactly(check(body)) == exactly(WARMED.parse(body, unit_ns=1))


@settings(max_examples=150)
@given(st.binary(max_size=60) | st.lists(LINES, max_size=5).map(lambda lines: "\n".join(lines)[:5_000].encode()))
def test_any_bytes(body: bytes) -> None:
    assert exactly(check(body)) == exactly(WARMED.parse(body, unit_ns=1))


def mutant(rng: random.Random) -> bytes:
    """Two bodies of the corpus, cut and joined, with some bytes changed."""
    one, other = rng.choice(CORPUS), rng.choice(CORPUS)
    body = bytearray(one[: rng.randint(0, len(one))] + rng.choice([b"", b"\n"]) + other[rng.randint(0, len(other)) :])
    for _ in range(rng.randint(0, 4)):
        place = rng.randint(0, len(body))
        body[place : place + rng.randint(0, 1)] = bytes([rng.choice(BYTES)])
    return bytes(body)


def fuzz(seeds: range) -> None:
    parser = warm()
    for seed in seeds:
        body = mutant(random.Random(seed))
        assert exactly(check(body)) == exactly(parser.parse(body, unit_ns=1)), (seed, body)


def test_mutants_of_the_corpus() -> None:
    fuzz(range(2_000))


@pytest.mark.long
def test_many_mutants_of_the_corpus() -> None:
    fuzz(range(300_000))


@pytest.mark.parametrize(
    ("body", "points", "refused"),
    [
        (b'm v="' + b"x" * 10**7 + b'" 1\nm v=1', 2, [1]),
        (b'm v="' + b"\\" * 10**7, 1, [1]),
        (b'm v="' + b'\\"\n' * 10**6, 1, [1]),
        (b"m" + b",a=\\ " * 10**6 + b" v=1\nm v=1", 2, [1]),
        (b"m " + b",".join(b"a%d=1" % count for count in range(10**6)) + b"\nm v=1", 2, [1]),
        (b"m v=" + b"1" * 10**7 + b"\nm v=1 " + b"1" * 10**7 + b"\nm v=1", 3, [1, 2]),
        (b'm v="\n' * 10**6, 10**6 // 2, []),
        (b"\\\n" * 10**6, 1, [1]),
        (b"=" * 10**7, 1, [1]),
    ],
    ids=["string", "backslashes", "escapes", "tags", "fields", "digits", "quotes", "joined", "equals"],
)
@pytest.mark.long
def test_a_body_of_10_mb_is_read_in_one_go(body: bytes, points: int, refused: list[int]) -> None:
    """Were it quadratic, the time-out would end it."""
    parsed = new_parser().parse(body, unit_ns=1)
    assert (parsed.points, [refusal.place for refusal in parsed.refused][:2]) == (points, refused)
