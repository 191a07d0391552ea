"""What every adapter promises: one suite, and a rig for each adapter that says how its peer is broken and looked at.

An adapter takes part by a class beside its rig:

    class TestMyAdapter(AdapterContract):
        @pytest.fixture
        def rig(self) -> Rig: ...

What has no sessions, a disk for one, takes part by the same promises but for those about sessions: with `PlainContract` and a
`PlainRig`, of which the others are made.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from outlast import Dependency, Fault, Kind, Scope, State, Unavailable
from outlast.extend import attached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

DIALS = 12
SPACING_S = 0.0125


class Failure(NamedTuple):
    """How one call is made to fail, and what that is to be called."""

    call: Callable[[Any], Awaitable[object]]
    kind: Kind
    scope: Scope


class PlainRig(abc.ABC):
    """One adapter before a peer of the test's own. `refuse`, `freeze` and `heal` concern everyone who uses the peer."""

    secret: str
    """Something of the adapter's configuration, or of what it is used for, that nobody may ever see."""
    frozen = "timeout"
    """The code of a peer that answers nothing."""

    @abc.abstractmethod
    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test, within a limit."""

    @abc.abstractmethod
    def adapter(self) -> Any:
        """Make an adapter whose configuration holds `secret`, with deadlines of less than a second where they can be set."""

    @abc.abstractmethod
    async def call(self, adapter: Any) -> None:
        """Ask the peer for something short."""

    @abc.abstractmethod
    def failures(self) -> Mapping[str, Failure]:
        """What single calls can meet while the peer serves others, by name."""

    @abc.abstractmethod
    def refuse(self) -> None:
        """Let the peer refuse everyone, and end the sessions there are."""

    @abc.abstractmethod
    def freeze(self) -> None:
        """Let the peer take everything and answer nothing."""

    @abc.abstractmethod
    def heal(self) -> None:
        """Let the peer be well again."""

    def held(self) -> int:
        """How many sessions of ours the peer has."""
        return 0


class Rig(PlainRig):
    """One adapter whose peer has sessions."""

    dialled: Sequence[float]
    """When each session began to be dialled, on the event loop's clock."""

    @abc.abstractmethod
    def session(self, adapter: Any) -> AbstractAsyncContextManager[Any]:
        """Open a session of one's own for a block; it has `epoch`."""

    @abc.abstractmethod
    async def use(self, session: Any) -> None:
        """Ask the peer for something short over that session."""

    @abc.abstractmethod
    async def slow(self, adapter: Any) -> None:
        """Ask the peer for something that takes it longer than the deadline, while it answers others."""

    @abc.abstractmethod
    def held(self) -> int:
        """How many sessions of ours the peer has."""

    @abc.abstractmethod
    def working(self) -> int:
        """On how many slow calls of ours the peer works."""

    def sockets(self) -> int:
        """How many sockets this process has open, the peer's own side included."""
        count = 0
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                count += str(each.readlink()).startswith("socket:")
        return count


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def down(rig: PlainRig, adapter: Dependency) -> BaseException:
    """Use the peer until its outage is known; return what the one who found out was told.

    Not always the first who fails: that the peer answered a moment ago is taken for an answer by those who wonder.
    """
    while True:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
            await rig.call(adapter)
        if adapter.state is State.DOWN:
            return caught.value


def fault_of(error: BaseException) -> Fault:
    """The fault of an error, or of the first cause that a refusal names."""
    fault = error.fault if isinstance(error, Unavailable) else attached(error)
    assert fault is not None, error
    return fault


@pytest.mark.expected_logs
class PlainContract:
    """The promises of every adapter. A subclass has the fixture `rig`."""

    def test_each_failure_says_its_kind_and_whom_it_concerns(self, rig: PlainRig) -> None:
        async def main() -> None:
            adapter = rig.adapter()
            for name, failure in rig.failures().items():
                with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
                    await failure.call(adapter)
                fault = fault_of(caught.value)
                assert (fault.kind, fault.scope, fault.source) == (failure.kind, failure.scope, adapter.name), name
                assert fault.code, name
                assert fault.reason, name
                assert adapter.state is State.UP, f"{name} takes nobody else down"
                await rig.call(adapter)
            await adapter.close()
            rig.refuse()
            fault = fault_of(await down(rig, adapter))
            assert (fault.kind, fault.scope) == (Kind.TRANSIENT, Scope.DEPENDENCY)
            assert adapter.fault is not None, "the first cause"
            await adapter.close()

        rig.run(main)

    def test_a_probe_passes_fails_and_hangs_within_its_limit(self, rig: PlainRig) -> None:
        async def main() -> None:
            adapter = rig.adapter()
            await adapter.probe()
            await adapter.look()
            assert adapter.state is State.UP
            assert adapter.fault is None, "a probe that passes changes nothing"
            for breaks, code in ((rig.refuse, None), (rig.freeze, rig.frozen)):
                breaks()
                await adapter.look()
                assert adapter.state is State.DOWN
                assert adapter.last.scope is Scope.DEPENDENCY
                assert code in {None, adapter.last.code}
                rig.heal()
                await adapter.ready()
                assert adapter.state is not State.DOWN
            await adapter.close()

        rig.run(main)

    def test_a_probe_that_is_cancelled_is_no_evidence_and_leaves_nothing(self, rig: PlainRig) -> None:
        async def main() -> None:
            adapter = rig.adapter()
            rig.freeze()
            probing = asyncio.create_task(adapter.probe())
            await asyncio.sleep(0.05)
            probing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probing
            assert adapter.state is State.UP
            assert adapter.fault is None
            rig.heal()
            await until(lambda: rig.held() == 0)
            await adapter.probe()
            await adapter.close()

        rig.run(main)

    def test_what_is_secret_is_in_no_name_error_or_line(self, rig: PlainRig, caplog: pytest.LogCaptureFixture) -> None:
        said: list[str] = []

        async def main() -> None:
            adapter = rig.adapter()
            said.extend((repr(adapter), str(adapter), adapter.name))
            for failure in rig.failures().values():
                with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
                    await failure.call(adapter)
                said.append(f"{caught.value!r} {caught.value} {fault_of(caught.value)}")
            rig.refuse()
            error = await down(rig, adapter)
            said.extend((f"{error!r} {error} {fault_of(error)}", f"{adapter.unavailable()!r} {adapter.health}"))
            await adapter.close()

        with caplog.at_level("DEBUG"):
            rig.run(main)
        assert len(said) > 4
        assert rig.secret not in "\n".join([*said, caplog.text])

    @pytest.mark.parametrize("trouble", ["well", "refusing", "frozen"])
    def test_close_ends_everything_and_may_be_called_again(self, rig: Any, trouble: str) -> None:
        async def main() -> None:
            adapter = rig.adapter()
            await adapter.open()
            await rig.call(adapter)
            if trouble != "well":
                (rig.refuse if trouble == "refusing" else rig.freeze)()
                await adapter.look()
                assert adapter.state is State.DOWN
            waiting = asyncio.create_task(adapter.ready())
            await adapter.close()
            await adapter.close()
            waiting.cancel()
            await asyncio.wait({waiting})
            rig.heal()
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            await adapter.open()
            await adapter.ready()
            await rig.call(adapter)
            await adapter.close()

        rig.run(main)


