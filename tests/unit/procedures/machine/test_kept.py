"""The JSON of a body: there and back, of another format, and mangled."""

from __future__ import annotations

import json
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import Fault, Kind
from outlast.procedures._machine.body import Body
from outlast.procedures._machine.faults import UnreadableBodyError
from outlast.procedures._machine.kept import Begun, Done, Kept, Undoing, decode, encode
from outlast.procedures._model import ProcedureState
from outlast.procedures._procedure import Procedure
from procedure_rig import Rig, World, dies_at, fault, nothing

NAMES = st.text(string.ascii_letters + ' -"\\é世', min_size=1, max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
RESULTS = VALUES.map(json.dumps)
COUNTS = st.integers(0, 1_000)
FAULTS = st.builds(Fault, st.sampled_from(Kind), NAMES, NAMES, NAMES, hint=NAMES)
KEPT = st.builds(
    Kept,
    st.integers(1, 2**31 - 1),
    st.lists(st.builds(Done, NAMES, RESULTS | st.just("")), max_size=4),
    st.none() | st.builds(Begun, NAMES, COUNTS, st.none() | st.floats(0, 4e9)),
    st.none() | st.builds(Undoing, st.none() | FAULTS, COUNTS, NAMES),
    st.lists(NAMES, max_size=3),
)


@given(KEPT)
def test_what_is_kept_is_read_back(kept: Kept) -> None:
    text = encode(kept)
    assert text.isascii()
    assert decode(text) == kept
    assert encode(decode(text)) == text


def sample() -> str:
    procedure = Procedure("sample")
    for name in ("a", "b", "c"):
        procedure.step(name=name)(nothing).undo(nothing)
    rig = Rig(procedure, World(always={"c": fault(Kind.REJECTED)}, results={"a": '{"x": [1, 2.5, null, "é"]}'}))
    rig.dies = dies_at(["before b:undo"])
    rig.run(claims=1)
    return rig.record.body_json


@given(st.data())
def test_a_mangled_body_is_read_as_something_or_refused_and_never_anything_else(data: st.DataObject) -> None:
    text = sample()
    at = data.draw(st.integers(0, len(text) - 1))
    mangled = data.draw(
        st.sampled_from(
            [
                text[:at],
                text[at:],
                text[:at] + text[at + 1 :],
                text[:at] + data.draw(st.characters(max_codepoint=126)) + text[at + 1 :],
            ]
        )
    )
    refused: UnreadableBodyError | None = None
    try:
        decode(mangled)
    except UnreadableBodyError as error:
        refused = error
    assert refused is None or (refused.fault.kind, refused.body_json) == (Kind.PERMANENT, mangled)


@given(
    st.recursive(VALUES, lambda inner: st.dictionaries(st.sampled_from(["format", "version", "done", "at", "undoing"]), inner))
)
def test_other_json_is_refused(value: object) -> None:
    text = json.dumps(value)
    try:
        kept = decode(text)
    except UnreadableBodyError:
        return
    assert isinstance(kept, Kept)


def damaged(**changes: object) -> str:
    return json.dumps(
        {**json.loads(encode(Kept(1, [Done("a", "1")], Begun("b", 1, 2.0), Undoing(fault(), 1, "x"), ["c"]))), **changes}
    )


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        "[" * 5_000,
        damaged(format="1"),
        damaged(format=True),
        damaged(format=-1),
        damaged(version=1.5),
        damaged(version=2**60),
        damaged(done={"a": 1}),
        damaged(done=[[]]),
        damaged(done=[["a", 1, 2]]),
        damaged(done=[[1, "a"]]),
        damaged(done=["ab"]),
        damaged(at="b"),
        damaged(at={"name": "b"}),
        damaged(at={"name": 1, "attempts": 0, "until_at": None}),
        damaged(at={"name": "b", "attempts": -1, "until_at": None}),
        damaged(at={"name": "b", "attempts": 0, "until_at": "soon"}),
        damaged(at={"name": "b", "attempts": 0, "until_at": True}),
        damaged(undoing=True),
        damaged(undoing={"fault": "bad", "attempts": 0, "last": ""}),
        damaged(undoing={"fault": None, "attempts": 0, "last": 1}),
        damaged(undone=[1]),
        damaged().replace("2.0", "NaN"),
        damaged().replace("2.0", "1e999"),
    ],
)
def test_a_body_that_was_not_written_by_this_is_refused(text: str) -> None:
    with pytest.raises(UnreadableBodyError, match="the steps of a record cannot be read") as caught:
        decode(text)
    assert (caught.value.fault.kind, caught.value.fault.code) == (Kind.PERMANENT, "record damaged")
    assert caught.value.body_json == text
    assert len(caught.value.fault.reason) <= 1_000


def test_a_newer_format_is_refused_with_a_hint_and_written_back_as_it_is() -> None:
    procedure = Procedure("newer")
    procedure.step(name="a")(nothing)
    rig = Rig(procedure)
    rig.dies = dies_at(["after a"])
    rig.run(claims=1)
    newer = json.dumps({"format": 2, "whatever": "it has"})
    rig.record = replace(rig.record, body_json=newer)
    rig.run(claims=3)
    assert rig.refused is not None
    assert (rig.refused.fault.kind, rig.refused.fault.code) == (Kind.PERMANENT, "newer format")
    assert "newer release" in rig.refused.fault.hint
    assert rig.record.body_json == newer
    assert rig.record.state is ProcedureState.WAITING


def test_the_body_of_a_record_that_was_never_begun_is_empty() -> None:
    procedure = Procedure("fresh")
    procedure.step(name="a")(nothing)
    body = Body.of(procedure, Rig(procedure).record)
    assert body.kept == Kept(1)
    assert not body.dirty
