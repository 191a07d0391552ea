"""Reads one message of pgoutput with care: whatever is wrong with it is said, with the place and the byte."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeAlias

from outlast import Fault, Kind, OutlastError, Scope
from outlast.changes._decoding.messages import (
    MESSAGE_NAMES,
    TWO_PHASE,
    UNCHANGED,
    Column,
    Relation,
    ReplicaIdentity,
    Value,
    Values,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""PostgreSQL counts microseconds from here (src/include/datatype/timestamp.h, POSTGRESEPOCH_JDATE)."""
_COLUMN_BYTES_MIN: Final = 10
"""Flags 1, an empty name 1, type 4, modifier 4."""
_insert_head: Final = struct.Struct(">IcH").pack
_u16: Final = struct.Struct(">H")
_u32: Final = struct.Struct(">I")
_i32: Final = struct.Struct(">i")
_u64: Final = struct.Struct(">Q")
_i64: Final = struct.Struct(">q")


class PgOutputError(OutlastError):
    """A payload that is no message of pgoutput, or none that may come here. Never has the contents of rows.

    The stream cannot be read on from here: reconnect, and report it if it comes again.
    """

    def __init__(self, message_type: str, position: int, problem: str, seen: int | None = None) -> None:
        """Say where in the payload it is wrong: `position` is in bytes from its beginning."""
        byte = "the message ends there" if seen is None else f"the byte there is 0x{seen:02X}"
        reason = f"reading pgoutput, message {message_type}, at byte {position}: {problem} ({byte})"
        hint = "a new connection may put it right; if it comes again, report it with the version of PostgreSQL"
        super().__init__(reason, Fault(Kind.PERMANENT, "pgoutput", reason, scope=Scope.CALL, hint=hint))
        self.message_type = message_type
        self.position = position
        self.problem = problem
        self.seen = seen
        """The byte at `position`; None at the end of the message."""


Converters: TypeAlias = "tuple[tuple[int, Callable[[str], Value]], ...]"
"""The columns that become something else than text: their place, and what to call."""


class Plan(NamedTuple):
    """The way to read the rows of a relation: made once, when it is described."""

    relation: Relation
    width: int
    converters: Converters
    left_out: bool = False
    """Whether its changes are not passed on. The tight loop leaves them to whoever reads with care."""


class Known:
    """The relations described so far: by id, and by the bytes with which an Insert of theirs begins."""

    __slots__ = ("heads", "plans")

    def __init__(self) -> None:
        self.plans: dict[int, Plan] = {}
        self.heads: dict[bytes, Plan] = {}
        """Keys: the relation's id, the mark N, the number of columns. One look-up checks all three."""

    def add(self, plan: Plan) -> None:
        """Know this one from here on, in the place of an older one with its id."""
        key = plan.relation.id
        if key in self.plans:
            self.heads.pop(_insert_head(key, b"N", self.plans[key].width), None)
        self.plans[key] = plan
        if not plan.left_out:
            self.heads[_insert_head(key, b"N", plan.width)] = plan

    def add_all(self, others: Known) -> None:
        """Know these too."""
        for plan in others.plans.values():
            self.add(plan)


