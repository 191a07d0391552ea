"""The decoder of pgoutput: what is encoded comes back, and nothing that is damaged gets through or does harm."""

from __future__ import annotations

import contextlib
import pickle
import random
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgoutput_encoder import EPOCH, encode, in_piece, plain, relations, row_changes, text, xids

from outlast import Classifiers, Kind, Scope
from outlast.changes import (
    UNCHANGED,
    Decoder,
    Delete,
    Insert,
    PgOutputError,
    Relation,
    Update,
    format_lsn,
    parse_lsn,
)
from outlast.changes._decoding.messages import (
    MESSAGE_NAMES,
    Column,
    ReplicaIdentity,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Type,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = Path(__file__).parent / "pgoutput_corpus"

TEXT = 25
VERSIONS = st.sampled_from([1, 2])


def table(*names: str, key: str = "", relation_id: int = 16_400, types: dict[str, int] | None = None) -> Relation:
    columns = [Column(name, (types or {}).get(name, TEXT), -1, name in key) for name in names]
    return Relation(relation_id, "public", "orders", ReplicaIdentity.DEFAULT, tuple(columns))


def knowing(*described: Relation, version: int = 1, **options: Any) -> Decoder:
    decoder = Decoder(version, **options)
    for relation in described:
        decoder.decode(encode(relation))
    return decoder


def inserted(*values: bytes, relation_id: int = 16_400) -> bytes:
    columns = b"".join(b"t" + struct.pack(">I", len(value)) + value for value in values)
    return b"I" + struct.pack(">IcH", relation_id, b"N", len(values)) + columns


# LSNs


@given(st.integers(0, 2**64 - 1))
def test_a_position_comes_back_from_its_text(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


def test_positions_are_written_as_postgresql_does() -> None:
    assert format_lsn(0x16_B374D848) == "16/B374D848"
    assert format_lsn(0) == "0/0"
    assert parse_lsn("16/b374d848") == 0x16_B374D848


@pytest.mark.parametrize("bad", ["", "16", "16/", "/1", "16/B374D8481", "x/1", "1/2/3", " 1/2", "1/2\n", "-1/2", "0x1/2"])
def test_what_is_no_position_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="written like 16/B374D848"):
        parse_lsn(bad)


# Round trips


@given(plain, st.booleans())
def test_a_message_without_rows_comes_back(message: Any, as_view: bool) -> None:  # noqa: FBT001 - given by hypothesis
    payload = encode(message)
    assert Decoder(2).decode(memoryview(payload) if as_view else payload) == message


@given(relations, VERSIONS)
def test_a_relation_comes_back(relation: Relation, version: int) -> None:
    decoder = Decoder(version)
    assert decoder.decode(encode(relation)) == relation
    assert decoder.relations == {relation.id: relation}


@given(row_changes(), VERSIONS)
def test_a_change_comes_back_with_its_relation(case: tuple[Relation, Any], version: int) -> None:
    relation, change = case
    decoder = knowing(relation, version=version)
    decoded = decoder.decode(encode(change))
    assert decoded == change
    assert type(decoded) is type(change)


@given(row_changes(), xids, xids)
def test_a_change_within_a_piece_comes_back_with_its_transaction(case: tuple[Relation, Any], xid: int, subxid: int) -> None:
    decoder = Decoder(2)
    start = StreamStart(xid, first=True)
    assert decoder.decode(encode(start)) == start
    assert decoder.streaming_xid == xid
    relation = in_piece(case[0], subxid, case[0])
    assert decoder.decode(encode(relation)) == relation
    change = in_piece(case[1], subxid, relation)
    decoded = decoder.decode(encode(change))
    assert decoded == change
    assert decoded.xid == subxid
    assert decoder.relations[relation.id].xid == subxid
    kind = Type(17_000, "public", "mood", subxid)
    assert decoder.decode(encode(kind)) == kind
    assert decoder.decode(encode(StreamStop())) == StreamStop()
    assert decoder.streaming_xid is None


def test_pg_catalog_is_sent_as_an_empty_name() -> None:
    relation = Decoder().decode(b"R" + struct.pack(">I", 1) + text("") + text("pg_class") + b"n\0\0")
    assert isinstance(relation, Relation)
    assert relation.qualified_name == "pg_catalog.pg_class"


# Rows


def test_rows_by_name() -> None:
    relation = table("id", "name", key="id")
    decoder = knowing(relation)
    row = decoder.decode(inserted(b"7", "Ærø".encode()))
    assert isinstance(row, Insert)
    assert row.as_dict() == {"id": "7", "name": "Ærø"}
    changed = Update(relation, ("8", UNCHANGED), old_key=("7",))
    assert changed.old_as_dict() == {"id": "7"}
    assert Update(relation, ("8", "b")).old_as_dict() == {"id": "8"}
    assert Update(relation, ("8", "b"), None, ("8", "a")).old_as_dict() == {"id": "8", "name": "a"}
    assert Delete(relation, ("7",)).old_as_dict() == {"id": "7"}
    assert Delete(relation, None, ("7", "a")).old_as_dict() == {"id": "7", "name": "a"}


def test_changes_of_different_kinds_differ_and_changes_can_be_put_in_sets() -> None:
    relation = table("id")
    assert Insert(relation, ("1",)) != (relation, ("1",), None)
    assert Update(relation, ("1",)) != Delete(relation, ("1",), None)
    assert len({Insert(relation, ("1",)), Insert(relation, ("1",)), Update(relation, ("1",)), Delete(relation, ("1",))}) == 3


def test_a_value_that_was_left_alone_is_marked_and_prints_short() -> None:
    relation = table("id", "body")
    change = knowing(relation).decode(encode(Update(relation, ("1", UNCHANGED))))
    assert isinstance(change, Update)
    assert change.new[1] is UNCHANGED
    assert repr(change.new) == "('1', UNCHANGED)"


def test_after_a_change_of_the_table_rows_have_its_new_shape() -> None:
    old, new = table("id", "name"), table("id", "name", "born")
    decoder = knowing(old)
    decoder.decode(inserted(b"1", b"a"))
    decoder.decode(encode(new))
    row = decoder.decode(inserted(b"1", b"a", b"x"))
    assert isinstance(row, Insert)
    assert row.relation == new
    with pytest.raises(PgOutputError, match=r"a row of 2 columns for public\.orders, which has 3"):
        decoder.decode(inserted(b"1", b"a"))


def test_text_is_text_unless_asked() -> None:
    relation = table("id", types={"id": 23})
    plain_row, typed_row = (knowing(relation, typed=typed).decode(inserted(b"41")) for typed in (False, True))
    assert isinstance(plain_row, Insert)
    assert isinstance(typed_row, Insert)
    assert (plain_row.new, typed_row.new) == (("41",), (41,))
    same = Update(relation, (UNCHANGED,), None, (None,))
    assert knowing(relation, typed=True).decode(encode(same)) == same


def test_changes_survive_pickling_and_an_unchanged_value_is_the_same_one_after_it() -> None:
    change = Update(table("id", "body", key="id"), ("1", UNCHANGED), ("2",))
    copy = pickle.loads(pickle.dumps(change))  # noqa: S301 - made in the same line
    assert copy == change
    assert type(copy) is Update
    assert copy.new[1] is UNCHANGED
    assert copy.relation.key_names == ("id",)


# Streams


def test_what_a_piece_describes_holds_for_others_once_it_is_committed() -> None:
    relation = table("id")
    decoder = Decoder(2)
    decoder.decode(encode(StreamStart(5, first=True)))
    decoder.decode(encode(in_piece(relation, 5, relation)))
    decoder.decode(encode(StreamStop()))
    with pytest.raises(PgOutputError, match="relation 16400 has not been described"):
        decoder.decode(inserted(b"1"))
    decoder.decode(encode(StreamCommit(5, 1, 2, EPOCH)))
    assert decoder.decode(inserted(b"1")) == Insert(in_piece(relation, 5, relation), ("1",))


def test_what_a_piece_describes_is_gone_with_it() -> None:
    relation = table("id")
    decoder = Decoder(2)
    decoder.decode(encode(StreamStart(5, first=True)))
    decoder.decode(encode(in_piece(relation, 5, relation)))
    decoder.decode(encode(StreamStop()))
    decoder.decode(encode(StreamAbort(5, 6)))
    decoder.decode(encode(StreamAbort(5, 5)))
    decoder.decode(encode(StreamStart(5, first=True)))
    with pytest.raises(PgOutputError, match="relation 16400 has not been described"):
        decoder.decode(encode(Insert(relation, ("1",), xid=5)))


# What is refused


def test_only_known_protocol_versions() -> None:
    with pytest.raises(ValueError, match="protocol version 3 of pgoutput is not known"):
        Decoder(3)


def refused(decoder: Decoder, payload: bytes) -> PgOutputError:
    with pytest.raises(PgOutputError) as caught:
        decoder.decode(payload)
    return caught.value


def test_an_error_says_what_where_and_which_byte_and_no_contents() -> None:
    error = refused(knowing(table("id")), inserted(b"secret") + b"\xfe")
    assert (error.message_type, error.position, error.seen) == ("Insert", 19, 0xFE)
    assert str(error) == (
        "reading pgoutput, message Insert, at byte 19: 1 bytes follow the end of the message (the byte there is 0xFE)"
    )
    assert "secret" not in str(error)
    fault = Classifiers().classify(error)
    assert (fault.kind, fault.code, fault.scope) == (Kind.PERMANENT, "pgoutput", Scope.CALL)
    assert "if it comes again, report it" in fault.hint


@pytest.mark.parametrize(
    ("payload", "position", "problem"),
    [
        (b"", 0, "it has no first byte"),
        (b"Z", 0, "no message begins with this byte"),
        (b"B\0\0", 1, "the final LSN takes 8 bytes, 2 are left"),
        (b"C\x01" + bytes(24), 1, "unknown flags 0x01"),
        (b"B" + bytes(8) + b"\x7f" + bytes(7) + b"\0\0\0\1", 9, "the commit time lies outside of the years 1 to 9999"),
        (b"B" + bytes(20), 17, "no transaction has the id 0"),
        (b"O" + bytes(8) + b"no end", 9, "the origin's name has no zero byte"),
        (b"O" + bytes(8) + b"a\xff\0", 10, "client_encoding=UTF8"),
        (b"R\0\0\0\1\0\0xx\0", 7, "a replica identity is one of d, n, f, i"),
        (b"R\0\0\0\1\0\0d\xff\xff", 8, "65535 columns do not fit into 0 bytes"),
        (b"R\0\0\0\1\0\0d\0\1\2" + bytes(9), 10, "unknown flags 0x02"),
        (b"M\0" + bytes(8) + b"p\0\xff\xff\xff\xffabc", 16, "the content takes 4294967295 bytes, 3 are left"),
        (b"T\xff\xff\xff\xff\0", 1, "4294967295 relations do not take 0 bytes"),
        (b"T\0\0\0\1\0\0\0\0\1", 6, "relation 1 has not been described"),
        (b"T\0\0\0\0\4", 5, "unknown flags 0x04"),
        (b"I\0\0\0\1N\0\0", 1, "relation 1 has not been described"),
        (inserted(b"1", b"2"), 6, "a row of 2 columns for public.orders, which has 1"),
        (inserted(b"1").replace(b"N", b"K"), 5, "another mark belongs before this row"),
        (inserted(b"1").replace(b"I", b"D", 1), 5, "another mark belongs before this row"),
        (inserted(b"1").replace(b"I", b"U", 1).replace(b"N", b"X"), 5, "another mark belongs before this row"),
        (inserted(b"1").replace(b"I", b"U", 1).replace(b"N", b"K"), 14, "the mark before the new row takes 1 bytes"),
        (inserted(b"1").replace(b"I", b"U", 1).replace(b"N", b"O") + b"O\0\1n", 14, "the mark of the new row is N"),
        (inserted(b"1").replace(b"t", b"x"), 8, "a value's kind is one of n, u, t"),
        (inserted(b"1").replace(b"t", b"b"), 8, "column id came in binary form; start the stream without the option binary"),
        (inserted(b"\xff\xff"), 13, "column id is no UTF-8"),
        (inserted(b"1")[:-1], 13, "column id takes 1 bytes, 0 are left"),
        (b"S\0\0\0\1\1", 0, "protocol version 1 has no such message"),
        *((tag + bytes(40), 0, "create the slot without two_phase") for tag in (b"b", b"P", b"K", b"r", b"p")),
    ],
)
def test_what_is_damaged_is_refused_with_its_place(payload: bytes, position: int, problem: str) -> None:
    error = refused(knowing(table("id", key="id")), payload)
    assert problem in error.problem
    assert (error.position, error.seen) == (position, payload[position] if position < len(payload) else None)


def test_an_old_key_of_a_table_without_one_is_refused() -> None:
    relation = table("id")
    for tag, rest in ((b"D", b""), (b"U", b"N\0\1n")):
        error = refused(knowing(relation), tag + struct.pack(">I", relation.id) + b"K\0\1n" + rest)
        assert "an old key for public.orders, which has none" in error.problem


def test_what_does_not_belong_into_a_piece_or_outside_of_one() -> None:
    decoder = Decoder(2)
    assert "no piece" in refused(decoder, b"E").problem
    decoder.decode(encode(StreamStart(5, first=True)))
    for payload in (b"B" + bytes(20), b"S\0\0\0\1\1", b"A" + bytes(8), b"c" + bytes(29)):
        assert "within a piece of the streamed transaction 5" in refused(decoder, payload).problem
    assert "no transaction has the id 0" in refused(decoder, b"R" + bytes(20)).problem


def test_more_relations_than_the_limit_are_refused_and_those_known_may_change() -> None:
    decoder = knowing(table("id", relation_id=1), table("id", relation_id=2), relations_max=2)
    assert "the limit is 2: raise relations_max" in refused(decoder, encode(table("id", relation_id=3))).problem
    decoder.decode(encode(table("id", "name", relation_id=2)))
    assert len(decoder.relations) == 2


def test_a_value_that_is_not_what_its_type_looks_like_is_refused_with_a_way_out() -> None:
    decoder = knowing(table("id", types={"id": 1082}), typed=True)
    error = refused(decoder, inserted(b"21.11.2026"))
    assert "column id of public.orders is not what type 1082 looks like; connect with DateStyle=ISO" in error.problem
    assert "21.11" not in str(error)


# Damage at large


def every_kind(*, typed: bool = False) -> Iterator[tuple[Decoder, bytes]]:
    """A decoder and a message it accepts, for each kind, outside of a piece and within."""
    relation = table("id", "né", key="id", types={"id": 23 if typed else TEXT})
    rows: list[Any] = [
        Insert(relation, ("1", None)),
        Insert(relation, ("1", "é")),
        Update(relation, ("1", UNCHANGED)),
        Update(relation, ("1", "x"), ("2",)),
        Update(relation, ("1", "x"), None, ("2", "y")),
        Delete(relation, ("2",)),
        Delete(relation, None, ("2", "é")),
        relation,
    ]
    for row in rows:
        yield knowing(relation, version=2, typed=typed), encode(row)
        piece = Decoder(2, typed=typed)
        piece.decode(encode(StreamStart(9, first=True)))
        inside = in_piece(relation, 9, relation)
        piece.decode(encode(inside))
        yield piece, encode(in_piece(row, 9, inside))
    yield knowing(relation, version=2), b"T\0\0\0\1\3" + struct.pack(">I", relation.id)
    sizes = {"B": 20, "C": 25, "c": 29, "A": 8, "S": 5}
    for tag, size in sizes.items():
        body = bytes(size - 1) + b"\1" if tag == "B" else bytes(size)
        yield Decoder(2), tag.encode() + (b"\0\0\0\1\0\0\0\1" + body)[:size] if tag in "cAS" else tag.encode() + body
    yield Decoder(2), b"O" + bytes(8) + b"name\0"
    yield Decoder(2), b"Y\0\0\0\1s\0mood\0"
    yield Decoder(2), b"M\1" + bytes(8) + b"p\0\0\0\0\1x"


def test_the_cases_below_are_of_every_kind() -> None:
    seen = {decoder.decode(payload).__class__.__name__ for decoder, payload in every_kind()}
    assert seen == set(MESSAGE_NAMES.values()) - {"StreamStop"}


def test_a_message_cut_short_anywhere_is_refused_and_so_is_one_with_something_behind_it() -> None:
    for decoder, payload in every_kind():
        for end in range(len(payload)):
            error = refused(decoder, payload[:end])
            assert 0 <= error.position <= end
        refused(decoder, payload + b"\0")
        decoder.decode(payload)


def mutated(payload: bytes, dice: random.Random) -> bytes:
    data = bytearray(payload)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0:
                data[at:at] = dice.randbytes(dice.randint(1, 5))
            case 1:
                del data[at : at + dice.randint(1, 5)]
            case 2:
                data[at : at + 4] = dice.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", bytes(4)])
            case _:
                data[at : at + 1] = bytes([dice.choice([0, 0x7F, 0x80, 0xFF, *b"tnubNKOIUDRSEcA", dice.randrange(256)])])
    return bytes(data)


def corpus() -> list[tuple[str, int, list[bytes]]]:
    """Captured streams: the protocol version is in the name; each message has its length before it."""
    found: list[tuple[str, int, list[bytes]]] = []
    for path in sorted(CORPUS.glob("*.bin")):
        data, at, payloads = path.read_bytes(), 0, list[bytes]()
        while at < len(data):
            (length,) = struct.unpack_from(">I", data, at)
            payloads.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        found.append((path.stem, int(path.stem.rpartition("-v")[2]), payloads))
    return found


def test_the_corpus_has_messages_of_every_kind() -> None:
    tags = {payload[0] for _, _, payloads in corpus() for payload in payloads}
    assert {MESSAGE_NAMES[tag] for tag in tags} == set(MESSAGE_NAMES.values())


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(("name", "version", "payloads"), corpus(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_server_sent_is_read_and_its_damaged_copies_are_read_or_refused(
    name: str,
    version: int,
    payloads: list[bytes],
    typed: bool,  # noqa: FBT001 - given by pytest
) -> None:
    dice = random.Random(name)
    decoder = Decoder(version, typed=typed, json=typed)
    damaged = Decoder(version, typed=typed, json=typed)
    refusals = 0
    for payload in payloads:
        decoder.decode(payload)
        for _ in range(3):
            try:
                damaged.decode(mutated(payload, dice))
            except PgOutputError:
                refusals += 1
    assert refusals


@pytest.mark.parametrize("typed", [False, True])
def test_thousands_of_damaged_messages_are_read_or_refused(typed: bool) -> None:  # noqa: FBT001 - given by pytest
    dice = random.Random(11)
    refusals = 0
    for _ in range(100):
        for decoder, payload in every_kind(typed=typed):
            try:
                decoder.decode(mutated(payload, dice))
            except PgOutputError:
                refusals += 1
    assert refusals > 1_000


def outcome(decode: Any, payload: bytes) -> object:
    try:
        message = decode(payload)
    except PgOutputError as error:
        return str(error)
    return type(message), message


@pytest.mark.parametrize("typed", [False, True])
def test_the_quick_way_and_the_careful_one_agree_about_thousands_of_damaged_messages(typed: bool) -> None:  # noqa: FBT001 - by pytest
    dice = random.Random(12)
    agreed = {str: 0, tuple: 0}
    for _ in range(200):
        for (quick, payload), (careful, _same) in zip(every_kind(typed=typed), every_kind(typed=typed), strict=True):
            damaged = mutated(payload, dice)
            result = outcome(quick.decode, damaged)
            assert result == outcome(careful._carefully, damaged), damaged
            agreed[type(result)] += 1
    assert min(agreed.values()) > 300, agreed


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decoder in (knowing(table("id"), typed=True), knowing(table("id"), version=2)):
        with contextlib.suppress(PgOutputError):
            decoder.decode(data)


def test_a_refused_message_changes_nothing() -> None:
    relation = table("id", "name")
    decoder = knowing(relation, version=2)
    refused(decoder, encode(table("id")) + b"x")
    refused(decoder, encode(StreamStart(5, first=True)) + b"x")
    assert decoder.streaming_xid is None
    assert decoder.relations == {relation.id: relation}


def test_lengths_that_lie_cost_nothing() -> None:
    """A huge length is refused before anything of that size is made: sizes of Python's objects tell."""
    error = refused(knowing(table("id")), inserted(b"1").replace(b"\0\0\0\1", b"\x7f\xff\xff\xff"))
    assert "takes 2147483647 bytes, 1 are left" in error.problem
    assert sys.getsizeof(str(error)) < 500
