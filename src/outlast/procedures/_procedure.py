"""The declaration of a procedure: its steps in order, their undos, and its migrations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, overload

from outlast import Backoff, Dependency
from outlast.extend import NotJsonError, to_json
from outlast.procedures._errors import InvalidProcedureError
from outlast.procedures._names import KIND_CHARS_MAX, check_name, check_step_name, seen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from outlast.procedures._run import RecordedStep, Run, StepOutcome

    StepFunction: TypeAlias = "Callable[[Run], Awaitable[Any]]"
    UndoFunction: TypeAlias = "Callable[[Run, StepOutcome], Awaitable[None]]"
    Migration: TypeAlias = "Callable[[list[RecordedStep]], list[RecordedStep]]"
    U = TypeVar("U", bound=UndoFunction)
    M = TypeVar("M", bound=Migration)

STEPS_MAX: Final = 100
ATTEMPTS_LIMIT: Final = 1_000
VERSION_MAX: Final = 2**31 - 1
TIMEOUT_S_MAX: Final = 30 * 86_400.0
SECONDS_MAX: Final = 100 * 365.25 * 86_400
"""A hundred years, of a sleep or a wait: sums of them stay within the range of every store."""
DEFAULT_BYTES_MAX: Final = 64 * 1024
"""Of the default of a wait: as much as a signal may carry."""
BACKOFF: Final = Backoff(base_s=1.0, cap_s=60.0, factor=2.0)
"""Between two attempts at a step: up to 1, 2, 4 ... 60 s, each time half of it at least."""
UNDO_ATTEMPTS_MAX: Final = 20
"""With `BACKOFF` they take between six minutes and thirteen."""


class Step:
    """A step that is a function of the user's. It may be called as that function. Made by `Procedure.step`."""

    def __init__(self, function: StepFunction, name: str, attempts_max: int, timeout_s: float | None) -> None:
        """All of it is checked by the procedure."""
        self.function: Final = function
        self.name: Final = name
        self.attempts_max: Final = attempts_max
        self.timeout_s: Final = timeout_s
        self.undoing: Undo | None = None
        self._sealed = False

    def __call__(self, run: Run) -> Awaitable[Any]:
        """Call the function."""
        return self.function(run)

    def __repr__(self) -> str:
        return f"Step({self.name!r})"

    @overload
    def undo(self, function: U, /) -> U: ...
    @overload
    def undo(self, /, *, attempts_max: int = ..., timeout_s: float | None = None) -> Callable[[U], U]: ...
    def undo(
        self, function: U | None = None, /, *, attempts_max: int = UNDO_ATTEMPTS_MAX, timeout_s: float | None = None
    ) -> U | Callable[[U], U]:
        """Declare the function that takes back what the step did, when a later one fails or the procedure is cancelled.

        It is called with the outcome of the step too: where that is not known (`outcome.known`), it has to find out. Like the
        step it may be called more than once, each time with the same idempotency key. One that fails is tried `attempts_max`
        times in all, by the procedure's backoff; then the procedure is dead, and its fault says which steps are not undone.
        `timeout_s`: of one attempt; None: that of the step. Raises `InvalidProcedureError`, if there is one already too.
        """

        def declare(function: U) -> U:
            what = f"the undo of step {self.name!r}"
            if self.undoing is not None or self._sealed:
                said = "is declared twice" if self.undoing is not None else "is declared after the procedure came into use"
                msg = f"{what} {said}"
                raise InvalidProcedureError(msg)
            limit_s = self.timeout_s if timeout_s is None else _seconds(f"timeout_s of {what}", timeout_s, TIMEOUT_S_MAX)
            self.undoing = Undo(_asynchronous(what, function), _attempts(what, attempts_max), limit_s)
            return function

        return declare if function is None else declare(function)

    def seal(self) -> None:
        """Take no undo from now on."""
        self._sealed = True


