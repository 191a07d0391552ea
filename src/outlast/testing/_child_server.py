"""A server that is a child of this process: how it is waited for, ended, and given up."""

from __future__ import annotations

import abc
import atexit
import os
import subprocess
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn, Self

from outlast._core.faults import OutlastError

if TYPE_CHECKING:
    import signal
    from types import TracebackType

    from outlast.testing._reaper import Reaper

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 60.0
SAID_CHARS_MAX: Final = 500
"""The end of a server's log that an error quotes."""


class ServerFailedError(OutlastError):
    """A server could not be initialised, started or stopped; the message ends with what it said itself."""


class ChildServer(abc.ABC):
    """A server of the tests or of a drill. It is removed at the end of a block, and at that of this process."""

    _called: ClassVar[str]
    """Its name in errors."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._reaper: Reaper | None = None
        self._owner = os.getpid()
        atexit.register(self._at_exit)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Remove it."""
        self.remove()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @abc.abstractmethod
    def start(self) -> None:
        """Start it and return when it serves. Raises `ServerFailedError` with the end of its log."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Send SIGKILL, as a machine that fails would."""

    @abc.abstractmethod
    def thaw(self) -> None:
        """Let a frozen server go on."""

    def remove(self) -> None:
        """End it at once and remove its files, if their directory was not given."""
        self.kill()
        self._remove_files()
        if self._reaper is not None:
            self._reaper.dismiss()
            self._reaper = None
        atexit.unregister(self._at_exit)

    # For the servers.

    @abc.abstractmethod
    def _end_of_log(self) -> str:
        """Return what its log says last, of at most `SAID_CHARS_MAX` characters."""

    @abc.abstractmethod
    def _remove_files(self) -> None:
        """Remove what is its own. The process has ended."""

    def _end(self, by: signal.Signals, how: str = "") -> None:
        """Ask it to end, and wait until it has."""
        if self._process is None:
            return
        self.thaw()
        if self.running:
            self._process.send_signal(by)
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._fail(f"{self._called} did not stop{how} within {STOP_S_MAX:.0f} s, and was killed")
        self._process = None

    def _fail(self, what: str) -> NoReturn:
        said = self._end_of_log()
        self.kill()
        msg = f"{what}; its log ends: {said.strip()}"
        raise ServerFailedError(msg)

    def _at_exit(self) -> None:
        # A child that was forked inherits the handler, and must not remove what its parent still uses.
        if os.getpid() == self._owner:
            self.remove()
