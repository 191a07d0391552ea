"""Which position may be confirmed: checked against a model that knows every transaction."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outlast.changes._positions import PositionError, Positions


def test_a_quiet_stream_follows_the_keepalives() -> None:
    positions = Positions.begin(100).keepalive(200)
    assert positions.confirmable == 200
    assert not positions.pending
    assert positions.lag_bytes(250) == 50
    assert positions.keepalive(150) is positions


def test_a_keepalive_confirms_nothing_while_a_transaction_is_not_durable() -> None:
    positions = Positions.begin(100).transaction(150).keepalive(200)
    assert positions.pending
    assert positions.confirmable == 100
    # When it is, the keepalive counts at once: nothing for us was between the two.
    assert positions.stored(150).confirmable == 200


def test_a_sink_ahead_of_what_it_was_given_is_refused() -> None:
    positions = Positions.begin(100).transaction(150)
    with pytest.raises(PositionError, match="0/97 is durable, but it was given changes up to 0/96 only"):
        positions.stored(151)
    # A keepalive is nothing that the sink was given while a transaction is open.
    with pytest.raises(PositionError):
        positions.keepalive(500).stored(200)


def test_what_the_server_sends_again_is_known_and_pends_nothing() -> None:
    positions = Positions.begin(100)
    assert positions.is_repeated(100)
    assert not positions.is_repeated(101)
    assert positions.transaction(90) is positions
    assert positions.stored(80) is positions


class Stream(RuleBasedStateMachine):
    """A server with a log, a sink that stores late, and confirmations: what is confirmed is never sent again."""

    def __init__(self) -> None:
        super().__init__()
        self.log = 1_000
        self.positions = Positions.begin(self.log)
        self.sent: list[int] = []
        self.stored = 0
        self.confirmed = self.log

    @rule(size=st.integers(1, 50))
    def somebody_else_writes(self, size: int) -> None:
        self.log += size

    @rule(size=st.integers(1, 50))
    def a_transaction_is_sent(self, size: int) -> None:
        self.log += size
        self.sent.append(self.log)
        self.positions = self.positions.transaction(self.log)

    @rule()
    def a_keepalive_is_sent(self) -> None:
        self.positions = self.positions.keepalive(self.log)

    @precondition(lambda self: self.stored < len(self.sent))
    @rule(data=st.data())
    def the_sink_stores(self, data: st.DataObject) -> None:
        self.stored = data.draw(st.integers(self.stored + 1, len(self.sent)))
        self.positions = self.positions.stored(self.sent[self.stored - 1])

    @rule()
    def the_session_is_new(self) -> None:
        """The server sends again what ends after the confirmed position, to who starts at the sink's own."""
        durable = max(self.confirmed, self.sent[self.stored - 1] if self.stored else 0)
        self.positions = Positions.begin(durable)
        for end in self.sent[self.stored :]:
            self.positions = self.positions.transaction(end)

    @invariant()
    def nothing_undurable_is_ever_confirmed(self) -> None:
        undurable = self.sent[self.stored :]
        assert all(self.positions.confirmable < end for end in undurable)
        assert self.positions.pending == bool(undurable)

    @invariant()
    def it_only_grows_and_never_beyond_the_log(self) -> None:
        assert self.confirmed <= self.positions.confirmable <= self.log
        self.confirmed = self.positions.confirmable

    @invariant()
    def everything_stored_and_told_is_confirmable(self) -> None:
        if not self.positions.pending:
            assert self.positions.confirmable >= self.positions.idle


TestStream = Stream.TestCase
