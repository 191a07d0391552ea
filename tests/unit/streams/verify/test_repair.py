"""Repairs: nothing that is whole is lost, what is lost is said, no position has two contents, a second one finds nothing."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import replace
from functools import cache
from random import Random
from typing import TYPE_CHECKING

import pytest
from verify_rig import NAMES, RECORDS, Volume, folder_of, record

from fake_faults import Died
from outlast.streams._format.batches import encode_batch
from outlast.streams._format.frames import salt_of
from outlast.streams._format.index import Index, decode_index, encode_index
from outlast.streams._format.meta import SLOT_BYTES
from outlast.streams._model import Appended, Entry, Producer

if TYPE_CHECKING:
    from collections.abc import Callable

    from outlast.streams._verify import Report


@cache
def whole() -> dict[str, bytes | None]:
    return Volume().tree()


def path_of(name: str) -> str:
    return f"{folder_of(1)}/{name}"


def change(volume: Volume, name: str, at: int, data: bytes = b"\xff\xff\xff") -> None:
    """Overwrite bytes of a file; a negative offset counts from its end."""
    old = volume.files.read(path_of(name))
    at = at % len(old)
    volume.files.put(path_of(name), old[:at] + data + old[at + len(data) :])


def cut(volume: Volume, name: str, size: int) -> None:
    volume.files.put(path_of(name), volume.files.read(path_of(name))[:size])


def remove(volume: Volume, name: str) -> None:
    volume.files.unlink(path_of(name))
    volume.files.sync_folder(folder_of(1))


def batches_of(volume: Volume, name: str) -> list[int]:
    """The offsets at which batches begin in a segment, by their magic."""
    data = volume.files.read(path_of(name))
    return [at for at in range(1, len(data)) if data.startswith(b"\xa9OLS", at)]


def middle(volume: Volume, segments: list[str]) -> None:
    change(volume, segments[1], batches_of(volume, segments[1])[2] + 50)


def two_in_one(volume: Volume, segments: list[str]) -> None:
    places = batches_of(volume, segments[1])
    change(volume, segments[1], places[1] + 50)
    change(volume, segments[1], places[3] + 4)


def first_batch(volume: Volume, segments: list[str]) -> None:
    change(volume, segments[2], batches_of(volume, segments[2])[0] + 9)


def end(volume: Volume, segments: list[str]) -> None:
    change(volume, segments[1], -1)


def header(volume: Volume, segments: list[str]) -> None:
    change(volume, segments[1], 40)


def first_header(volume: Volume, segments: list[str]) -> None:
    change(volume, segments[0], 4)


def header_and_first_batch(volume: Volume, segments: list[str]) -> None:
    header(volume, segments)
    change(volume, segments[1], batches_of(volume, segments[1])[0] + 9)


def neighbours(volume: Volume, segments: list[str]) -> None:
    end(volume, segments)
    change(volume, segments[2], 40)
    change(volume, segments[3], batches_of(volume, segments[3])[1] + 12)


def closed_cut(volume: Volume, segments: list[str]) -> None:
    cut(volume, segments[1], batches_of(volume, segments[1])[2])


def closed_empty(volume: Volume, segments: list[str]) -> None:
    cut(volume, segments[1], 0)


def missing(volume: Volume, segments: list[str]) -> None:
    remove(volume, segments[2])


def missing_before_a_damaged_header(volume: Volume, segments: list[str]) -> None:
    remove(volume, segments[2])
    change(volume, segments[3], 40)


def missing_behind_a_cut(volume: Volume, segments: list[str]) -> None:
    end(volume, segments)
    remove(volume, segments[2])


def oldest_missing(volume: Volume, segments: list[str]) -> None:
    remove(volume, segments[0])


def last_middle(volume: Volume, segments: list[str]) -> None:
    change(volume, segments[-1], batches_of(volume, segments[-1])[0] + 50)


def last_header(volume: Volume, segments: list[str]) -> None:
    change(volume, segments[-1], 40)


def last_header_and_first_batch(volume: Volume, segments: list[str]) -> None:
    last_header(volume, segments)
    last_middle(volume, segments)


def last_all(volume: Volume, segments: list[str]) -> None:
    volume.files.put(path_of(segments[-1]), bytes(len(volume.files.read(path_of(segments[-1])))))


def torn(volume: Volume, segments: list[str]) -> None:
    cut(volume, segments[-1], -3)


def meta_gone(volume: Volume, segments: list[str]) -> None:
    remove(volume, "meta")


def meta_both(volume: Volume, segments: list[str]) -> None:
    change(volume, "meta", 100)
    change(volume, "meta", SLOT_BYTES + 7)


def meta_first(volume: Volume, segments: list[str]) -> None:
    change(volume, "meta", 100)


def meta_longer(volume: Volume, segments: list[str]) -> None:
    volume.files.put(path_of("meta"), volume.files.read(path_of("meta")) + b"x")


def meta_of_another(volume: Volume, segments: list[str]) -> None:
    volume.files.put(path_of("meta"), volume.files.read(f"{folder_of(2)}/meta"))


def no_header_at_all(volume: Volume, segments: list[str]) -> None:
    meta_both(volume, segments)
    for name in segments:
        change(volume, name, 40)


def index_empty(volume: Volume, segments: list[str]) -> None:
    volume.files.put(path_of(segments[0].replace(".log", ".idx")), b"")


def index_behind_the_end(volume: Volume, segments: list[str]) -> None:
    data = encode_index(Index(0, 9, 9999, 5, (0, 8), (400, 5000)), salt_of(1, 0))
    volume.files.put(path_of(segments[0].replace(".log", ".idx")), data)


def index_with_a_wrong_offset(volume: Volume, segments: list[str]) -> None:
    path = path_of(segments[0].replace(".log", ".idx"))
    index = decode_index(volume.files.read(path), salt_of(1, 0))
    volume.files.put(path, encode_index(replace(index, offsets=(index.offsets[0] + 1,)), salt_of(1, 0)))


def index_of_no_segment(volume: Volume, segments: list[str]) -> None:
    volume.files.put(path_of(f"{7777:020d}.idx"), b"whatever")


ALL: list[Callable[[Volume, list[str]], None]] = [
    middle,
    two_in_one,
    first_batch,
    end,
    header,
    first_header,
    header_and_first_batch,
    neighbours,
    closed_cut,
    closed_empty,
    missing,
    missing_before_a_damaged_header,
    missing_behind_a_cut,
    oldest_missing,
    last_middle,
    last_header,
    last_header_and_first_batch,
    last_all,
    torn,
    meta_gone,
    meta_both,
    meta_first,
    meta_longer,
    meta_of_another,
    no_header_at_all,
    index_empty,
    index_behind_the_end,
    index_with_a_wrong_offset,
    index_of_no_segment,
]
damages = pytest.mark.parametrize("damage", ALL, ids=lambda damage: damage.__name__)


def damaged(damage: Callable[[Volume, list[str]], None], rng: Random | None = None) -> Volume:
    volume = Volume(whole(), rng)
    segments = volume.names(1, ".log")
    assert len(segments) > 5
    damage(volume, segments)
    return volume


def lost(report: Report) -> set[int]:
    return {each for finding in report.findings for each in range(finding.position, finding.next)}


def of_last() -> set[int]:
    """The records of the last segment: nobody can tell how many were in it once it is gone."""
    return set(range(int(Volume(whole()).names(1, ".log")[-1][:20]), RECORDS))


def check_is_whole(volume: Volume, may_be_lost: set[int], *, is_torn: bool = False) -> None:
    """All records but those are there, what is gone is refused, the rest of the store is unmoved, and life goes on."""
    for stream_id in NAMES:
        log = volume.recover(stream_id)
        records = volume.records(log)
        assert records == {at: record(stream_id, at) for at in records}
        missing = set(range(RECORDS)) - records.keys()
        assert missing <= (may_be_lost if stream_id == 1 else set())
        # No position is given out a second time.
        tail = log.view.tail
        assert tail >= RECORDS - 3 * is_torn
        last = log.producers.states()[0].sequence if len(log.producers) else -1
        retry = Producer("p", 0, last)
        if last >= 0:
            assert log.append([Entry([b"again"], None, retry)], 10**6) == [log.producers.check(retry, 0)]
        assert log.append([Entry([b"new"], None, Producer("p", 0, last + 1))], 10**6) == [Appended(tail, tail + 1)]
        again = volume.recover(stream_id)
        assert volume.records(again) == {**records, tail: b"new"}
    assert volume.verify().is_healthy


@damages
def test_a_repair_keeps_what_is_whole_and_the_second_finds_nothing(damage: Callable[[Volume, list[str]], None]) -> None:
    volume = damaged(damage)
    before = volume.tree()
    found = volume.verify()
    assert volume.tree() == before
    assert found.findings
    assert all(finding.repair for finding in found.findings)
    repaired = volume.verify(repair=True)
    assert {(each.segment, each.position, each.next, each.what) for each in repaired.findings} == {
        (each.segment, each.position, each.next, each.what) for each in found.findings
    }
    assert all(finding.is_repaired for finding in repaired.findings)
    after = volume.tree()
    assert volume.verify().findings == ()
    assert volume.verify(repair=True).findings == ()
    assert volume.tree() == after
    may_be_lost = lost(found) | (of_last() if damage in {last_all, torn} else set())
    check_is_whole(volume, may_be_lost, is_torn=damage is torn)


@damages
@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.long)])
def test_a_repair_that_a_power_cut_ends_anywhere_is_ended_by_the_next(
    damage: Callable[[Volume, list[str]], None], rounds: int
) -> None:
    reference = damaged(damage)
    may_be_lost = lost(reference.verify(repair=True)) | (of_last() if damage in {last_all, torn} else set())
    calls = sum(reference.files.calls.values())
    rng = Random(calls)
    for _ in range(rounds):
        volume = damaged(damage, rng)
        volume.files.die_after(rng.randrange(calls))
        with contextlib.suppress(Died):
            volume.verify(repair=True)
        volume.files.power_cut()
        assert all(finding.repair for finding in volume.verify(repair=True).findings)
        assert volume.verify().findings == ()
        check_is_whole(volume, may_be_lost, is_torn=damage is torn)


@pytest.mark.parametrize("call", ["rename", "sync", "unlink"])
@pytest.mark.parametrize(
    "damage", [two_in_one, neighbours, header, last_all, no_header_at_all], ids=lambda damage: damage.__name__
)
def test_a_repair_that_fails_anywhere_loses_nothing_more(damage: Callable[[Volume, list[str]], None], call: str) -> None:
    may_be_lost = lost(damaged(damage).verify()) | (of_last() if damage is last_all else set())
    for after in range(40):
        volume = damaged(damage)
        failure = volume.files.fail(call, errno.EIO, after=after)
        report = volume.verify(repair=True)
        assert any("the repair was not ended" in finding.what for finding in report.findings) == bool(failure.hits)
        if not failure.hits:
            break
        volume.files.heal()
        volume.files.power_cut()
        volume.verify(repair=True)
        assert volume.verify().findings == ()
        check_is_whole(volume, may_be_lost)
    else:
        pytest.fail("it never came to an end")


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_was_refused_and_could_not_be_cut_off_is_never_taken_for_records(*, is_damaged: bool) -> None:
    volume = Volume(whole())
    first, second = volume.names(1, ".log")[:2]
    data, position = volume.files.read(path_of(first)), int(second[:20])
    place = {"salt": salt_of(1, 0), "offset": len(data), "durable_to": len(data), "first": position}
    refused = encode_batch([Entry([b"refused"])], **place, time_us=1)
    volume.files.put(path_of(first), data + b"".join(refused.pieces))
    assert volume.verify().is_healthy
    if is_damaged:
        # Now nothing says any more where the data of the first one ends.
        change(volume, second, 40)
    findings = volume.verify(repair=True).findings
    assert [(finding.segment, finding.next - finding.position) for finding in findings] == [(second, 0)] * is_damaged
    check_is_whole(volume, set())


def test_bytes_that_are_no_batch_are_kept_beside_the_segment() -> None:
    volume = damaged(two_in_one)
    name = volume.names(1, ".log")[1]
    before = volume.files.read(path_of(name))
    places = [*batches_of(volume, name), len(before)]
    volume.verify(repair=True)
    kept = {each: volume.files.read(path_of(each)) for each in volume.names(1, ".damaged")}
    assert kept == {f"{name[:20]}.{places[at]}.damaged": before[places[at] : places[at + 1]] for at in (1, 3)}


def test_a_whole_volume_has_no_findings_and_is_counted() -> None:
    report = Volume(whole()).verify(repair=True)
    assert report.is_healthy
    assert (report.streams, report.records, report.is_running) == (2, 2 * RECORDS, False)
    assert report.segments == sum(name.endswith(".log") for name in whole())
    assert report.size_bytes == sum(len(data or b"") for name, data in whole().items() if name.endswith(".log"))
