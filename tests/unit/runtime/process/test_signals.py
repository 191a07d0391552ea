"""Signals as they reach a process, and the time in which it stood still."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import closing

from outlast._runtime.process.signal_pipe import SignalPipe
from outlast._runtime.process.signals import Signals


def test_a_signal_is_in_the_pipe_by_its_number_and_its_handler_is_called() -> None:
    called: list[int] = []
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    with closing(SignalPipe()) as pipe:
        pipe.install(dict.fromkeys((signal.SIGUSR1, signal.SIGUSR2), lambda number, _: called.append(number)))
        assert pipe.read() == b""
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        pipe.ring(255)
        assert sorted(pipe.read()) == sorted([signal.SIGUSR1, signal.SIGUSR2, 255])
        assert pipe.read() == b""
    assert sorted(called) == sorted([signal.SIGUSR1, signal.SIGUSR2])
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before


def test_what_does_not_fit_into_the_pipe_waits_for_nobody() -> None:
    with closing(SignalPipe()) as pipe:
        for _ in range(200_000):
            pipe.ring(255)
        assert len(pipe.read()) == 4096


def test_outside_of_the_main_thread_nothing_is_installed_and_all_time_counts() -> None:
    taken = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        signals = Signals("shop", 10.0, lambda _: None)
        signals.start()
        signals.last_resort.begin()
        # Nobody beats: silence is no standstill.
        assert not signals.clock.began
        assert signals.last_resort.left_s() > 0
        signals.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is taken
