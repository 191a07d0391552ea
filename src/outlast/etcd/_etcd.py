"""etcd as a dependency."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from outlast import Fault, Kind, OutlastError, Scope
from outlast.etcd._asking import Asking
from outlast.etcd._classify import DENIED, NOSPACE, is_stale
from outlast.etcd._errors import EtcdError, LeaseLostError, RangeTooLargeError
from outlast.etcd._gateway import codec
from outlast.etcd._gateway.duplex import Duplex
from outlast.etcd._values import Delete, Put, Range
from outlast.etcd._watching.follow import Following
from outlast.etcd._watching.watch import PATH, Watch
from outlast.extend import attach, size_text
from outlast.http import AnswerTooLargeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from outlast.etcd._gateway.endpoints import Endpoint
    from outlast.etcd._values import Alarm, Compare, EndpointStatus, KeyValue, Op, TxnResult

JSON = dict[str, Any]

PAGE_KEYS: Final = 500
NOT_FOUND: Final = 5
"""The number of gRPC's status for what is not there."""
RANGE_BYTES_MAX: Final = 64 * 2**20
"""The keys and values that one `range` returns at most."""


class Etcd(Asking):
    """An etcd cluster, asked over its JSON gateway (3.4 and later).

        etcd = Etcd("http://127.0.0.1:2379", prefix="shop/")
        mine = await etcd.txn([Compare.absent(b"leader")], [Put(b"leader", b"me", lease=lease)])

    A call raises `Unavailable` at once while etcd is down, `EtcdError` for what etcd refuses, `TimeoutError` past its deadline,
    and what httpx2 raises when a connection fails. **A write is never repeated here**: after an error it is not known whether it
    was done, not even after NOSPACE. Read it again; what was written tells who wrote it.

    **Out of its quota** (NOSPACE) etcd refuses writes, and so it is `DOWN`: those who write wait, or are refused, by the cause
    that says what to do. What needs no room passes all the same, since it is how room is made: reads, watches, deletions,
    transactions without a `Put` (from etcd 3.4.22 and 3.5.6 on), renewals and ends of leases, `compact`, `defragment`, `disarm`.

    Several endpoints are tried in turn: a call goes on to the next one when one cannot be reached; one that answers nothing, or
    is unavailable, is left by the next call. The probe reads a key, by way of the majority, and asks for alarms. A call that
    failed in a way that leaves it open whether others would as well counts against etcd only if that does not pass a probe
    within a second.

    All keys are below `prefix`, in what is asked and what is answered. `watches_max` bounds the watches that are open,
    `connections_max` the calls under way, `range_keys_max` what one `range` returns. `user` and `password` are in no line, error
    or `repr`; a token that is too old is renewed once.
    """

    # Keys.

    async def get(self, key: bytes, *, revision: int = 0, deadline_s: float | None = None) -> KeyValue | None:
        """Return a key as the majority has it, or as it was at a revision; None if it is not there."""
        told = await self._ask("kv/range", self._codec.get(key, revision), deadline_s)
        found = self._codec.read(told).kvs
        return found[0] if found else None

    async def range(
        self,
        prefix: bytes = b"",
        *,
        beyond: bytes = b"",
        limit: int | None = None,
        revision: int = 0,
        count_only: bool = False,
        deadline_s: float | None = None,
    ) -> Range:
        """Return the keys that begin with `prefix`, in their order, all as they were at one revision: now, unless it is given.

        Those behind the key `beyond` alone, if that is given. They are read in pages; `deadline_s` is for each. Without a
        `limit` there may be `range_keys_max` of them and 64 MiB, else `RangeTooLargeError`. `CompactedError` if their revision
        is compacted meanwhile.
        """
        if count_only:
            body = self._codec.range(prefix, beyond=beyond, revision=revision, count_only=True)
            return self._codec.read(await self._ask("kv/range", body, deadline_s))
        kvs: list[KeyValue] = []
        wanted = self.range_keys_max if limit is None else min(limit, self.range_keys_max)
        page, size, count = PAGE_KEYS, 0, 0
        while True:
            body = self._codec.range(prefix, beyond=beyond, limit=min(page, wanted - len(kvs)), revision=revision)
            try:
                found = self._codec.read(await self._ask("kv/range", body, deadline_s))
            except AnswerTooLargeError:
                if page == 1:
                    raise
                page = max(1, page // 8)
                continue
            # The pages behind it are read as they were at the revision of the first.
            revision, count = revision or found.revision, count or found.count
            kvs += found.kvs
            size += sum(len(kv.key) + len(kv.value) for kv in found.kvs)
            if not found.more or len(kvs) >= wanted:
                break
            if size > RANGE_BYTES_MAX:
                raise self._range_too_large(f"{size_text(RANGE_BYTES_MAX)} in {len(kvs)} of {count} keys")
            beyond = found.kvs[-1].key
        if found.more and limit is None:
            raise self._range_too_large(f"{self.range_keys_max} of {count} keys")
        return Range(tuple(kvs), revision, found.more, count)

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = (), *, deadline_s: float | None = None
    ) -> TxnResult:
        """Do `then` if all comparisons hold, else `otherwise`, in one step. That they did not hold is no error.

        One that has a `Put` is never repeated, and refused while etcd is out of its quota. Raises `RequestTooLargeError` before
        it sends anything. Cancelled, or past its deadline, it may have been done.
        """
        needs_room = any(isinstance(op, Put) for op in (*then, *otherwise))
        told = await self._ask("kv/txn", self._codec.txn(compare, then, otherwise), deadline_s, needs_room=needs_room)
        return self._codec.done(told)

    async def put(self, key: bytes, value: bytes, *, lease: int = 0, deadline_s: float | None = None) -> int:
        """Write a key, whatever it was; return the revision."""
        return (await self.txn((), [Put(key, value, lease)], deadline_s=deadline_s)).revision

    async def delete(self, key: bytes, *, is_prefix: bool = False, deadline_s: float | None = None) -> int:
        """Delete a key, or all that begin with it; return how many there were."""
        # By a call of its own: out of their quota, servers before 3.4.22 and 3.5.6 refuse every transaction.
        told = await self._ask("kv/deleterange", self._codec.delete(Delete(key, is_prefix)), deadline_s)
        return codec.number(told, "deleted")

    # Leases.

    async def lease_grant(self, ttl_s: int, *, lease: int = 0, deadline_s: float | None = None) -> int:
        """Return a lease that lives for so many whole seconds without being renewed; its keys end with it. 0: etcd numbers it.

        If the answer is lost, one without a number ends by itself.
        """
        told = await self._ask("lease/grant", {"TTL": str(ttl_s), "ID": str(lease)}, deadline_s, needs_room=True)
        return codec.number(told, "ID")

    async def lease_keepalive(self, lease: int, *, deadline_s: float | None = None) -> int:
        """Renew a lease; return its seconds from now. Raises `LeaseLostError` when it is over."""
        left = codec.number(await self._ask("lease/keepalive", {"ID": str(lease)}, deadline_s), "TTL")
        if left <= 0:
            raise self._lost()
        return left

    async def lease_ttl(self, lease: int, *, deadline_s: float | None = None) -> int:
        """Return the whole seconds that a lease has left. Raises `LeaseLostError` when it is over."""
        left = codec.number(await self._ask("lease/timetolive", {"ID": str(lease)}, deadline_s), "TTL")
        # 0 is less than a second; of one that is over it is -1.
        if left < 0:
            raise self._lost()
        return left

    async def lease_revoke(self, lease: int, *, deadline_s: float | None = None) -> bool:
        """End a lease, and its keys with it; return whether it was still there."""
        try:
            await self._ask("lease/revoke", {"ID": str(lease)}, deadline_s)
        except LeaseLostError:
            return False
        return True

    # Changes.

    @contextlib.asynccontextmanager
    async def watch(self, prefix: bytes = b"", *, after: int, deadline_s: float | None = None) -> AsyncGenerator[Watch]:
        """Watch the keys that begin with `prefix` for a block: their changes after the revision `after`, each once.

            async with etcd.watch(b"jobs/", after=found.revision) as watch:
                async for batch in watch: ...

        `deadline_s` is for its beginning. See `Watch` for how it ends, and `follow` for one that goes on by itself. At most
        `watches_max` are open, each with a connection of its own; beyond that OVERLOADED.
        """
        watch = await self.begin_watch(prefix, after, deadline_s)
        try:
            yield watch
        finally:
            self.end_watch(watch)

    @contextlib.asynccontextmanager
    async def follow(self, prefix: bytes = b"") -> AsyncGenerator[Following]:
        """Keep up with the keys that begin with `prefix` for a block, over outages: their values, then every change.

            async with etcd.follow(b"jobs/") as following:
                async for seen in following: ...

        See `Following`. What may be read at once bounds what can be followed: `range_keys_max`.
        """
        following = Following(self, prefix)
        try:
            yield following
        finally:
            following.end()

    # The cluster.

    async def alarms(self, *, deadline_s: float | None = None) -> tuple[Alarm, ...]:
        """Return the alarms that are on."""
        return codec.alarms(await self._ask("maintenance/alarm", {"action": "GET"}, deadline_s))

    async def status(self, *, deadline_s: float | None = None) -> EndpointStatus:
        """Return what the member that is asked first says of itself: its size for one."""
        return codec.status(await self._ask("maintenance/status", {}, deadline_s))

    async def compact(self, revision: int, *, deadline_s: float | None = None) -> None:
        """Forget what was before a revision, so that its room can be used again. A watch that is behind it reads again."""
        await self._ask("kv/compaction", {"revision": str(revision), "physical": True}, deadline_s)

    async def defragment(self, *, deadline_s: float | None = None) -> None:
        """Make the file of each member as small as what is in it, one after another. A member serves nobody meanwhile."""
        for endpoint in self._endpoints.all:
            await self._ask("maintenance/defragment", {}, deadline_s, to=endpoint)

    async def disarm(self, *, deadline_s: float | None = None) -> int:
        """Take back every NOSPACE alarm; return how many there were. etcd refuses writes until somebody does, room or not."""
        found = [alarm for alarm in await self.alarms(deadline_s=deadline_s) if alarm.name == NOSPACE]
        for alarm in found:
            body = {"action": "DEACTIVATE", "memberID": str(alarm.member_id), "alarm": NOSPACE}
            await self._ask("maintenance/alarm", body, deadline_s)
        return len(found)

    # Inside.

    async def begin_watch(self, prefix: bytes, after: int, deadline_s: float | None = None) -> Watch:
        """Open a watch; whoever does calls `end_watch`. `watch` does both."""
        limit_s = self.timeout_s if deadline_s is None else deadline_s
        if len(self._watches) + self._opening >= self.watches_max:
            text = f"{self.name}: {self.watches_max} watches are open: end some, or raise watches_max"
            raise OutlastError(text, Fault(Kind.OVERLOADED, "too many watches", text, self.name, Scope.CALL))
        self._opening += 1
        try:
            async with self._entering(needs_room=False), self._judging("watch", limit_s):
                watch = await self._begin(prefix, after, limit_s)
        finally:
            self._opening -= 1
        self._watches.add(watch)
        return watch

    def end_watch(self, watch: Watch) -> None:
        """End a watch. May be called again."""
        self._watches.discard(watch)
        watch.end()

    async def _begin(self, prefix: bytes, after: int, limit_s: float) -> Watch:
        """Open a watch by the first member that can be reached; log in once more if the token was too old."""
        try:
            return await self._opened(prefix, after, limit_s)
        except EtcdError as error:
            # Of a watch some versions call a token that they do not know a right that is missing.
            if not (is_stale(error) or DENIED in error.said) or not self._gateway.forget_token():
                raise
        return await self._opened(prefix, after, limit_s)

    async def _opened(self, prefix: bytes, after: int, limit_s: float) -> Watch:
        async with self._gateway.limit(limit_s) as wire:
            headers = await self._gateway.headers(wire)
            epoch = self.epoch
            endpoint, stream = await self._dialled(headers)

            async def failed(exc: Exception) -> Exception:
                if isinstance(exc, OSError):
                    self._endpoints.failed(endpoint)
                error = self._gateway.wires.closed() if watch.is_cut else await self._judged(exc, "watch", self.timeout_s)
                self.report(error, phase="request", epoch=epoch)
                return error

            watch = Watch(
                stream,
                self._codec,
                asked=f"{self.name}: watch",
                after=after,
                epoch=epoch,
                heartbeat_s=self.heartbeat_s,
                failed=failed,
            )
            try:
                await watch.begin(prefix)
            except BaseException:
                watch.end()
                raise
            return watch

    async def _dialled(self, headers: Mapping[str, str]) -> tuple[Endpoint, Duplex]:
        failure: OSError | None = None
        for endpoint in self._endpoints.in_turn():
            await self._gateway.pacer.turn()
            if (refusal := self._refusal()) is not None:
                raise refusal
            try:
                return endpoint, await Duplex.open(endpoint, PATH, headers, self._gateway.tls)
            except OSError as exc:
                self._endpoints.failed(endpoint)
                failure = exc
        assert failure is not None  # noqa: S101 - there is at least one member
        raise failure

    def _lost(self) -> LeaseLostError:
        error = LeaseLostError(f"{self.name}: lease", NOT_FOUND, "requested lease not found")
        attach(error, self.classifiers.classify(error, source=self.name))
        return error

    def _range_too_large(self, read: str) -> RangeTooLargeError:
        text = f"range: read {read}, and there are more: give a limit, and go on with beyond=, or raise range_keys_max"
        return RangeTooLargeError(self.name, text)
