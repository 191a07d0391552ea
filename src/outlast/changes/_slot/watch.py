"""The state of a replication slot: from samples to a state, and to a warning that comes once and before it is too late.

Pure: samples with their times in, reports out.

    UNKNOWN     not looked at yet, or not lately
    OK          the consumer keeps up
    LAGGING     the consumer is behind
    ENDANGERED  the server is about to remove WAL that the slot needs, or to give up a slot that nobody uses (PostgreSQL 18)
    LOST        it did, or the slot is gone: nothing can be streamed from it any more

`RULES` is the table of transitions. The states live as long as the process that watches.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from outlast.postgres.sessions import Session

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
IDLE_BYTES: Final = 64 * KIB
"""The WAL that an idle server writes between two confirmations of a consumer that has nothing to confirm."""
BURST: Final = 4.0 * MIB
"""Bytes a second that a server must be expected to write from one look to the next, however quiet it was: what a bulk
load writes on a small machine. Only slots with a limit below 320 MiB are looked at more often because of it."""
SAMPLES_MAX: Final = 256
"""Positions that are remembered. When there are more, every second one of the older half is forgotten."""
RECENT: Final = 4
"""Samples that the newest rates are taken from; together with those of `WINDOW_S` seconds, and the higher one counts."""
WINDOW_S: Final = 60.0
"""A slot's restart position moves in steps, some 15 s apart: this is four of them."""
LOOKS: Final = 8.0
"""The number of looks in the time in which a consumer that stopped would lose its slot."""
LOOK_S_MIN: Final = 0.5


class SlotState(enum.Enum):
    """The states of a slot; see the head of this file."""

    UNKNOWN = "unknown"
    OK = "ok"
    LAGGING = "lagging"
    ENDANGERED = "endangered"
    LOST = "lost"


class Evidence(enum.Flag):
    """The facts that one sample shows."""

    NOTHING = 0
    NOT_YET_CAUGHT_UP = enum.auto()
    """The lag is above its leaving threshold."""
    BEHIND = enum.auto()
    """The lag is above its entering threshold."""
    NOT_YET_SAFE = enum.auto()
    NEAR_LOSS = enum.auto()
    GONE = enum.auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """A state is entered on any of `enters`, and kept on any of `keeps` when the state was one of `kept_from`."""

    state: SlotState
    enters: Evidence
    keeps: Evidence = Evidence.NOTHING
    kept_from: frozenset[SlotState] = frozenset()


RULES: Final = (
    Rule(SlotState.LOST, Evidence.GONE),
    Rule(SlotState.ENDANGERED, Evidence.NEAR_LOSS, Evidence.NOT_YET_SAFE, frozenset({SlotState.ENDANGERED})),
    Rule(
        SlotState.LAGGING,
        Evidence.BEHIND,
        Evidence.NOT_YET_CAUGHT_UP,
        frozenset({SlotState.LAGGING, SlotState.ENDANGERED}),
    ),
)
"""The worst first; the first that applies is the new state, and OK if none does. UNKNOWN is entered when a look fails."""