@dataclass(frozen=True, slots=True)
class Undo:
    """The undo of a step."""

    function: UndoFunction
    attempts_max: int
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class SleepStep:
    """A step that waits for a time."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WaitStep:
    """A step that waits for the signal of its own name."""

    name: str
    timeout_s: float | None
    default_json: str | None
    """The result after the time-out; None: it fails then."""


AnyStep: TypeAlias = Step | SleepStep | WaitStep


class _NoDefault:
    """The default of a wait that has none."""

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final = _NoDefault()


class Procedure:
    """A procedure of several steps: what is done for a key, in order. Each step is recorded when it is done.

    A step runs *at least* once: a runner that dies in it leaves it to the next one, which calls it with the same
    `run.idempotency_key`. The result of the procedure is that of its last step.

    - `name`: the kind of its records: 1 to 100 characters.
    - `version`: of its steps, from 1. It is recorded, and with it the names of the steps that were begun: where those do not fit
      the code that goes on, nothing runs until the old code is back, or `migrate` maps them.
    - `attempts_max`: of a step, unless it says otherwise: 1 to 1,000. `backoff`: between them.
    - `timeout_s`: of one attempt at a step, unless it says otherwise; None: no limit.
    - `needs`: dependencies without which it cannot do: while one is down nothing of this kind is begun.

    Raises `InvalidProcedureError`.
    """

    def __init__(
        self,
        name: str,
        *,
        version: int = 1,
        attempts_max: int = 5,
        backoff: Backoff = BACKOFF,
        timeout_s: float | None = None,
        needs: Sequence[Dependency] | Dependency = (),
    ) -> None:
        """Begin without steps; `step`, `sleep` and `wait` add them in the order of their calls."""
        self.name: Final = check_name("the name of a procedure", name, KIND_CHARS_MAX)
        self._what = f"procedure {name!r}"
        self.version: Final = _whole(f"version of {self._what}", version, VERSION_MAX)
        self.attempts_max: Final = _attempts(self._what, attempts_max)
        _instance(f"backoff of {self._what}", backoff, Backoff)
        self.backoff: Final = backoff
        self.timeout_s: Final = None if timeout_s is None else _seconds(f"timeout_s of {self._what}", timeout_s, TIMEOUT_S_MAX)
        self.needs: Final = (needs,) if isinstance(needs, Dependency) else tuple(needs)
        for each in self.needs:
            _instance(f"what {self._what} needs", each, Dependency)
        self.steps: Sequence[AnyStep] = ()
        self.migrations: dict[int, Migration] = {}
        self._sealed = False

    def __repr__(self) -> str:
        return f"Procedure({self.name!r}, version={self.version}, steps={[step.name for step in self.steps]})"

    @overload
    def step(self, function: StepFunction, /) -> Step: ...
    @overload
    def step(
        self, /, *, name: str = "", attempts_max: int | None = None, timeout_s: float | None = None
    ) -> Callable[[StepFunction], Step]: ...
    def step(
        self,
        function: StepFunction | None = None,
        /,
        *,
        name: str = "",
        attempts_max: int | None = None,
        timeout_s: float | None = None,
    ) -> Step | Callable[[StepFunction], Step]:
        """Add a step: an `async def` that takes a `Run` and returns JSON, its result.

        Its name is that of the function, unless `name` says otherwise: 1 to 100 characters, no colon, used once in a procedure.
        Raises `InvalidProcedureError`.
        """

        def declare(function: StepFunction) -> Step:
            called = name or str(getattr(function, "__name__", ""))
            what = f"step {called!r} of {self._what}"
            attempts = self.attempts_max if attempts_max is None else _attempts(what, attempts_max)
            limit_s = self.timeout_s if timeout_s is None else _seconds(f"timeout_s of {what}", timeout_s, TIMEOUT_S_MAX)
            step = Step(
                _asynchronous(what, function), check_step_name(f"the name of a step of {self._what}", called), attempts, limit_s
            )
            self._add(step)
            return step

        return declare if function is None else declare(function)

    def sleep(self, name: str, seconds: float) -> None:
        """Add a step that waits for so many seconds, over restarts too, and holds no slot. Raises `InvalidProcedureError`."""
        called = check_step_name(f"the name of a sleep of {self._what}", name)
        self._add(SleepStep(called, _seconds(f"seconds of sleep {called!r} of {self._what}", seconds, SECONDS_MAX)))

    def wait(self, name: str, *, timeout_s: float | None, default: Any = NO_DEFAULT) -> None:  # noqa: ANN401 - anything that is JSON
        """Add a step that waits for the signal `name`; its result is the payload of the signal. It holds no slot meanwhile.

        `timeout_s` counts from when the step is first recorded, over restarts too; None: no limit. After it the result is
        `default`; without one the step fails, REJECTED "no signal". Raises `InvalidProcedureError`.
        """
        called = check_step_name(f"the name of a wait of {self._what}", name)
        what = f"wait {called!r} of {self._what}"
        limit_s = None if timeout_s is None else _seconds(f"timeout_s of {what}", timeout_s, SECONDS_MAX)
        self._add(WaitStep(called, limit_s, None if default is NO_DEFAULT else _json(f"the default of {what}", default)))

    def migrate(self, *, from_version: int) -> Callable[[M], M]:
        """Declare the function that maps the recorded steps of a version to those of the next one.

        It is given the steps that are done, and last the one that was begun, and returns them as the next version has them. From
        an older version those of all versions between are called in order, where there are any. It must be pure: it may be called
        again for one record. Raises `InvalidProcedureError`.
        """
        version = _whole(f"from_version of a migration of {self._what}", from_version, VERSION_MAX)

        def declare(function: M) -> M:
            self._open_for(f"a migration from version {version}")
            if version >= self.version or version in self.migrations:
                said = "is declared twice" if version in self.migrations else f"is not from before version {self.version}"
                msg = f"the migration of {self._what} from version {version} {said}"
                raise InvalidProcedureError(msg)
            self.migrations[version] = function
            return function

        return declare

    def seal(self) -> None:
        """Take no further steps: records are about to be run by these. Raises `InvalidProcedureError` if there are none."""
        if not self.steps:
            msg = f"{self._what} has no steps: declare at least one with @procedure.step"
            raise InvalidProcedureError(msg)
        self._sealed = True
        for step in self.steps:
            if isinstance(step, Step):
                step.seal()

    def _add(self, step: AnyStep) -> None:
        self._open_for(f"step {step.name!r}")
        if any(step.name == each.name for each in self.steps):
            msg = f"{self._what} has two steps named {step.name!r}: results and idempotency keys go by the name"
            raise InvalidProcedureError(msg)
        if len(self.steps) == STEPS_MAX:
            msg = f"{self._what} has {STEPS_MAX} steps already, the limit: {step.name!r} is one more"
            raise InvalidProcedureError(msg)
        self.steps = (*self.steps, step)

    def _open_for(self, what: str) -> None:
        if self._sealed:
            msg = f"{what} of {self._what} is declared after the procedure came into use"
            raise InvalidProcedureError(msg)


def _asynchronous(what: str, function: Any) -> Any:  # noqa: ANN401 - it may be anything before it is checked
    if not inspect.iscoroutinefunction(function):
        msg = f"{what} must be an `async def`, not {seen(function)}: call blocking code in it by asyncio.to_thread"
        raise InvalidProcedureError(msg)
    return function


def _instance(what: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        msg = f"{what} must be an outlast.{kind.__name__}, not {seen(value)}"
        raise InvalidProcedureError(msg)


def _whole(what: str, value: object, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    msg = f"{what} must be a whole number from 1 to {most}, not {seen(value)}"
    raise InvalidProcedureError(msg)


def _attempts(what: str, value: object) -> int:
    return _whole(f"attempts_max of {what}", value, ATTEMPTS_LIMIT)


def _seconds(what: str, value: object, most: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most:
        return float(value)
    msg = f"{what} must be above 0 seconds and at most {most:g}, not {seen(value)}"
    raise InvalidProcedureError(msg)


def _json(what: str, value: object) -> str:
    try:
        return to_json(value, DEFAULT_BYTES_MAX)
    except NotJsonError as error:
        msg = f"{what} must be JSON of at most {DEFAULT_BYTES_MAX} bytes, not {seen(value)}: {error}"
        raise InvalidProcedureError(msg) from None
