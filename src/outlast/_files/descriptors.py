"""Few open files for many that could be: a bounded cache which never closes what somebody is using.

The number of a closed descriptor is the next file's, so a thread that still held it would read, or write to, another file.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")

WAIT_S: Final = 30.0


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    opened: T | None = None
    """None while it is being opened."""
    replaced: T | None = None
    """An idle one that is closed first, to make room."""
    users: int = 0
    is_forgotten: bool = False


class Descriptors(Generic[K, T]):
    """At most `limit` things that are open at once, each opened by `open` when it is first used. For any thread.

    When there are `limit`, the one that nobody uses and that was used longest ago is closed for the next. `close` must not
    matter to anybody: what it raises as `OSError` is passed over.
    """

    def __init__(self, limit: int, open: Callable[[K], T], close: Callable[[T], None], *, wait_s: float = WAIT_S) -> None:  # noqa: A002
        """Open nothing yet. `wait_s`: how long a use waits while all are in use."""
        if limit < 1:
            raise ValueError(f"at least one descriptor is needed, not {limit}")
        self.limit = limit
        self._open = open
        self._close = close
        self._wait_s = wait_s
        # Its lock protects the rest and the entries. Never held while something is opened or closed, which may take long.
        self._changed = threading.Condition()
        self._entries: dict[K, _Entry[T]] = {}
        """Those used longest ago first."""
        self._count = 0
        """The number open, with those that are being opened or closed, and those that are forgotten and in use."""

    @property
    def open_count(self) -> int:
        """The number that is open now."""
        return self._count

    @contextmanager
    def use(self, key: K) -> Generator[T]:
        """Return what is open for the key; it stays open until the end of the `with`, however many use it.

        Raises what `open` raises; and `OSError` (EMFILE) if all stay in use by others for `wait_s`.
        """
        entry = self._take(key)
        try:
            yield self._opened(key, entry) if entry.opened is None else entry.opened
        finally:
            self._leave(entry)

    def forget(self, key: K) -> None:
        """Close what is open for the key, now or when its last user has left; the next use opens it again."""
        with self._changed:
            entry = self._entries.pop(key, None)
            if entry is None:
                return
            entry.is_forgotten = True
            is_idle = not entry.users
        if is_idle:
            self._end(entry)

    def close(self) -> None:
        """Forget all."""
        for key in list(self._entries):
            self.forget(key)

    def _take(self, key: K) -> _Entry[T]:
        """Return an entry of which the caller is a user; it is the caller's to open if it is empty."""
        until = time.monotonic() + self._wait_s
        with self._changed:
            while True:
                entry = self._entries.pop(key, None) or self._place()
                if entry is not None:
                    self._entries[key] = entry  # Behind all others: it was used last.
                    if entry.opened is not None or not entry.users:
                        entry.users += 1
                        return entry
                if not self._changed.wait(max(0.0, until - time.monotonic())):
                    what = f"all of {self.limit} descriptors were in use for {self._wait_s:g} s"
                    raise OSError(errno.EMFILE, what, str(key))

    def _place(self) -> _Entry[T] | None:
        """Return an empty entry, in the place of one that is idle if need be; None when all are in use."""
        if self._count < self.limit:
            self._count += 1
            return _Entry[T]()
        idle = next((key for key, entry in self._entries.items() if not entry.users), None)
        return None if idle is None else _Entry(replaced=self._entries.pop(idle).opened)

    def _opened(self, key: K, entry: _Entry[T]) -> T:
        try:
            self._close_quietly(entry.replaced)
            opened = self._open(key)
        except BaseException:
            with self._changed:
                if self._entries.get(key) is entry:
                    del self._entries[key]
                entry.is_forgotten = True
            raise
        with self._changed:
            entry.opened, entry.replaced = opened, None
            self._changed.notify_all()
        return opened

    def _leave(self, entry: _Entry[T]) -> None:
        with self._changed:
            entry.users -= 1
            is_over = entry.is_forgotten and not entry.users
            if not is_over:
                self._changed.notify_all()
        if is_over:
            self._end(entry)

    def _end(self, entry: _Entry[T]) -> None:
        self._close_quietly(entry.opened)
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def _close_quietly(self, opened: T | None) -> None:
        if opened is not None:
            with contextlib.suppress(OSError):
                self._close(opened)