@pytest.mark.expected_logs
class AdapterContract(PlainContract):
    """The promises of an adapter whose peer has sessions. A subclass has the fixture `rig`."""

    def test_a_session_is_of_its_epoch_and_ends_with_it(self, rig: Rig) -> None:
        async def main() -> None:
            adapter = rig.adapter()
            async with rig.session(adapter) as old:
                assert old.epoch == adapter.epoch
                await rig.use(old)
                rig.refuse()
                await down(rig, adapter)
                rig.heal()
                await adapter.ready()
                assert adapter.epoch > old.epoch
                async with rig.session(adapter) as new:
                    assert new.epoch == adapter.epoch
                    await rig.use(new)
                    with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
                        await rig.use(old)
                    adapter.report(caught.value, epoch=old.epoch)
                    assert adapter.state is not State.DOWN, "what happened to an older session is no news"
                    await rig.use(new)
            await adapter.close()

        rig.run(main)

    def test_sessions_are_dialled_one_after_another(self, rig: Rig) -> None:
        async def main() -> None:
            adapter = rig.adapter()

            async def one() -> None:
                async with rig.session(adapter) as session:
                    await rig.use(session)

            await asyncio.gather(*(one() for _ in range(DIALS)))
            await adapter.close()

        rig.run(main)
        gaps = [later - earlier for earlier, later in zip(rig.dialled, rig.dialled[1:], strict=False)]
        assert len(gaps) >= DIALS - 1
        assert min(gaps) >= SPACING_S - 1e-6

    def test_a_call_past_its_deadline_counts_against_the_peer_only_if_that_answers_nobody(self, rig: Rig) -> None:
        async def main() -> None:
            adapter = rig.adapter()
            with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
                await rig.slow(adapter)
            fault = fault_of(caught.value)
            assert (fault.kind, fault.code, fault.scope) == (Kind.TRANSIENT, "timeout", Scope.CALL)
            assert adapter.state is State.UP
            await rig.call(adapter)
            rig.freeze()
            fault = fault_of(await down(rig, adapter))
            assert fault.scope is Scope.DEPENDENCY
            await adapter.close()
            rig.heal()

        rig.run(main)

    @pytest.mark.parametrize("trouble", ["well", "refusing", "frozen"])
    def test_close_ends_everything_and_may_be_called_again(self, rig: Rig, trouble: str) -> None:
        async def main() -> None:
            sockets, adapter = rig.sockets(), rig.adapter()
            async with rig.session(adapter) as session:
                await rig.use(session)
                await rig.call(adapter)
                calling = asyncio.create_task(rig.slow(adapter))
                await until(lambda: rig.working() == 1)
                if trouble != "well":
                    (rig.refuse if trouble == "refusing" else rig.freeze)()
                    await adapter.look()
                    assert adapter.state is State.DOWN
                waiting = asyncio.create_task(adapter.ready())
                await adapter.close()
                await adapter.close()
                waiting.cancel()
                calling.cancel()
                await asyncio.wait({waiting, calling})
            rig.heal()
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            await until(lambda: rig.held() == rig.working() == 0)
            await until(lambda: rig.sockets() <= sockets)
            await adapter.open()
            await adapter.ready()
            await rig.call(adapter)
            await adapter.close()

        rig.run(main)

    @pytest.mark.parametrize("given_up_by", ["cancel", "deadline"])
    def test_what_is_given_up_here_ends_at_the_peer(self, rig: Rig, given_up_by: str) -> None:
        async def main() -> None:
            adapter = rig.adapter()
            calling = asyncio.create_task(rig.slow(adapter))
            await until(lambda: rig.working() == 1)
            if given_up_by == "cancel":
                calling.cancel()
            await asyncio.wait({calling})
            assert calling.cancelled() or calling.exception() is not None
            await until(lambda: rig.working() == 0)
            assert adapter.state is State.UP, "a cancellation is no evidence"
            await rig.call(adapter)
            await adapter.close()

        rig.run(main)
