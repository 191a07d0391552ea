"""The way of one body: plan its rows, have made what its tables lack, put them in line, and say what became of them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from outlast import Kind, Stopping, Unavailable
from outlast.tables._model import Parsed, Rows
from outlast.tables._schema.shaping import Flight
from outlast.tables._schema.verdict import RETRY_S, PointsRefusal, later, never, of_row, of_unavailable, waiting
from outlast.tables._writing.line import Group, Item
from outlast.tables._writing.outcomes import Outcomes
from outlast.tables._writing.prepared import prepared
from outlast.tables._writing.writer import ROWS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from outlast.tables._limits import TableLimits
    from outlast.tables._model import Written
    from outlast.tables._schema.catalogue import Catalogue
    from outlast.tables._schema.shaping import Shaper
    from outlast.tables._stores.port import TableStore
    from outlast.tables._writing.line import Line
    from outlast.tables._writing.tally import Tally

ROUNDS: Final = 20
"""A body looks again so often at what its tables lack: what others make or drop meanwhile may want another round."""
UNSYNCED_S: Final = 60.0
"""A body whose sender has its answer is given up after so long."""
STALE_MAX: Final = 3
"""Rows are planned again so often because their table was not as it was known."""


class Desk:
    """All that bodies need on their way. One for each `Tables`."""

    def __init__(
        self,
        store: TableStore,
        catalogue: Catalogue,
        shaper: Shaper,
        line: Line,
        limits: TableLimits,
        tally: Tally,
        now_ns: Callable[[], int],
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self.shaper = shaper
        self.line = line
        self.limits = limits
        self.tally = tally
        self.now_ns = now_ns
        self.unsynced: set[asyncio.Task[None]] = set()
        """Bodies whose senders have their answer already. As the line is bounded, so are they."""

    async def close(self) -> None:
        """Drop what nobody waits for."""
        tasks = list(self.unsynced)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Body:
    """One body on its way."""

    def __init__(self, desk: Desk, parsed: Parsed, *, deadline_s: float, durable: bool) -> None:
        self._desk = desk
        self._parsed = parsed
        self._deadline_s = deadline_s
        self._until = asyncio.get_running_loop().time() + deadline_s
        self._durable = durable
        self._now_ns = desk.now_ns()
        self._stale_left = STALE_MAX
        self._outcomes = Outcomes(parsed)

    def refuse(self, refusal: PointsRefusal) -> Written:
        """Refuse all of it."""
        for rows in self._parsed.rows:
            self._outcomes.refuse(rows.places, refusal)
        return self._outcomes.written(self._desk.tally)

    async def write(self) -> Written:
        """Bring what can be stored to the store, each table without a wait for another."""
        await self._through(self._parsed.rows, ROUNDS)
        return self._outcomes.written(self._desk.tally)

    async def write_whole(self) -> Written:
        """Bring everything to the store in one piece, or nothing if anything is refused."""
        rows, outcomes = self._parsed.rows, self._outcomes
        for _ in range(ROUNDS + STALE_MAX):
            if outcomes:
                break
            groups, lacking = self._planned(rows)
            flights = [self._asked(each)[0] for each in lacking.values()]
            for flight, each in zip(flights, lacking.values(), strict=True):
                refusal = None if flight is None else await self._landed(flight)
                if refusal is not None:
                    self._refuse_lacking(each, refusal)
            if outcomes or lacking:
                continue
            item = Item(groups, whole=True)
            if not groups or await self._stored([item]) or outcomes:
                break
            rows = _restored([*item.groups, *item.stale])
            if (refusal := await self._looked(rows)) is not None:
                outcomes.refuse(rows[0].places, refusal)
        else:
            self._refuse_unsettled(rows)
        return outcomes.none(self._desk.tally) if outcomes else outcomes.written(self._desk.tally)

    # The plan.

    async def _through(self, rows: Sequence[Rows], rounds: int) -> None:
        groups, lacking = self._planned(rows)
        ways: list[Coroutine[Any, Any, None]] = [self._shaped(each, rounds) for each in lacking.values()]
        if groups:
            ways.append(self._in_line(groups, rounds))
        if len(ways) == 1:
            # No task for it: a refusal from memory then costs no turn of the loop.
            await ways[0]
        elif ways:
            await asyncio.gather(*ways)

    def _planned(self, rows: Iterable[Rows]) -> tuple[list[Group], dict[str, list[Rows]]]:
        """Return what can go in line, and by table what cannot yet. What never can is refused."""
        groups: list[Group] = []
        lacking: dict[str, list[Rows]] = {}
        get, outcomes, now_ns, future_s = self._desk.catalogue.get, self._outcomes, self._now_ns, self._desk.limits.future_s
        for each in rows:
            known = get(each.table)
            plan = None if known is None else known.plan(each.fields, each.types)
            if known is None or plan is None or plan.lacks:
                lacking.setdefault(each.table, []).append(each)
            elif plan.conflict:
                outcomes.refuse(each.places, never("type", plan.conflict))
            elif (group := prepared(known, plan, each, outcomes, now_ns, future_s)) is not None:
                groups.append(group)
        return (self._held_back(groups, lacking) if lacking else groups), lacking

    def _held_back(self, groups: list[Group], lacking: dict[str, list[Rows]]) -> list[Group]:
        """Return the groups that need not wait for rows of their table that lack something; the others are put to those.

        Of two points with the same key the later one wins, so those of a key go together.
        """
        free: list[Group] = []
        for group in groups:
            others = lacking.get(group.known.record.name, ())
            keys = {(row[0], self._now_ns if row[1] is None else row[1]) for each in others for row in each.rows}
            if keys and any((row[0], row[1]) in keys for row in group.rows):
                lacking[group.known.record.name] += _restored([group])
            else:
                free.append(group)
        return free

    # What is lacking.

    async def _shaped(self, rows: list[Rows], rounds: int) -> None:
        """Ask for what one table lacks, and go on with its rows."""
        if rounds <= 0:
            self._refuse_unsettled(rows)
            return
        points = sum(len(each.rows) for each in rows)
        if (full := self._desk.line.held_refusal(points)) is not None:
            rows = self._refuse_lacking(rows, full)
        flight, waiting = self._asked(rows)
        with self._desk.line.hold(points):
            refusal = None if flight is None else await self._landed(flight)
        if refusal is not None:
            waiting = self._refuse_lacking(waiting, refusal)
        if waiting:
            await self._through(waiting, rounds - 1)

    def _asked(self, rows: Sequence[Rows]) -> tuple[Flight | None, list[Rows]]:
        """Ask for what one table lacks; return the flight that may bring it, and the rows that wait for it."""
        flight: Flight | None = None
        waiting: list[Rows] = []
        for each in rows:
            known = self._desk.catalogue.get(each.table)
            lacks = (
                dict(zip(each.fields, each.types, strict=True)) if known is None else known.plan(each.fields, each.types).lacks
            )
            if not lacks:
                waiting.append(each)
                continue
            answer = self._desk.shaper.ask(each.table, lacks)
            if isinstance(answer, Flight):
                flight = answer
                waiting.append(each)
            else:
                self._outcomes.refuse(each.places, answer)
        return flight, waiting

    async def _landed(self, flight: Flight) -> PointsRefusal | None:
        """Wait for a flight, but not beyond the deadline; it goes on then."""
        assert flight.task is not None  # noqa: S101 - it is set in the step that made the flight
        await asyncio.wait({flight.task}, timeout=max(0.0, self._until - asyncio.get_running_loop().time()))
        if not flight.task.done():
            return later("not made", f"the table was not made or changed within {self._deadline_s:g} s; that goes on")
        if flight.task.cancelled():
            return later("stopping", "the tables are closed; what waited for its table is not stored", kind=Kind.STOPPING)
        return flight.task.result()

    def _refuse_lacking(self, rows: Sequence[Rows], refusal: PointsRefusal) -> list[Rows]:
        """Refuse rows whose table lacks something still; return the others."""
        left: list[Rows] = []
        for each in rows:
            known = self._desk.catalogue.get(each.table)
            if known is None or known.plan(each.fields, each.types).lacks:
                self._outcomes.refuse(each.places, refusal)
            else:
                left.append(each)
        return left

    def _refuse_unsettled(self, rows: Sequence[Rows]) -> None:
        for each in rows:
            reason = f"table {each.table!r} changes too quickly: it was looked at {ROUNDS} times, and lacked something each time"
            self._outcomes.refuse(each.places, later("not made", reason))

    # The line.

    async def _in_line(self, groups: list[Group], rounds: int) -> None:
        items = _items(groups)
        if self._durable:
            await self._ended(items, rounds)
            return
        try:
            self._desk.line.put(items)
        except Stopping as exc:
            for group in groups:
                self._outcomes.refuse(group.places, _of_error(exc))
            return
        # From here on it is another body, to which nobody listens.
        rest = Body(self._desk, Parsed(), deadline_s=UNSYNCED_S, durable=True)
        task = asyncio.create_task(rest.unsynced(items, rounds), name="outlast tables unsynced")
        self._desk.unsynced.add(task)
        task.add_done_callback(self._desk.unsynced.discard)

    async def unsynced(self, items: list[Item], rounds: int) -> None:
        """See items that are in line to their end, for a sender who has its answer. What cannot be stored is counted."""
        await self._ended(items, rounds, put=False)
        self._desk.tally.lost += self._outcomes.refused

    async def _ended(self, items: list[Item], rounds: int, *, put: bool = True) -> None:
        """Put items in line, unless they are, and wait until they are written. What was stale goes the whole way again."""
        if await self._stored(items, put=put):
            return
        again = _restored([group for item in items for group in item.stale])
        if self._stale_left <= 0:
            self._refuse_unsettled(again)
            return
        self._stale_left -= 1
        if (refusal := await self._looked(again)) is None:
            await self._through(again, rounds)
            return
        for each in again:
            self._outcomes.refuse(each.places, refusal)

    async def _looked(self, rows: Sequence[Rows]) -> PointsRefusal | None:
        """Look how the tables of stale rows are now, and ask for what is not as its record says; return why that fails."""
        desk = self._desk
        try:
            for each in {each.table: each for each in rows}.values():
                known = desk.catalogue.get(each.table)
                before = None if known is None else known.record
                known = desk.catalogue.told(each.table, await desk.store.table(each.table))
                if known is not None and known.record == before:
                    fields = {field: known.types.get(field, value) for field, value in zip(each.fields, each.types, strict=True)}
                    answer = desk.shaper.ask(each.table, fields, mend=True)
                    refusal = await self._landed(answer) if isinstance(answer, Flight) else answer
                    if refusal is not None:
                        return refusal
        except Stopping as exc:
            return _of_error(exc)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer
            return of_unavailable(desk.store.dependency.refusal(exc))
        return None

    async def _stored(self, items: list[Item], *, put: bool = True) -> bool:
        """Put items in line and wait; return whether nothing of them was stale."""
        try:
            if put:
                self._desk.line.put(items)
            async with asyncio.timeout_at(self._until):
                for item in items:
                    await item.done
        except TimeoutError:
            self._late([item for item in items if not item.ended])
        except Stopping as exc:
            for item in items:
                item.end(exc)
        except BaseException:
            for item in items:
                item.given_up = True
            raise
        self._note(items)
        return not any(item.stale for item in items)

    def _late(self, items: list[Item]) -> None:
        """Drop what was not written in time. What the writer has begun may be stored all the same: a repeat does no harm."""
        line = self._desk.line
        if line.trouble is not None:
            fault = waiting(line.trouble, RETRY_S)
        else:
            reason = f"not written within {self._deadline_s:g} s: the store is at a commit, and {line.points} points wait"
            fault = later("deadline", reason).fault
        for item in items:
            item.given_up = True
            self._desk.tally.given_up += item.points
            item.error = Unavailable("tables", fault, 0.0, RETRY_S)

    def _note(self, items: Sequence[Item]) -> None:
        """Note what was refused of items that have ended."""
        for item in items:
            if item.error is not None:
                refusal = _of_error(item.error)
                for group in (*item.groups, *item.stale):
                    self._outcomes.refuse(group.places, refusal)
                item.stale = []
            for places, refusal in item.refused:
                self._outcomes.refuse(places, refusal)


def _of_error(error: Stopping | Unavailable) -> PointsRefusal:
    if isinstance(error, Stopping):
        return later("stopping", str(error), kind=Kind.STOPPING)
    # While the store is away its fault is that of everyone, whatever its kind; else it is that of these points.
    return of_unavailable(error) if error.fault.is_evidence else of_row(waiting(error.fault, error.retry_after_s))


def _items(groups: list[Group]) -> list[Item]:
    """Return groups as items of at most `ROWS_MAX` rows: as many as are committed together. They keep the order of the body."""
    item = Item(groups)
    if item.points <= ROWS_MAX:
        return [item]
    places = sorted(place for group in groups for place in group.places)
    items: list[Item] = []
    begins = [0] * len(groups)
    for last in [*places[ROWS_MAX - 1 :: ROWS_MAX], places[-1]]:
        ends = [bisect_right(group.places, last) for group in groups]
        parts = [group.part(begin, end) for group, begin, end in zip(groups, begins, ends, strict=True) if begin < end]
        if parts:
            items.append(Item(parts))
        begins = ends
    return items


def _restored(groups: Sequence[Group]) -> list[Rows]:
    """Return the rows of groups as they came."""
    for group in groups:
        group.restore()
    return [Rows(group.known.record.name, group.fields, group.types, group.rows, list(group.places)) for group in groups]
