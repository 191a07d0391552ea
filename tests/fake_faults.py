"""Faults of a fake disk: calls that fail, that do not return, and in which the process ends."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from random import Random


class Died(BaseException):
    """The process ended in this call. Every later call raises it too, until `crash` or `power_cut`."""


@dataclass(slots=True)
class Failure:
    call: str
    errno: int
    left: float
    after: int
    path: str | None
    hits: int = 0


class Hang:
    """Calls that do not return until `release`, or the end of the `with`."""

    def __init__(self, call: str, path: str | None) -> None:
        self.call, self.path = call, path
        self.entered = threading.Event()
        """Whether a call hangs, or has hung."""
        self._over = threading.Event()

    def stay(self) -> None:
        self.entered.set()
        self._over.wait()

    def release(self) -> None:
        self._over.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Faults:
    """What is to happen to calls. For the thread that holds the lock of the disk."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.hangs: list[Hang] = []
        self.calls_left: int | None = None
        self.is_dead = False

    def clear(self) -> None:
        for hang in self.hangs:
            hang.release()
        self.failures.clear()
        self.hangs.clear()
        self.calls_left = None

    def hanging(self, call: str, paths: list[str]) -> list[Hang]:
        return [hang for hang in self.hangs if _fits(hang, call, paths)]

    def happen(self, call: str, paths: list[str], rng: Random | None) -> None:
        """Raise if the call fails, or if the process ends before it. It may end behind it, or halfway: `is_dead` says so."""
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left <= 0:
                self.is_dead = True
                if rng is None or rng.random() < 0.5:
                    raise Died(call)
        for failure in self.failures:
            if failure.left > 0 and _fits(failure, call, paths):
                failure.after -= 1
                if failure.after < 0:
                    failure.left -= 1
                    failure.hits += 1
                    raise error_of(failure.errno, paths[0])


def _fits(what: Failure | Hang, call: str, paths: list[str]) -> bool:
    return what.call == call and (what.path is None or any(fnmatchcase(path, what.path) for path in paths))


def error_of(number: int, path: str | os.PathLike[str]) -> OSError:
    return OSError(number, os.strerror(number), os.fspath(path))
