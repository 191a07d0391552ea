"""The dependencies of a tree of services: opened once, and let go when the last service that needs them has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outlast._runtime.dependency.dependency import Dependency
    from outlast._runtime.service.stop import Stop


class Holdings:
    """The services that still need each dependency. One for each run of a tree of services."""

    def __init__(self) -> None:
        self._dependencies: dict[int, Dependency] = {}
        self._users: dict[int, int] = {}
        self._wanted: dict[int, int] = {}

    def __iter__(self) -> Iterator[Dependency]:
        """Yield the dependencies that are still held, in the order of opening."""
        return iter(tuple(self._dependencies.values()))

    def need(self, dependencies: Iterable[Dependency]) -> None:
        """Note that one more service needs these."""
        for dependency in dependencies:
            key = id(dependency)
            self._dependencies.setdefault(key, dependency)
            self._users[key] = self._users.get(key, 0) + 1
            self._wanted[key] = self._wanted.get(key, 0) + 1

    def stopping(self, dependencies: Iterable[Dependency], stop: Stop) -> None:
        """Note that one service that needs these is stopping: what nobody else wants is probed no more, in this very step."""
        for dependency in dependencies:
            self._wanted[id(dependency)] -= 1
            if self._wanted[id(dependency)] == 0:
                dependency.stopping(stop)

    def let_go(self, dependencies: Iterable[Dependency]) -> list[Dependency]:
        """Note that one service that needs these has ended; return those that nobody needs any more, the last opened first."""
        freed: list[Dependency] = []
        for dependency in dependencies:
            key = id(dependency)
            if key not in self._users:
                continue
            self._users[key] -= 1
            if self._users[key] == 0:
                del self._users[key]
                freed.append(self._dependencies.pop(key))
        return freed[::-1]
