"""The port by which a system shows itself, as a system fills it. Nothing here is run: mypy and basedpyright read it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_type

import outlast
from outlast.extend import Act, Figure, FigureKind, Lag, Shown, SystemHealth, Unit

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

service = outlast.Service("shop")


class Light(enum.Enum):
    RED = "red"


async def retry() -> int:
    return 3


class Plain:
    """Names as attributes of the class."""

    system = "outbox"
    name = "orders"

    def figures(self) -> list[Figure]:
        by_peer = {"a": 1, "b": 2}
        by_both = {("a", "dead"): 1}
        return [
            Figure.counter("sent_messages", "Sent.", 3),
            Figure.gauge("waiting", "Waiting.", by_peer, labels=("peer",), unit=Unit.BYTES, read_at=1.0),
            Figure.gauge("held", "Held.", by_both, labels=("peer", "state")),
            Figure.states("light", "The light.", Light.RED),
        ]

    def health(self) -> SystemHealth:
        return SystemHealth(well=None, state="starting", cause=None, since=1.0)

    def lag(self) -> Lag | None:
        return Lag(seconds=1.5)

    def acts(self) -> tuple[Act, ...]:
        return (Act("retry", "Tries again.", retry, concerns=3, destructive=False),)


@dataclass(frozen=True)
class Frozen:
    """Names as fields that cannot be set, and nothing else to show."""

    system: str
    name: str

    def figures(self) -> Sequence[Figure]:
        return ()

    def health(self) -> SystemHealth:
        return SystemHealth(True, "at work")

    def lag(self) -> None:
        return

    def acts(self) -> Sequence[Act]:
        return ()


service.show(Plain())
service.show(Frozen("outbox", "mails"))
assert_type(service.all_shown(), list[Shown])
assert_type(Figure.counter("sent", "Sent.", 1).kind, FigureKind)
assert_type(Plain().acts()[0].concerns, int | None)


async def run() -> None:
    awaited: Coroutine[Any, Any, int] = retry()
    assert_type(await awaited, int)
    assert_type(await Plain().acts()[0].run(), int)
