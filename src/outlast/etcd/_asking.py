"""The way of every call to etcd: in, the judgement of what fails, the probe."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpx2

from outlast import Classifiers, ConfigurationError, Dependency, Fault, Scope, State, Stopping, Unavailable
from outlast.etcd._classify import DENIED, EXHAUSTED, NOSPACE, etcd_rule, needs_second_look
from outlast.etcd._errors import EtcdError
from outlast.etcd._gateway import codec
from outlast.etcd._gateway.calls import Gateway
from outlast.etcd._gateway.codec import Codec
from outlast.etcd._gateway.endpoints import Endpoints
from outlast.extend import attach, attached, size_text
from outlast.http import AnswerError, http_rule

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import AsyncGenerator, Sequence

    from outlast import HealthPolicy
    from outlast.etcd._gateway.endpoints import Endpoint
    from outlast.etcd._values import Alarm
    from outlast.etcd._watching.watch import Watch

JSON = dict[str, Any]

ASK_S_MAX: Final = 1.0
"""The time in which etcd has to answer a probe, or a failed call counts against it; a good answer holds for the same time."""
MEMBER_S_MIN: Final = 0.2
"""The time that a probe has for each of several members, at least."""
ANSWERS_OTHERS: Final = "etcd answers others"
PROBE_KEY: Final = b"outlast/probe"
"""A key below the prefix that is read, and need not be there."""


class Asking(Dependency):
    """A cluster that may be asked. `Etcd` has the questions."""

    def __init__(
        self,
        endpoints: str | Sequence[str] = "http://127.0.0.1:2379",
        *,
        name: str = "",
        user: str = "",
        password: str = "",
        prefix: str | bytes = b"",
        timeout_s: float = 5.0,
        connect_timeout_s: float = 2.0,
        heartbeat_s: float = 0.75,
        connections_max: int = 10,
        watches_max: int = 16,
        range_keys_max: int = 20_000,
        tls: ssl.SSLContext | None = None,
        policy: HealthPolicy | None = None,
        classifiers: Classifiers | None = None,
        rng: random.Random | None = None,
        waiters_max: int = 10_000,
    ) -> None:
        """Nothing is dialled before the first use. Raises `ConfigurationError` for an endpoint or a number that cannot work.

        `endpoints` are URLs (http or https), or one text with commas between. `timeout_s` is the deadline of a call,
        `heartbeat_s` the silence of a watch after which it is asked whether it is there. `tls` is for https; without, the
        authorities that httpx2 knows are trusted.
        """
        self._endpoints = Endpoints(endpoints)
        super().__init__(
            name or self._endpoints.current.place,
            classifiers=(classifiers or Classifiers()).also(Classifiers([etcd_rule, http_rule])),
            policy=policy,
            rng=rng,
            waiters_max=waiters_max,
            probe_timeout_s=connect_timeout_s,
        )
        _check(self.name, (connections_max, watches_max, range_keys_max), (timeout_s, connect_timeout_s, heartbeat_s))
        if bool(user) is not bool(password):
            msg = f"{self.name}: user and password are given together, or neither"
            raise ConfigurationError(msg)
        self.timeout_s = timeout_s
        self.heartbeat_s = heartbeat_s
        self.watches_max = watches_max
        self.range_keys_max = range_keys_max
        self._codec = Codec(prefix.encode() if isinstance(prefix, str) else prefix, self.name)
        self._gateway = Gateway(
            self.name,
            self._endpoints,
            login=(user, password) if user else None,
            tls=tls,
            connections_max=connections_max,
            waiters_max=waiters_max,
            connect_timeout_s=connect_timeout_s,
            refusal=self._refusal,
        )
        self._probe_s = connect_timeout_s
        self._watches: set[Watch] = set()
        self._opening = 0
        """Watches that are being opened."""
        self.subscribe(self._on_change)

    @property
    def is_full(self) -> bool:
        """Whether it is out of its quota: `DOWN` for those who write, while reads and deletions pass."""
        return not self.passable and self.last is not None and self.last.code == NOSPACE

    # What the runtime calls.

    async def probe(self) -> None:
        """Read a key by way of the majority, and ask for alarms; of the members in turn, the first that serves is enough."""
        members = self._endpoints.in_turn()
        limit_s = self._probe_s if len(members) == 1 else max(MEMBER_S_MIN, ASK_S_MAX / len(members))
        failure: Exception | None = None
        for endpoint in members:
            try:
                alarms = await self._probed(endpoint, limit_s)
            except TimeoutError:
                failure = TimeoutError(f"{self.name}: probe: no answer within {limit_s:g} s")
            except (httpx2.TransportError, EtcdError, AnswerError) as exc:
                failure = exc
            else:
                self._endpoints.answered(endpoint)
                for alarm in alarms:
                    said = "database space exceeded" if alarm.name == NOSPACE else "corrupt cluster"
                    raise EtcdError(f"{self.name}: probe", EXHAUSTED, f"the alarm {alarm.name} is on: {said}")
                return
        assert failure is not None  # noqa: S101 - there is at least one member
        raise failure

    async def circumstances(self, fault: Fault) -> str:
        """Return how large the file is that is out of its quota."""
        if fault.code != NOSPACE:
            return ""
        told = await self._gateway.ask_as_probe("maintenance/status", {}, ASK_S_MAX, self._endpoints.current)
        found = codec.status(told)
        return f"its file has {size_text(found.db_size_bytes)}, {size_text(found.db_in_use_bytes)} of that in use"

    async def close(self) -> None:
        """End every call, watch and connection; a member that stands still is not waited for."""
        for watch in self._watches:
            watch.cut()
        await self._gateway.close()
        await super().close()

    # For the questions.

    async def _ask(
        self, path: str, body: JSON, deadline_s: float | None, *, needs_room: bool = False, to: Endpoint | None = None
    ) -> JSON:
        limit_s = self.timeout_s if deadline_s is None else deadline_s
        async with self._entering(needs_room=needs_room), self._judging(path, limit_s):
            return await self._gateway.ask(path, body, limit_s, to=to)

    @contextlib.asynccontextmanager
    async def _entering(self, *, needs_room: bool) -> AsyncGenerator[None]:
        """Pass, or raise `Unavailable`; what needs no room passes while etcd is out of its quota."""
        if needs_room or not self.is_full:
            async with self.use("request"):
                yield
            return
        epoch = self.epoch
        try:
            yield
        except (Unavailable, Stopping):
            raise
        except Exception as exc:
            # It is down already. That it now fails in another way decides who passes from here on.
            self.report(exc, phase="request", epoch=epoch)
            raise

    @contextlib.asynccontextmanager
    async def _judging(self, asked: str, deadline_s: float) -> AsyncGenerator[None]:
        """Attach the fault to what leaves the block, after a second look where it is needed."""
        try:
            yield
        except (Unavailable, Stopping):
            raise
        except Exception as exc:
            error = await self._judged(exc, asked, deadline_s)
            if error is exc:
                raise
            raise error from None

    async def _judged(self, exc: Exception, asked: str, deadline_s: float) -> Exception:
        error = exc
        if type(exc) is TimeoutError and not exc.args:
            error = TimeoutError(f"{self.name}: {asked}: no answer within {deadline_s:g} s")
        if (given := attached(error)) is not None:
            attach(error, replace(given, source=self.name))
            return error
        fault = self.classifiers.classify(error, source=self.name, phase="request")
        unreached = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        if needs_second_look(fault) and not unreached and self.passable and not self.is_stopping:
            closings = self._gateway.wires.closings
            answers = await self.answers(ASK_S_MAX)
            if closings != self._gateway.wires.closings:
                # The probe was ended by our own close, so it says nothing.
                return self._gateway.wires.closed()
            if answers:
                fault = replace(fault, scope=Scope.CALL, hint=fault.hint or ANSWERS_OTHERS)
        attach(error, fault)
        return error

    # Inside.

    async def _probed(self, endpoint: Endpoint, limit_s: float) -> tuple[Alarm, ...]:
        try:
            await self._gateway.ask_as_probe("kv/range", self._codec.get(PROBE_KEY), limit_s, endpoint)
        except EtcdError as error:
            # It knows us well enough to say no.
            if DENIED not in error.said:
                raise
        return codec.alarms(await self._gateway.ask_as_probe("maintenance/alarm", {"action": "GET"}, limit_s, endpoint))

    def _refusal(self) -> Exception | None:
        return None if self.passable or self.is_full else self.unavailable()

    def _on_change(self, state: State, fault: Fault | None) -> None:
        if state is not State.DOWN or (fault is not None and fault.code == NOSPACE):
            return
        self._gateway.slots.refuse(self.unavailable)
        self._gateway.wires.retire()


def _check(name: str, limits: tuple[int, ...], seconds: tuple[float, ...]) -> None:
    """Raise `ConfigurationError` for a number that cannot work."""
    if min(limits) < 1:
        msg = f"{name}: connections_max, watches_max and range_keys_max are at least 1, not {min(limits)}"
        raise ConfigurationError(msg)
    for each in seconds:
        if not 0 < each < math.inf:
            msg = f"{name}: timeout_s, connect_timeout_s and heartbeat_s are finite seconds above 0, not {each}"
            raise ConfigurationError(msg)
