"""Admission for any service: whether work may come in, asked before the work costs anything."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from outlast._core.admission.bucket import KEYS_MAX
from outlast._core.admission.concurrency import Concurrency
from outlast._core.admission.memory import Memory
from outlast._core.admission.policy import CRITICAL_MAX, PARKED_MAX, AdmissionPolicy
from outlast._core.admission.queue import Place, Queue
from outlast._core.admission.values import Criticality, Refusal
from outlast._core.faults import ConfigurationError
from outlast._runtime.admission.decorator import async_only, of_call
from outlast._runtime.admission.desk import Desk
from outlast._runtime.admission.meters import Meters
from outlast._runtime.admission.shown import ShownAdmission
from outlast._runtime.admission.ticket import Entry, Ticket, Waiting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from outlast._core.admission.bucket import Rate
    from outlast._runtime.admission.decorator import ByCall
    from outlast._runtime.admission.refused import Refused, TooLargeError
    from outlast._runtime.service.service import Service

P = ParamSpec("P")
R = TypeVar("R")

CONCURRENCY: Final = Concurrency()
MEMORY: Final = Memory()
QUEUE: Final = Queue()


class Admission:
    """Decides whether work may come in, by five checks, each with a refusal of its own that says when to come back.

        admission = outlast.Admission("orders", rate=Rate(1000), key_rate=Rate(50, burst=100))
        admission.attach(service)

        async with admission.enter(key=customer, deadline_s=2.0):
            ...

    In this order:

    1. **deadline**: work that cannot be done in time is refused at once, or dropped from the queue as soon as that is known;
    2. **memory**: near the limit of the process nothing comes in that can be shed, then nothing that is not critical (`memory`);
    3. **rate**: a token bucket for each key (`key_rate`), then one for all (`rate`);
    4. **share**: while others wait, nobody holds more than its share of what is under way: by tenant, then by key in it;
    5. **concurrency**: how much may be under way follows the latency and the lag of the event loop (`concurrency`). What is above
       that waits in a queue that is bounded in time and number (`queue`), or is refused.

    Each check works with its default, and is left out with None; there is no rate unless one is set. Critical work (health
    checks, deletes) is never shed. Nothing is remembered of more than `keys_max` keys and tenants: those beyond share one.

    Use it on the event loop's thread only. It works without a service, but then nobody measures memory and lag.
    """

    def __init__(
        self,
        name: str,
        *,
        rate: Rate | None = None,
        key_rate: Rate | None = None,
        concurrency: Concurrency | None = CONCURRENCY,
        memory: Memory | None = MEMORY,
        queue: Queue | None = QUEUE,
        keys_max: int = KEYS_MAX,
        critical_max: int = CRITICAL_MAX,
        parked_max: int = PARKED_MAX,
        rng: random.Random | None = None,
    ) -> None:
        """`name` is what refusals, figures and log lines call it. Raises ValueError for a policy that cannot work."""
        policy = AdmissionPolicy(
            rate=rate,
            key_rate=key_rate,
            concurrency=concurrency,
            memory=memory,
            queue=queue,
            keys_max=keys_max,
            critical_max=critical_max,
            parked_max=parked_max,
        )
        self.name = name
        self._memory = memory
        self._desk = Desk(name, policy, rng or random.Random())
        self._attached = ""

    def __repr__(self) -> str:
        """Show the state, for logs."""
        admitter = self._desk.admitter
        return f"<Admission {self.name}, {admitter.in_flight} under way, {admitter.waiting} waiting, {admitter.parked} parked>"

    @property
    def closed(self) -> bool:
        """Whether its service stops, so that whoever comes gets `Stopping`."""
        return self._desk.gate.closed is not None

    def attach(self, service: Service) -> None:
        """Belong to a service: it measures memory and the lag of the event loop, shows the figures, and stops taking in work.

        From the step that fires the service's stop on, whoever comes or waits gets `Stopping`; what is under way may finish,
        and the drain of the service waits for it. Raises `ConfigurationError` the second time.
        """
        if self._attached:
            msg = f"admission {self.name}: attached to service {self._attached} already; each service needs one of its own"
            raise ConfigurationError(msg)
        self._attached = service.name
        self._desk.gate = service.gate
        self._desk.classifiers = service.classifiers
        meters = Meters(self._desk, self._memory)
        service.show(ShownAdmission(self._desk, meters, service))
        service.on_start(meters.begin)
        service.task(name=f"admission {self.name}")(meters.run)

    def enter(
        self,
        *,
        key: str = "",
        tenant: str = "",
        cost: float = 1.0,
        size_bytes: int = 0,
        deadline_s: float | None = None,
        criticality: Criticality = Criticality.NORMAL,
    ) -> Entry:
        """Return the way in for one piece of work: hold it, with `async with`, while the work is under way.

        `key` is what the rates and shares of keys go by, and `tenant` what those of tenants do: who asks, not what for. `cost`
        is in tokens of the rates; `size_bytes`, what the work will need of memory; `deadline_s`, the seconds after which nobody
        wants it any more; `criticality`, what may be shed for what.

        Entering waits in the queue for at most its time bound, and not beyond the deadline. It raises `Refused`, which says
        when to come back; `TooLargeError` if the work can never come in; `Stopping` while the service stops. A task that comes
        back within 10 ms of its last refusal waits before the next. Cancelled while it waits, it leaves no trace.
        """
        return Entry(self._desk, (key, tenant, cost, size_bytes, deadline_s, criticality))

    def try_enter(
        self,
        *,
        key: str = "",
        tenant: str = "",
        cost: float = 1.0,
        size_bytes: int = 0,
        deadline_s: float | None = None,
        criticality: Criticality = Criticality.NORMAL,
    ) -> Ticket | Refusal:
        """Return a ticket or a refusal, at once: it never waits. The arguments are those of `enter`.

        Whoever gets a ticket releases it, however the work ends: `with ticket:` does. `error(refusal)` is what to raise or to
        answer with. Raises `Stopping` while the service stops.
        """
        desk = self._desk
        if desk.gate.closed is not None:
            desk.stopping()
        return desk.admit(key, tenant, cost, size_bytes, deadline_s, criticality, False)

    def arrive(
        self,
        *,
        key: str = "",
        tenant: str = "",
        cost: float = 1.0,
        size_bytes: int = 0,
        deadline_s: float | None = None,
        criticality: Criticality = Criticality.NORMAL,
    ) -> Ticket | Waiting | Refusal:
        """Return a ticket, a refusal, or a place in the queue to be waited for: `enter` in two steps.

        For a server, which asks before it has made a task for the request and waits in it: a refusal then costs no task. Where
        nobody may wait (`try_enter`) shares are not fair: whoever happens to ask when somebody goes out is let in. Raises
        `Stopping` while the service stops.
        """
        desk = self._desk
        if desk.gate.closed is not None:
            desk.stopping()
        got = desk.admit(key, tenant, cost, size_bytes, deadline_s, criticality, True)
        return Waiting(desk, got) if isinstance(got, Place) else got

    def error(self, refusal: Refusal) -> Refused | TooLargeError:
        """Return the error of a refusal by `try_enter` or `arrive`: its fault, since when this goes on, when to come back."""
        return self._desk.error(refusal)

    def admitted(
        self,
        *,
        key: ByCall[str] = "",
        tenant: ByCall[str] = "",
        cost: ByCall[float] = 1.0,
        size_bytes: ByCall[int] = 0,
        deadline_s: ByCall[float | None] = None,
        criticality: ByCall[Criticality] = Criticality.NORMAL,
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Decorate an async function: each call comes in as by `enter`, and raises as it does.

            @admission.admitted(key=lambda order: order.customer, deadline_s=1.0)
            async def settle(order): ...

        The arguments are those of `enter`, or functions that return them, called with the arguments of each call. Raises
        `ConfigurationError` for what is no async function.
        """

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            async_only(self.name, function)

            @functools.wraps(function)
            async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
                entry = self.enter(
                    key=of_call(key, args, kwargs),
                    tenant=of_call(tenant, args, kwargs),
                    cost=of_call(cost, args, kwargs),
                    size_bytes=of_call(size_bytes, args, kwargs),
                    deadline_s=of_call(deadline_s, args, kwargs),
                    criticality=of_call(criticality, args, kwargs),
                )
                async with entry:
                    return await function(*args, **kwargs)

            return wrapped

        return decorate
