"""Rows decoded a second from pgoutput's bytes, without a server: Outlast against the decoders on PyPI, in one run.

    python bench/changes_decode.py               # 100,000 rows a round, the best of 7 rounds
    python bench/changes_decode.py --json        # the same, for a script

The peers: walbox is the best maintained of them (all messages, streamed transactions, releases this year), for Python 3.13
and later; walflux (protocol 1) runs on older ones; pypgoutput is the best known, and rests since 2022. Those that are not
installed are left out, and named. pgoutput-decoder, in Rust, cannot be measured so: it reads from a connection only.

Every case decodes the same Insert messages, of four text columns, one by one, into text values. walbox makes a dict of each
row; Outlast makes a tuple, and is measured with `as_dict()` as well. Transactions are fed in batches, as a stream does it.
The clock counts this process's own CPU time, since the machines are shared; rounds of all cases alternate, and the best of
each counts. The exit code is 1 when Outlast, with dicts, decodes fewer than 1.5 x the rows that the fastest peer does.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import struct
import sys
import tempfile
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from outlast.changes import Assembler, Decoder, FileSpool, Insert

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES_MIN = 1.5
RELATION_ID = 16_400
PEERS = ("walbox", "walflux", "pypgoutput")
ROWS_OF_A_TRANSACTION = 10


def relation(xid: bytes = b"", type_oids: tuple[int, ...] = (25, 25, 25, 25)) -> bytes:
    columns = zip(("id", "name", "email", "created_at"), type_oids, strict=True)
    described = b"".join(b"\0" + name.encode() + b"\0" + struct.pack(">Ii", oid, -1) for name, oid in columns)
    return b"R" + xid + struct.pack(">I", RELATION_ID) + b"public\0person\0d" + struct.pack(">H", 4) + described


def row(values: tuple[str | None, ...], xid: bytes = b"") -> bytes:
    parts = [b"I", xid, struct.pack(">IcH", RELATION_ID, b"N", len(values))]
    for value in values:
        raw = b"" if value is None else value.encode()
        parts.append(b"n" if value is None else b"t" + struct.pack(">I", len(raw)) + raw)
    return b"".join(parts)


def rows(count: int, name: str | None = "Somebody of Somewhere", xid: bytes = b"") -> list[bytes]:
    texts = [(str(n), name, f"person-{n}@example.org", "2026-11-21 04:05:06.789+00") for n in range(count)]
    return [row(values, xid) for values in texts]


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that this process needs for it."""
    began = time.process_time()
    work()
    return time.process_time() - began


def each(function: Callable[[bytes], object], payloads: list[bytes]) -> float:
    """Return the time to call it for each, and to drop what it returns."""
    return seconds(lambda: deque(map(function, payloads), maxlen=0))


def knowing(described: bytes, *, typed: bool = False) -> Callable[[bytes], object]:
    decoder = Decoder(1, typed=typed)
    decoder.decode(described)
    return decoder.decode


def outlast_cases(count: int) -> dict[str, Callable[[], float]]:
    plain, accented, null = rows(count), rows(count, "Nømen Nescio d'Été"), rows(count, None)
    decode, typed = knowing(relation()), knowing(relation(type_oids=(20, 25, 25, 1184)), typed=True)
    views = [memoryview(bytes(25) + payload) for payload in plain]

    def by_name(payload: bytes) -> object:
        change = decode(payload)
        assert isinstance(change, Insert)
        return change.as_dict()

    return {
        "outlast": lambda: each(decode, plain),
        "outlast, as_dict()": lambda: each(by_name, plain),
        "outlast, from a memoryview": lambda: seconds(lambda: deque((decode(view[25:]) for view in views), maxlen=0)),
        "outlast, not ASCII": lambda: each(decode, accented),
        "outlast, a NULL": lambda: each(decode, null),
        "outlast, typed (int, timestamptz)": lambda: each(typed, plain),
        "outlast, transactions of 10": lambda: transactions(plain, ROWS_OF_A_TRANSACTION),
        "outlast, one large transaction": lambda: transactions(plain, count),
        "outlast, streamed through files": lambda: streamed(count),
    }