def next_state(state: SlotState, evidence: Evidence) -> SlotState:
    """Return the state after a sample that says `evidence`."""
    for rule in RULES:
        if evidence & rule.enters or (state in rule.kept_from and evidence & rule.keeps):
            return rule.state
    return SlotState.OK


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds for a warning, and for all being well again: each pair is (enter, leave).

    A slot is endangered when it has used `share[0]` of what the server keeps for it and would lose the rest within
    `loss_s[0]` seconds at the present rate, or when it has used `share_max[0]` of it at any rate. It no longer is
    when both are below their second values. The same holds for the time that it may be left unused, where that has a limit.
    Bytes and seconds of lag each count for themselves.
    """

    lag_s: tuple[float, float] = (60.0, 20.0)
    lag_bytes: tuple[int, int] = (GIB, GIB // 4)
    loss_s: tuple[float, float] = (600.0, 1200.0)
    share: tuple[float, float] = (0.5, 0.35)
    share_max: tuple[float, float] = (0.9, 0.8)

    def __post_init__(self) -> None:
        """Raise ValueError for a pair that would flap."""
        for name in ("lag_s", "lag_bytes", "share", "share_max"):
            enter, leave = getattr(self, name)
            if not 0 <= leave <= enter:
                msg = f"{name} is left at {leave}, which must be between 0 and {enter}, where it is entered"
                raise ValueError(msg)
        if not 0 <= self.loss_s[0] <= self.loss_s[1]:
            msg = f"loss_s is entered at {self.loss_s[0]} s, which must be between 0 and {self.loss_s[1]} s, where it is left"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's answer about the slot. Positions and sizes are bytes."""

    at: float
    """The time of the answer, on a clock that never goes back, in seconds."""
    wal: int
    """The position at which the server writes."""
    confirmed: int | None = None
    """Up to where the consumer has everything."""
    restart: int | None = None
    """From where the server has to keep WAL for the slot."""
    wal_status: str | None = None
    """reserved, extended, unreserved or lost. None: there is no such slot."""
    safe_bytes: int | None = None
    """`safe_wal_size`: what may still be written before WAL of the slot is removed. None: there is no limit."""
    limit_bytes: int | None = None
    """The most that the server keeps for a slot. None: there is no limit."""
    invalidation: str | None = None
    holder: Session | None = None
    standbys: int | None = None
    """Sessions that wait to take over. None: not known."""
    idle_s: float | None = None
    """For how long nobody has used it (PostgreSQL 17). None: somebody does, or it is not known."""
    idle_limit_s: float | None = None
    """`idle_replication_slot_timeout`, after which the server invalidates it (PostgreSQL 18). None: there is no limit."""

    @property
    def idle_left_s(self) -> float | None:
        """Seconds until the server invalidates it if nobody uses it. None: never."""
        return None if self.idle_limit_s is None else max(0.0, self.idle_limit_s - (self.idle_s or 0.0))


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the slot, with its figures."""

    state: SlotState
    announced: SlotState | None
    """The state before this report, where the change is news for somebody; None when there is no news."""
    sample: Sample
    lag_bytes: int
    lag_s: float
    lag_s_is_least: bool
    """Whether the lag is older than the watch, and so at least `lag_s`."""
    retained_bytes: int
    wal_rate: float
    """The WAL that the server writes, in bytes a second."""
    growth_rate: float
    """By how much what is retained grows, in bytes a second; the higher of the newest and the long rate. Never negative."""
    loss_s: float | None
    """Seconds until the slot is lost, if it goes on like this. None: never, or not to be seen. 0: any time now."""

    @property
    def lost_by_idleness(self) -> bool:
        """Whether it is being unused that loses the slot first."""
        return self.sample.idle_s is not None and self.loss_s is not None and self.loss_s == self.sample.idle_left_s

    def look_again_s(self, every_s: float) -> float:
        """Return the seconds until the next look: `every_s`, or fewer where a consumer that stops would lose its slot soon."""
        if self.state is SlotState.LOST:
            return every_s
        left_s = [] if self.sample.idle_left_s is None else [self.sample.idle_left_s]
        if self.sample.safe_bytes is not None:
            left_s.append(self.sample.safe_bytes / max(BURST, self.wal_rate))
        return min([every_s, *(max(LOOK_S_MIN, each / LOOKS) for each in left_s)])


class SlotWatch:
    """The memory of the samples of one slot, bounded to some 256 of them."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self.thresholds = thresholds or Thresholds()
        self.state = SlotState.UNKNOWN
        self.announced = SlotState.OK
        """The state that was reported last; OK before the first report."""
        self._samples: list[Sample] = []

    def missed(self) -> None:
        """Record that the server could not be asked. It is no news: that is the server's own incident."""
        self.state = SlotState.UNKNOWN

    def take(self, sample: Sample) -> Report:
        """Take a sample that is newer than the last one; return how the slot is doing and whether that is news."""
        if self._samples and (sample.wal < self._samples[-1].wal or sample.at <= self._samples[-1].at):
            # Another server, or another timeline of this one: what was before is no measure for it.
            self._samples.clear()
        self._remember(sample)
        lag_s, is_least = self._lag_s(sample)
        lag_bytes = _distance(sample.wal, sample.confirmed)
        wal_rate, growth_rate = self._rates(sample)
        loss_s = _loss_s(sample, growth_rate)
        evidence = self._danger(sample, loss_s) | self._lag(sample, lag_bytes, lag_s)
        # What is not known now was known before: a look that failed is no reason to warn again, or to forget a warning.
        before = self.announced if self.state is SlotState.UNKNOWN else self.state
        self.state = next_state(before, evidence)
        news = self.announced if self.state is not self.announced else None
        self.announced = self.state
        retained = _distance(sample.wal, sample.restart)
        if sample.idle_s is not None:
            loss_s = _sooner(loss_s, sample.idle_left_s)
        return Report(self.state, news, sample, lag_bytes, lag_s, is_least, retained, wal_rate, growth_rate, loss_s)

    def _remember(self, sample: Sample) -> None:
        self._samples.append(sample)
        if len(self._samples) > SAMPLES_MAX:
            half = SAMPLES_MAX // 2
            self._samples[:half] = self._samples[:half:2]

    def _lag_s(self, sample: Sample) -> tuple[float, bool]:
        """Return how long ago the server wrote what the consumer has confirmed last, and whether it is longer than known."""
        confirmed = sample.confirmed
        if confirmed is None or confirmed >= sample.wal:
            return 0.0, False
        before: Sample | None = None
        for each in self._samples:
            if each.wal >= confirmed:
                if before is None:
                    return sample.at - each.at, each.wal > confirmed
                share = (confirmed - before.wal) / (each.wal - before.wal)
                return sample.at - (before.at + share * (each.at - before.at)), False
            before = each
        return 0.0, False

    def _rates(self, sample: Sample) -> tuple[float, float]:
        window = [each for each in self._samples if sample.at - each.at <= WINDOW_S]
        firsts = [each for each in (window[0], *window[-RECENT:][:1]) if each.at < sample.at]
        wal = [(sample.wal - first.wal) / (sample.at - first.at) for first in firsts]
        growth = [
            (_distance(sample.wal, sample.restart) - _distance(first.wal, first.restart)) / (sample.at - first.at)
            for first in firsts
            if first.restart is not None
        ]
        return max(wal, default=0.0), max(0.0, *growth, 0.0)

    def _danger(self, sample: Sample, loss_s: float | None) -> Evidence:
        if sample.wal_status is None or sample.wal_status == "lost" or sample.invalidation is not None:
            return Evidence.GONE
        if sample.wal_status == "unreserved":
            return Evidence.NEAR_LOSS | Evidence.NOT_YET_SAFE
        used: list[tuple[float, float | None]] = []
        if sample.safe_bytes is not None:
            # Not of the limit: the server keeps whole files, up to twice a small limit.
            retained = _distance(sample.wal, sample.restart)
            used.append((retained / max(1, retained + sample.safe_bytes), loss_s))
        if sample.idle_s is not None and sample.idle_limit_s is not None:
            used.append((sample.idle_s / sample.idle_limit_s, sample.idle_left_s))
        wanted, evidence = self.thresholds, Evidence.NOTHING
        for flag, place in ((Evidence.NEAR_LOSS, 0), (Evidence.NOT_YET_SAFE, 1)):
            for share, left_s in used:
                soon = left_s is not None and left_s <= wanted.loss_s[place] and share >= wanted.share[place]
                if soon or share >= wanted.share_max[place]:
                    evidence |= flag
        return evidence

    def _lag(self, sample: Sample, lag_bytes: int, lag_s: float) -> Evidence:
        if sample.holder is not None and lag_bytes <= IDLE_BYTES:
            lag_s = 0.0
        evidence = Evidence.NOTHING
        for flag, place in ((Evidence.BEHIND, 0), (Evidence.NOT_YET_CAUGHT_UP, 1)):
            if lag_bytes >= max(1, self.thresholds.lag_bytes[place]) or lag_s > self.thresholds.lag_s[place]:
                evidence |= flag
        return evidence


def _distance(wal: int, position: int | None) -> int:
    return 0 if position is None else max(0, wal - position)


def _loss_s(sample: Sample, rate: float) -> float | None:
    """Return the seconds until WAL that the slot needs is removed; None: never, or not to be seen."""
    if sample.wal_status in {None, "lost"}:
        return 0.0
    if sample.safe_bytes is None:
        return None
    if sample.safe_bytes <= 0:
        return 0.0
    return sample.safe_bytes / rate if rate > 0 else None


def _sooner(first_s: float | None, second_s: float | None) -> float | None:
    return min((each for each in (first_s, second_s) if each is not None), default=None)
