"""What is written to a standard stream at the end takes a bounded time, and so does everything that is done for it."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from outlast.logs import _last_words as last_words

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 60.0


class Pipe:
    """A pipe, and how it is filled."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()

    def fill(self) -> int:
        """Leave no room; return how many bytes are in it."""
        os.set_blocking(self.writes, False)
        filled = 0
        try:
            while True:
                filled += os.write(self.writes, bytes(4096))
        except BlockingIOError:
            os.set_blocking(self.writes, True)
            return filled


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reads)
    os.close(made.writes)


def helper() -> last_words.Helper:
    found = last_words.Helper.start()
    assert found is not None
    return found


def test_an_act_that_hangs_is_left_behind_and_one_that_raises_has_ended() -> None:
    go_on = threading.Event()
    assert not last_words.bounded(go_on.wait, 0.01)
    go_on.set()
    assert last_words.bounded(lambda: 1 / 0, LIMIT_S)


def test_without_threads_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(last_words._thread, "start_new_thread", no_more)
    assert not last_words.bounded(list)


def test_without_threads_a_line_is_written_by_who_says_it(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words.Helper, "start", lambda: None)
    monkeypatch.setattr(last_words, "STDERR", pipe.writes)
    assert last_words.say("last words", 0.0)
    assert os.read(pipe.reads, 100) == b"last words\n"
    pipe.fill()
    assert not last_words.say("no room", 0.0)


def test_a_line_is_written_whole_where_there_is_room(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "STDERR", pipe.writes)
    assert last_words.say("last words", LIMIT_S)
    assert last_words.say("x" * 10_000, LIMIT_S)
    assert os.read(pipe.reads, 20_000) == b"last words\n" + b"x" * 10_000 + b"\n"


def test_a_line_for_a_pipe_that_nobody_reads_is_given_up(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "STDERR", pipe.writes)
    pipe.fill()
    assert not last_words.say("last words", 0.01)
    os.close(pipe.reads)
    pipe.reads = os.open(os.devnull, os.O_RDONLY)
    assert not last_words.say("nobody is there", LIMIT_S)


def test_a_stream_that_nobody_reads_is_let_go_of_before_the_interpreter_ends(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = pipe.fill()
    with os.fdopen(os.dup(pipe.writes), "w") as unread, open(os.devnull, "w") as other:  # noqa: PTH123
        # It is full, and stays so: there is nothing to wait for.
        has_room = last_words._has_room
        monkeypatch.setattr(last_words, "_has_room", lambda fd, _: has_room(fd, 0.0))
        unread.write("what print has buffered")
        monkeypatch.setattr(sys, "stdout", unread)
        monkeypatch.setattr(sys, "stderr", other)
        assert last_words.flush_streams(helper(), LIMIT_S)
    assert len(os.read(pipe.reads, 2 * filled)) == filled


def test_a_stream_that_is_read_gets_what_was_buffered(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(pipe.writes), "w") as out:
        out.write("what print has buffered")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", None)
        assert last_words.flush_streams(helper(), LIMIT_S)
        assert os.read(pipe.reads, 100) == b"what print has buffered"


def test_a_stream_that_another_thread_holds_keeps_the_process(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    class Held:
        def fileno(self) -> int:
            return pipe.writes

        def flush(self) -> None:
            go_on.wait()

    monkeypatch.setattr(sys, "stdout", Held())
    monkeypatch.setattr(sys, "stderr", None)
    assert not last_words.flush_streams(helper(), 0.01)
    go_on.set()
