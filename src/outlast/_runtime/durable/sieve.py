"""Record a batch, and find out one by one which entries the store refuses: one of them never stops the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from outlast._core.faults import Unavailable
from outlast._core.reaction import Reaction
from outlast._runtime.service.stop import Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outlast._core.faults import Fault
    from outlast._runtime.dependency.dependency import Dependency

Entry = TypeVar("Entry")

CAUSE_MAX: Final = 20
"""After this many refused one by one, in a row, they are taken to have a cause in common: it counts against no further one."""


class Sieve(Generic[Entry]):
    """Record entries; one that the store refuses is taken to be alone in that until the opposite is shown.

    A batch that is refused is halved until the entry is found that is, and that one is set aside. What cannot be recorded *now*
    (a lock, no room) is returned, to be tried again later. What everyone would meet is raised: the server does not answer, the
    table is not there. `record` is what a `Recorder` calls.
    """

    def __init__(
        self,
        dependency: Dependency,
        write: Callable[[list[Entry]], Awaitable[object]],
        set_aside: Callable[[Entry, Fault], Awaitable[bool]],
        *,
        part: Callable[[list[Entry]], Awaitable[object]] | None = None,
    ) -> None:
        """`write` records all of its entries or none, also of an empty list; `part`, if given, does so during the search.

        `set_aside` is called with the entry that is refused and the fault, and returns False if it is not the entry after all:
        then it is left for later.
        """
        self._dependency = dependency
        self._write = write
        self._part = part or write
        self._set_aside = set_aside

    async def record(self, entries: list[Entry]) -> list[Entry]:
        """Record them; return those to be tried again later. Raises the faults that concern everyone."""
        try:
            await self._write(entries)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
            fault = fault_of_call(self._dependency, exc)
        else:
            return []
        if fault.reaction is not Reaction.ANSWER:
            # Is it the table? Without an entry there is none to refuse.
            await self._write([])
        return await self._sift(entries)

    async def _sift(self, entries: list[Entry]) -> list[Entry]:
        left: list[Entry] = []
        parts = [entries]
        in_a_row = 0
        while parts:
            part = parts.pop()
            if in_a_row > CAUSE_MAX:
                left += part
                continue
            try:
                await self._part(part)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is classified
                fault = fault_of_call(self._dependency, exc)
            else:
                in_a_row = 0
                continue
            if len(part) > 1:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            # WAIT says "not now", not "not this": a lock, a deadlock, no room.
            elif fault.reaction is not Reaction.WAIT and await self._set_aside(part[0], fault):
                in_a_row = 0
            else:
                left += part
                in_a_row += 1
        return left


def fault_of_call(dependency: Dependency, exc: Exception) -> Fault:
    """Return the fault of an error that may concern this call alone; raise an error that concerns everyone."""
    if isinstance(exc, Unavailable | Stopping):
        raise exc
    fault = dependency.classifiers.classify(exc, source=dependency.name)
    if fault.is_evidence or fault.reaction in {Reaction.END, Reaction.LEAVE}:
        raise exc
    return fault
