"""A thread of the harness that looks at something while an arm runs."""

from __future__ import annotations

import abc
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Looker(abc.ABC):
    """The thread; a context manager. Leaving it raises what a look has failed with: it must not pass for one that saw nothing."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and exc is None:
            raise self._failure

    @abc.abstractmethod
    def look(self) -> None:
        """Look, in the thread, for as long as `goes_on` says so."""

    def goes_on(self, every_s: float) -> bool:
        """Wait for the next look; return False when there is to be none."""
        return not self._stop.wait(every_s)

    def _run(self) -> None:
        try:
            self.look()
        except BaseException as error:  # noqa: BLE001 - raised by __exit__
            self._failure = error