def transactions(payloads: list[bytes], size: int) -> float:
    assembler = Assembler(Decoder(1))
    begin, commit = b"B" + struct.pack(">QqI", 1, 1, 7), b"C" + struct.pack(">BQQq", 0, 1, 2, 1)
    messages = [relation()]
    for start in range(0, len(payloads), size):
        messages += [begin, *payloads[start : start + size], commit]

    def work() -> None:
        for unit in assembler.feed_all(messages):
            assert unit

    return seconds(work)


def streamed(count: int) -> float:
    xid = struct.pack(">I", 7)
    payloads = rows(count, xid=xid)
    with tempfile.TemporaryDirectory() as directory:
        assembler = Assembler(Decoder(2), spool=FileSpool(directory))

        def work() -> None:
            for start in range(0, count, 400):
                assembler.feed(b"S" + xid + bytes([start == 0]))
                if not start:
                    assembler.feed(relation(xid))
                for payload in payloads[start : start + 400]:
                    assembler.feed(payload)
                assembler.feed(b"E")
            total = sum(len(unit.changes) for unit in assembler.feed(b"c" + xid + struct.pack(">BQQq", 0, 1, 2, 1)))  # type: ignore[union-attr]
            assert total == count

        return seconds(work)


def peer_cases(count: int) -> tuple[dict[str, Callable[[], float]], list[str]]:
    plain = rows(count)
    cases: dict[str, Callable[[], float]] = {}
    missing: list[str] = []
    for name in PEERS:
        try:
            decode = peer(name)
        except ImportError:
            missing.append(name)
            continue
        cases[name] = lambda decode=decode: each(decode, plain)  # type: ignore[misc]
    return cases, missing


def peer(name: str) -> Callable[[bytes], Any]:
    """Return the function by which the peer decodes one Insert message, once it knows the relation where it needs to."""
    match name:
        case "walbox":
            from walbox.pgoutput import Decoder as Walbox

            decoder = Walbox()
            decoder.decode(relation())
            decode: Callable[[bytes], Any] = decoder.decode
        case "walflux":
            from walflux.protocol import decode_message as decode
        case _:
            from pypgoutput import decoders

            decode = decoders.Insert
    assert "Somebody of Somewhere" in str(vars_of(decode(rows(1)[0]))), f"{name} decodes something else"
    return decode


def vars_of(message: object) -> object:
    """Return everything in it, for a look inside whatever it is made of."""
    tuple_data = getattr(message, "new_tuple", None)
    return tuple_data.column_data if tuple_data is not None else message


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cases, missing = peer_cases(options.rows)
    peers = list(cases)
    cases |= outlast_cases(options.rows)
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(options.rounds):
        for name, case in cases.items():
            best[name] = min(best[name], case())
    per_s = {name: options.rows / spent_s for name, spent_s in best.items()}
    fastest = max((per_s[name] for name in peers), default=None)
    times = None if fastest is None else per_s["outlast, as_dict()"] / fastest
    if options.json:
        print(json.dumps({"rows_per_s": per_s, "missing": missing, "times": times}))
    else:
        print(f"{'':36} {'rows/s':>12} {'µs a row':>10}")
        for name, rate in sorted(per_s.items(), key=lambda item: -item[1]):
            label = f"{name} {importlib.metadata.version(name)}" if name in peers else name
            print(f"{label:36} {rate:>12,.0f} {1e6 / rate:>10.2f}")
        print(f"not installed: {', '.join(missing) or 'none'}")
        print("no peer to compare with" if times is None else f"with dicts {times:.1f} x the fastest peer (at least {TIMES_MIN})")
    return 0 if times is None or times >= TIMES_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
