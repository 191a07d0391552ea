"""One seed: a stream on a fake disk, driven against its model through faults, crashes and power cuts; then all is healed."""

from __future__ import annotations

import hashlib
from random import Random
from typing import TYPE_CHECKING, Any

from stream_model import Model, Sent, Violation
from stream_parts import FAULTS, LABELS, PRODUCERS, ROOT, VOLUME, Held, Outcome, demand, draw_meta, raise_if_died

from fake_files import Died, FakeFiles
from outlast.streams._errors import BeyondTailError, DamagedError, OutcomeUnknownError, StreamError, TrimmedError
from outlast.streams._format.names import GONE_NAME, META_NAME, folder_name
from outlast.streams._log import Log, Shared, remove
from outlast.streams._model import Appended, Producer
from outlast.streams._verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class World:
    """Streams of one volume and their models. What is done next, a generator decides; another one decides for the disk."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = Random(seed)  # One seed replays all of it.
        self.files = FakeFiles(Random(seed + 1), capacity_bytes=rng.choice([40_000, 120_000, 1 << 30]))
        self.files.make_folder(ROOT)
        self.lies = rng.random() < 0.1
        self.streams = self.records = 0
        self.now_us = 1_000_000
        self.all: list[Held] = []
        self.trace: list[str] = []
        self.counts: dict[str, int] = {}
        self.reports: list[StreamError] = []
        self.is_over = self.is_healed = False
        self.shared = self.new_shared()

    @property
    def log(self) -> Log:
        return self.held.log

    @property
    def model(self) -> Model:
        return self.held.model

    # The run.

    def run(self) -> None:
        rng = self.rng
        for _ in range(rng.choice([1, 1, 2, 3])):
            self.create()
        for _ in range(rng.randint(20, 50)):
            self.held = rng.choice(self.all)
            if rng.random() < 0.25:
                self.trouble()
            self.step()
            if self.lies and rng.random() < 0.05:
                self.files.lie()
            if self.is_over:
                return
        if self.files.lies:
            self.restart(power_cut=True)
        else:
            self.heal()

    def step(self) -> None:
        do: Callable[[], None] = self.rng.choices(
            [self.append, self.look, self.sync, self.trim, self.release, self.crash, self.close, self.label],
            [60, 12, 8, 6, 3, 10, 0.3, 1],
        )[0]
        self.now_us += self.rng.choice([0, 1, 1000, 10**6])
        try:
            do()
            self.notice_failed_sync()
        except Died:
            self.note("died")
            self.notice_failed_sync()
            self.restart(power_cut=self.rng.random() < 0.6)

    def trouble(self) -> None:
        files, rng = self.files, self.rng
        match rng.randrange(7):
            case 0:
                files.fill(max(0, files.available_bytes - rng.choice([0, 10, 500, 3000])))
            case 1 | 2:
                files.free()
            case 3:
                files.short_writes = rng.choice([0.0, 0.5])
            case 4:
                files.die_after(rng.randint(1, 15))
            case _:
                for _ in range(rng.choice([1, 1, 2, 4])):
                    call, number = rng.choice(FAULTS)
                    files.fail(call, number, times=rng.choice([1, 1, 2, 5]), after=rng.choice([0, 0, 1, 3]))

    # What is done to the stream.

    def create(self) -> None:
        rng = self.rng
        while True:
            self.streams += 1
            meta = draw_meta(rng, self.streams, self.now_us)
            folder = ROOT / folder_name(self.streams)
            if rng.random() < 0.5:
                self.trouble()
            model = Model(meta.oldest, dict(meta.labels))
            first = None
            if rng.random() < 0.3:
                # A small disk must have room for the streams that are to come.
                count = rng.choice([1, 4]) if self.files.capacity_bytes > 100_000 else 1
                first = Sent([self.record() for _ in range(count)], None, None)
            try:
                log = Log.create(folder, meta, self.shared, None if first is None else first.entry())
            except (OSError, Died, OutcomeUnknownError) as error:
                self.note(f"create {type(error).__name__}")
                self.restart(power_cut=True)
                self.files.heal()
                if META_NAME in self.names(folder):
                    demand(not isinstance(error, OSError), "a stream whose creation was refused is there")
                    log = Log.recover(folder, self.shared)
                    stored = [] if log.view.tail == meta.oldest else log.read(meta.oldest).records
                    demand(stored == ([] if first is None else first.records), "a stream is there without its first records")
                    log.delete()
                self.remove(folder)
            else:
                if first is not None:
                    model.sent[first.records[0]] = first
                    model.answered([first], [Appended(meta.oldest, log.view.tail)])
                model.is_closed = meta.is_closed
                model.synced()
                self.held = Held(self.streams, meta.options, model, log)
                self.all.append(self.held)
                self.note("create")
                return

    def append(self) -> None:
        group = [self.draw() for _ in range(self.rng.choice([1, 1, 1, 2, 4]))]
        before = self.log.view.tail
        try:
            answers = self.log.append([sent.entry() for sent in group], self.now_us)
        except (Died, OutcomeUnknownError):
            self.model.unknown(group)
            self.note("append unknown")
            raise_if_died()
        except (OSError, DamagedError) as error:
            demand(self.log.view.tail == before, "a refused append moved the tail")
            self.note(f"append refused {error!r:.30}")
        else:
            self.model.answered(group, answers)
            if self.held.is_synced_each:
                self.model.synced()
            self.note(f"append {answers!r}")
            for sent, answer in zip(group, answers, strict=True):
                if sent.producer is not None and isinstance(answer, Appended):
                    self.held.sequences[sent.producer.id] = (sent.producer.epoch, sent.producer.sequence + 1)
        demand(self.log.view.tail == self.model.tail, f"the tail is {self.log.view.tail}, not {self.model.tail}")

    def draw(self) -> Sent:
        rng = self.rng
        producer = None
        if rng.random() < 0.6:
            name = rng.choice(PRODUCERS)
            if name in self.held.last and rng.random() < 0.4:
                # Most often what was sent last, whose answer may have been lost; now and then much older.
                return self.held.last[name]
            epoch, sequence = self.held.sequences.get(name, (0, 0))
            match rng.randrange(14):
                case 0:
                    epoch, sequence = epoch + 1, 0
                case 1:
                    epoch = max(0, epoch - 1)
                case 2:
                    sequence += 1
                case _:
                    pass
            producer = Producer(name, epoch, sequence)
        closes = rng.random() < 0.015
        records = [self.record() for _ in range(rng.choice([1, 1, 1, 2, 5]))] if not closes or rng.random() < 0.5 else []
        headers = [b'{"n":"%d"}' % index if rng.random() < 0.5 else b"" for index in range(len(records))]
        at = self.model.tail + rng.choice([0, 0, 0, 1]) if rng.random() < 0.1 else None
        sent = Sent(records, headers if rng.random() < 0.3 and any(headers) else None, producer, at, closes)
        if records:
            self.model.sent[records[0]] = sent
        else:
            self.model.closing.append(sent)
        if producer is not None and rng.random() < 0.7:
            self.held.last[producer.id] = sent
        return sent

    def record(self) -> bytes:
        self.records += 1
        size = self.rng.choice([0, 10, 100, 700, 3000])
        return b"%d:" % self.records + bytes([self.records % 251]) * size

    def sync(self) -> None:
        if self.rng.random() < 0.9 and self.held.is_synced_each:
            return
        tail = self.log._tail
        in_doubt = tail.is_ended and tail.synced < tail.size
        try:
            self.log.sync()
        except OSError:
            self.model.sync_failed()
            self.note("sync failed")
        else:
            self.model.synced(in_doubt=in_doubt)
            self.note("sync")

    def trim(self) -> None:
        view = self.log.view
        if self.rng.random() < 0.5:
            count = self.rng.randint(0, 3)
            before = view.segments[min(count, len(view.segments) - 1)].first
            act: Callable[[], None] = lambda: self.log.drop(count)  # noqa: E731 - either of two
        else:
            before = self.rng.randint(view.oldest, view.tail)
            act = lambda: self.log.trim(before)  # noqa: E731 - as above
        before = max(before, view.oldest)
        if self.rng.random() < 0.15:
            self.files.die_after(self.rng.randint(1, 6))
        try:
            act()
        except (Died, OutcomeUnknownError):
            self.model.oldest_maybe.add(before)
            self.note("trim unknown")
            raise_if_died()
        except OSError as error:
            demand(self.log.view.oldest == self.model.oldest, f"a refused trim moved the oldest position: {error!r}")
            self.note("trim refused")
        else:
            self.model.trimmed(before)
            self.note(f"trim {before}")
            demand(self.log.view.oldest == self.model.oldest, "a trim did not move the oldest position")
        demand(self.log.view.tail == self.model.tail, "a trim moved the tail")

    def close(self) -> None:
        try:
            self.log.close()
        except (Died, OutcomeUnknownError):
            self.model.is_closed_maybe = True
            raise_if_died()
        except OSError:
            self.note("close refused")
        else:
            self.model.is_closed, self.model.is_closed_maybe = True, False
            self.model.synced()
            self.note("close")

    def label(self) -> None:
        labels = self.rng.choice([{}, LABELS, {"text": str(self.now_us)}])
        try:
            self.log.label(labels)
        except (Died, OutcomeUnknownError):
            self.model.labels_maybe.append(labels)
            raise_if_died()
        except OSError:
            self.note("label refused")
        else:
            self.model.labelled(labels)
        demand(self.log.meta.labels in [self.model.labels, *self.model.labels_maybe], "labels are seen that nobody has set")

    def release(self) -> None:
        self.log.release()

    def notice_failed_sync(self) -> None:
        """Appends acknowledged before a sync are in doubt once it fails, whoever asked for it: a roll-over, a release."""
        for held in self.all:
            tail = held.log._tail
            if tail.is_ended and tail.synced < tail.size:
                held.model.sync_failed()

    def look(self) -> None:
        """Read from somewhere on, and what is not there."""
        view = self.log.view
        demand((view.oldest, view.tail) == (self.model.oldest, self.model.tail), f"the view is {view.oldest} to {view.tail}")
        try:
            self.model.check(self.read(self.rng.randint(view.oldest, view.tail)), is_whole=False)
        except OSError:
            self.note("read refused")
        for position, error in ((view.oldest - 1, TrimmedError), (view.tail + 1, BeyondTailError)):
            try:
                self.log.read(position)
            except error:
                pass
            else:
                raise Violation(f"position {position} was read")

    def read(self, start: int) -> dict[int, Any]:
        """Return by position the record and its headers, or the error that stands there. Raises OSError."""
        found, position = dict[int, Any](), start
        bytes_max = self.rng.choice([1, 500, 1 << 20])
        while position < (tail := self.log.view.tail):
            try:
                chunk = self.log.read(position, bytes_max)
            except DamagedError as error:
                following = error.next or tail
                found |= dict.fromkeys(range(position, following), error)
            else:
                demand(chunk.first == position < chunk.next <= tail, f"a read at {position} returned {chunk.first}")
                demand(len(chunk.records) == chunk.next - chunk.first, "a chunk has not as many records as it says")
                headers = chunk.headers or [b""] * len(chunk.records)
                found |= dict(enumerate(zip(chunk.records, headers, strict=True), chunk.first))
                following = chunk.next
            demand(following > position, f"a read at {position} did not go on")
            position = following
        return found

    # What happens to the process and the machine.

    def crash(self) -> None:
        self.restart(power_cut=self.rng.random() < 0.5)

    def restart(self, *, power_cut: bool) -> None:
        if power_cut:
            self.files.power_cut()
        else:
            self.files.crash()
        self.note("power cut" if power_cut else "crash")
        if not self.is_healed and self.rng.random() < 0.15:
            self.files.die_after(self.rng.randint(1, 12))
        if self.files.lies and power_cut:
            self.is_over = True
            self.files.heal()
            for held in self.all:
                self.held = held
                self.only_what_was_sent()
            return
        self.shared = self.new_shared()
        waiting = list(self.all)
        for attempt in range(60):
            if not waiting:
                return
            if attempt == 40:
                self.files.heal()
            self.held = waiting[0]
            try:
                if self.is_recovered(power_cut=power_cut):
                    waiting.pop(0)
            except OSError as error:
                self.note(f"recovery failed {error!r:.30}")
            except Died:
                self.note("died in recovery")
                # What was synced by an earlier start need not be asked for again.
                self.restart(power_cut=self.files.lies or self.rng.random() < 0.5 or power_cut)
                return
        raise Violation("recovery does not succeed on a disk that is well")

    def is_recovered(self, *, power_cut: bool) -> bool:
        """Start one stream again, and compare what is found."""
        self.held.log = Log.recover(self.held.folder, self.shared)
        view = self.log.view
        if self.log._refusal is not None:
            # What was found could not be synced: it can be read as far as it is known to be durable.
            self.model.check(self.read(view.oldest), is_whole=False)
            self.note("recovered for reading")
            return False
        producers = {name: (state.epoch, state.sequence) for name, state in self.log.producers.stored.items()}
        self.model.found(view.oldest, view.tail, view.closed, self.read(view.oldest), producers, power_cut=power_cut)
        self.model.found_labels(dict(self.log.meta.labels), power_cut=power_cut)
        self.note(f"recovered {view.oldest} to {view.tail}")
        return True

    def heal(self) -> None:
        """No faults any more: all of it must work, and be the same after a second start."""
        self.files.heal()
        self.is_healed = True
        self.restart(power_cut=self.rng.random() < 0.5)
        self.files.capacity_bytes = 1 << 30
        for held in self.all:
            self.held = held
            self.model.check(self.read(self.model.oldest), is_whole=True)
            if not self.model.is_closed:
                fresh = Sent([self.record()], None, None)
                self.model.answered([fresh], self.log.append([fresh.entry()], self.now_us))
                self.log.sync()
                self.model.synced()
        self.restart(power_cut=True)
        first = self.contents()
        self.restart(power_cut=True)
        demand(self.contents() == first, "a second start changed what is on the disk")
        self.clear()
        self.files.crash()
        found = verify(VOLUME, files=self.files)
        self.restart(power_cut=True)
        was_lost = any(held.model.shaky[1] or held.model.holes for held in self.all)
        # An index that a roll-over has made which then failed, and that could not be removed either, is made again: a hint.
        reports = [error for error in self.reports if "the index: it is of the positions" not in str(error)]
        findings = [each for each in found.findings if each.what != "it does not fit its segment"]
        demand(not reports or was_lost, f"damage was reported: {reports[:1]}")
        demand(not findings or was_lost, f"verify finds {[(each.segment, each.what) for each in findings[:2]]}")
        if not was_lost:
            self.held = self.rng.choice(self.all)
            for _ in range(4):
                self.flip()
            self.restart(power_cut=True)
        for held in self.all:
            self.held = held
            self.delete()
        self.clear()
        self.files.power_cut()
        demand(not self.files.tree(ROOT), f"something is left of deleted streams: {sorted(self.files.tree(ROOT))}")

    def flip(self) -> None:
        """Turn one bit over somewhere: no wrong byte is served, and what is elsewhere can be read."""
        folder = self.held.folder
        # Reading makes indexes, so it comes first.
        segments, whole = self.log.view.segments, self.read(self.log.view.oldest)
        before = {name: self.files.read(folder / name) for name in sorted(self.files.names(folder))}
        name = self.rng.choice([name for name, data in before.items() if data])
        self.files.flip(folder / name, self.rng.randrange(8 * len(before[name])))
        self.note(f"flip {name}")
        self.files.crash()
        self.shared = self.new_shared()
        self.held.log = Log.recover(folder, self.shared)
        found = self.read(self.log.view.oldest)
        for place, segment in enumerate(segments):
            behind = segments[place + 1].first if place + 1 < len(segments) else self.model.tail
            for position in range(max(segment.first, self.model.oldest), behind):
                each = found.get(position)
                # The last append cannot be told from one that was torn.
                is_last = position >= self.model.log[-1].first or self.model.is_closed
                is_allowed = segment.path.endswith(name) and (isinstance(each, DamagedError) or (each is None and is_last))
                demand(is_allowed or each == whole[position], f"after a flip position {position} has {each!r:.60}")
        for other, data in before.items():
            self.files.put(folder / other, data)
        self.files.crash()
        self.shared = self.new_shared()
        self.held.log = Log.recover(folder, self.shared)

    def contents(self) -> dict[str, bytes | None]:
        """All but indexes, which reading makes."""
        return {path: data for path, data in self.files.tree(ROOT).items() if ".idx" not in path}

    def delete(self) -> None:
        folder = self.held.folder
        self.log.delete()
        self.files.power_cut()
        self.shared = self.new_shared()
        demand(META_NAME not in self.names(folder), "a deleted stream is there again")
        self.remove(folder)
        self.files.power_cut()

    def only_what_was_sent(self) -> None:
        """The disk has lied: records may be lost, but none may be one that was never sent."""
        self.shared = self.new_shared()
        try:
            self.held.log = Log.recover(self.held.folder, self.shared)
            found = self.read(self.log.view.oldest)
        except (OSError, DamagedError):
            return
        sent = {record for each in self.model.sent.values() for record in each.records}
        wrong = [each for each in found.values() if not isinstance(each, Exception) and each[0] not in sent]
        demand(not wrong, f"bytes were read that nobody had sent: {wrong[:1]!r:.60}")

    # Small things.

    def names(self, folder: Path) -> list[str]:
        try:
            return self.files.names(folder)
        except FileNotFoundError:
            return []

    def clear(self) -> None:
        """Do as a start does with folders that are no stream's."""
        for name in self.names(ROOT):
            if META_NAME not in self.names(ROOT / name):
                self.remove(ROOT / name)

    def remove(self, folder: Path) -> None:
        """Do as the next start does with a folder that is no stream's."""
        if folder.name in self.files.names(ROOT):
            names = self.files.names(folder)
            demand(
                GONE_NAME in names or not any(name.endswith(".log") for name in names) or "new" in names, f"an orphan: {names}"
            )
            remove(folder, self.files)
            self.files.sync_folder(ROOT)

    def new_shared(self) -> Shared:
        return Shared(files=self.files, report=self.reports.append, readers_max=2, writers_max=2)

    def note(self, text: str) -> None:
        self.trace.append(text)
        words = text.split("[", maxsplit=1)[0].split("OSError", maxsplit=1)[0].split()
        kind = " ".join(word for word in words if not any(map(str.isdigit, word)))
        self.counts[kind] = self.counts.get(kind, 0) + 1


def run_seed(seed: int) -> Outcome:
    """Run one seed. An exception that is none of the disk's is a finding too."""
    world, violation = World(seed), ""
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
        violation = f"{type(error).__name__}: {error}"
    digest = hashlib.sha256("\n".join([*world.trace, violation, repr(world.files.tree())]).encode()).hexdigest()
    return Outcome(seed, digest[:16], violation, world.counts, world.trace)
