"""The bodies that every server is asked to store: written by hand, and made by a seed.

`python tests/real/tables/oracles/oracle_corpus.py` prints those that the seed makes; `corpus.txt` has them in its second half.
"""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus.txt"
SEED: Final = 15
BODIES: Final = 500

HEADS: Final = ("m", "m,a=b", "m,b=2,a=1", r"m\ x,a=c\ d", r"m\,x,a\,b=c\=d", "größe,ß=ü", "m,a=", "m,a=1,a=2", '"m",a="b"')
NAMES: Final = ("v", "w", r"v\ w", r"a\,b", r"a\=b", "ß", "time", "V", 'v"')
VALUES: Final = (
    *(
        "1",
        "-1.5",
        "1.",
        ".5",
        "1e5",
        "1E-3",
        "1e+20",
        "0",
        "-0",
        "123456789.123456789",
        "1e400",
        "nan",
        "+1",
        "0x1",
        "1_0",
        "1e",
        ".",
    ),
    *("1i", "-1i", "9223372036854775807i", "9223372036854775808i", "-9223372036854775808i", "1.5i", "1u", "-1u", "i"),
    *("t", "T", "true", "TRUE", "True", "tRUE", "f", "FALSE", "yes"),
    *('"x"', '""', '"a b,c=d"', r'"a\"b"', r'"a\\b"', r'"a\nb"', '"ß"', '"x', 'x"', '"a"b'),
)
TIMES: Final = (
    *(" 1700000000123456789", " 1700000000123456789", " 1700000000123456789", "", " 0", " 5", " -1", " 1700000000"),
    *(" 9223372036854775806", " 9223372036854775807", " x", " 1.5", " 1700000000123456789 ", "  1700000000123456789", " 5 6"),
)
BYTES: Final = (b" ", b",", b"=", b"\\", b'"', b"\n", b"\r", b"\t", b"#", b"i", b"1", b".", b"-", b"v")


def bodies() -> list[bytes]:
    """Return all 500."""
    lines = CORPUS.read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def body_of(rng: random.Random) -> bytes:
    """Make a line that may be wrong in one place, and change up to two of its bytes in every third."""
    common = rng.random() < 0.5
    fields = [f"{rng.choice(NAMES)}={rng.choice(VALUES)}" for _ in range(rng.choice((1, 1, 2, 3)))]
    if common:
        fields = [f"{name}={rng.choice(VALUES[:7] + VALUES[17:19])}" for name in rng.sample(("v", "w", "x", "y"), len(fields))]
    body = bytearray(f"{rng.choice(HEADS)} {','.join(fields)}{rng.choice(TIMES[:1] if common else TIMES)}".encode())
    for _ in range(rng.choice((0, 0, 1, 2))):
        place = rng.randrange(len(body) + 1)
        body[place : place + rng.choice((0, 1))] = rng.choice(BYTES)
    return bytes(body)


def made(count: int) -> list[bytes]:
    """Make `count` different bodies."""
    rng, found = random.Random(SEED), dict[bytes, None]()
    while len(found) < count:
        found[body_of(rng)] = None
    return list(found)


if __name__ == "__main__":
    print("\n".join(ascii(body) for body in made(BODIES)))  # noqa: T201 - a command