class Reading:
    """A place in one message. Each method reads what stands there and moves on, or raises `PgOutputError`."""

    __slots__ = ("at", "data", "kind")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.kind = "(empty)"
        if not data:
            self.refuse("it has no first byte, the type of the message")
        self.kind = MESSAGE_NAMES.get(data[0], f"0x{data[0]:02X}")
        if data[0] in TWO_PHASE:
            self.kind = "of two-phase commit"
            self.refuse("two-phase commit is not supported; create the slot without two_phase")
        if data[0] not in MESSAGE_NAMES:
            self.refuse("no message begins with this byte")
        self.at = 1

    def refuse(self, problem: str, at: int | None = None) -> NoReturn:
        """Raise for what stands here, or at another place."""
        position = self.at if at is None else at
        seen = self.data[position] if position < len(self.data) else None
        raise PgOutputError(self.kind, position, problem, seen)

    def take(self, length: int, what: str) -> bytes:
        """Return so many bytes. A length that the message does not have costs nothing."""
        start, end = self.at, self.at + length
        if end > len(self.data):
            self.refuse(f"{what} takes {length} bytes, {len(self.data) - start} are left")
        self.at = end
        return self.data[start:end]

    def u8(self, what: str) -> int:
        """Read one byte."""
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        """Read two bytes, unsigned."""
        value: int = _u16.unpack(self.take(2, what))[0]
        return value

    def u32(self, what: str) -> int:
        """Read four bytes, unsigned."""
        value: int = _u32.unpack(self.take(4, what))[0]
        return value

    def i32(self, what: str) -> int:
        """Read four bytes, signed."""
        value: int = _i32.unpack(self.take(4, what))[0]
        return value

    def lsn(self, what: str) -> int:
        """Read a position in the log."""
        value: int = _u64.unpack(self.take(8, what))[0]
        return value

    def xid(self) -> int:
        """Read a transaction's id, which is never 0."""
        start = self.at
        value = self.u32("the transaction id")
        if not value:
            self.refuse("no transaction has the id 0", start)
        return value

    def time(self, what: str) -> datetime:
        """Read a point in time, in UTC."""
        start = self.at
        microseconds: int = _i64.unpack(self.take(8, what))[0]
        try:
            return EPOCH + timedelta(microseconds=microseconds)
        except OverflowError:
            self.refuse(f"{what} lies outside of the years 1 to 9999", start)

    def text(self, what: str) -> str:
        """Read a string that ends with a zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            self.refuse(f"{what} has no zero byte at its end")
        value = self.decoded(self.data[self.at : end], what, self.at)
        self.at = end + 1
        return value

    def decoded(self, raw: bytes, what: str, start: int) -> str:
        """Decode text in UTF-8, which is what we ask the server for."""
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self.refuse(f"{what} is no UTF-8; connect with client_encoding=UTF8", start + error.start)

    def flags(self, allowed: int) -> int:
        """Read a byte of flags of which only `allowed` are known."""
        start = self.at
        value = self.u8("the flags")
        if value & ~allowed:
            self.refuse(f"unknown flags 0x{value & ~allowed:02X}", start)
        return value

    def end(self) -> None:
        """Refuse whatever follows."""
        if self.at != len(self.data):
            self.refuse(f"{len(self.data) - self.at} bytes follow the end of the message")

    def relation(self, xid: int | None) -> Relation:
        """Read the body of a Relation message."""
        relation_id = self.u32("the relation's id")
        # The manual: empty for pg_catalog.
        schema = self.text("the schema's name") or "pg_catalog"
        name = self.text("the relation's name")
        start = self.at
        identity = self.take(1, "the replica identity")
        if identity not in b"dnfi":
            self.refuse("a replica identity is one of d, n, f, i", start)
        start = self.at
        count = self.u16("the number of columns")
        if count * _COLUMN_BYTES_MIN > len(self.data) - self.at:
            self.refuse(f"{count} columns do not fit into {len(self.data) - self.at} bytes", start)
        columns = tuple([self._column() for _ in range(count)])
        return Relation(relation_id, schema, name, ReplicaIdentity(identity.decode()), columns, xid)

    def _column(self) -> Column:
        is_key = self.flags(1) == 1
        return Column(self.text("a column's name"), self.u32("a column's type"), self.i32("a type modifier"), is_key)

    def row(self, plan: Plan) -> list[Value]:
        """Read the values of one row, text as text."""
        start = self.at
        count = self.u16("the number of columns")
        if count != plan.width:
            self.refuse(f"a row of {count} columns for {plan.relation.qualified_name}, which has {plan.width}", start)
        values = [self._value(column) for column in plan.relation.columns]
        for place, convert in plan.converters:
            value = values[place]
            if isinstance(value, str):
                values[place] = self._converted(convert, value, plan, place, start)
        return values

    def _converted(self, convert: Callable[[str], Value], value: str, plan: Plan, place: int, start: int) -> Value:
        try:
            return convert(value)
        except (ValueError, ArithmeticError, RecursionError):
            column = plan.relation.columns[place]
            self.refuse(
                f"column {column.name} of {plan.relation.qualified_name} is not what type {column.type_oid} looks like; "
                "connect with DateStyle=ISO, IntervalStyle=postgres and bytea_output=hex, or decode without typed",
                start,
            )

    def _value(self, column: Column) -> Value:
        start = self.at
        kind = self.take(1, "a value's kind")
        if kind == b"n":
            return None
        if kind == b"u":
            return UNCHANGED
        if kind == b"b":
            self.refuse(f"column {column.name} came in binary form; start the stream without the option binary", start)
        if kind != b"t":
            self.refuse("a value's kind is one of n, u, t", start)
        raw = self.take(self.u32("a value's length"), f"column {column.name}")
        return self.decoded(raw, f"column {column.name}", start + 5)

    def key(self, plan: Plan) -> Values:
        """Read the values of the replica identity, out of a row that has only those."""
        start = self.at
        values = self.row(plan)
        places = plan.relation.key_places
        if not places:
            self.refuse(f"an old key for {plan.relation.qualified_name}, which has none", start)
        return tuple([values[place] for place in places])
