"""One flipped bit in a segment that has a successor, in an index or in a meta: found, never a wrong byte, and mended."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from verify_rig import NAMES, RECORDS, Volume, folder_of

PLACES = [pytest.param(40, 1), pytest.param(1000, 2, marks=pytest.mark.long)]


@cache
def whole() -> dict[str, bytes | None]:
    return Volume().tree()


def targets() -> list[str]:
    """The files of the first stream that nothing is written to any more, but for the meta."""
    names = Volume(whole()).names(1)
    segments = [name for name in names if name.endswith(".log")]
    assert len(segments) > 4
    return [name for name in names if name != segments[-1]]


def chosen(count: int, rng: Random) -> list[tuple[str, int]]:
    """Places of all kinds of files, each as likely as its bits are many; but no kind less than an eighth."""
    volume, found = Volume(whole()), []
    for kind, least in ((".log", 0), (".idx", count // 8), ("meta", count // 8)):
        files = [(name, len(volume.files.read(f"{folder_of(1)}/{name}")) * 8) for name in targets() if name.endswith(kind)]
        share = least or count - 2 * (count // 8)
        names = rng.choices([name for name, _ in files], [bits for _, bits in files], k=share)
        found += [(name, rng.randrange(dict(files)[name])) for name in names]
    return found


@pytest.mark.parametrize(("count", "seed"), PLACES)
def test_each_flipped_bit_is_found_and_never_makes_a_wrong_record(count: int, seed: int) -> None:
    volume = Volume(whole())
    everything = {stream_id: volume.records(volume.recover(stream_id)) for stream_id in NAMES}
    assert [len(records) for records in everything.values()] == [RECORDS, RECORDS]
    places = chosen(count, Random(seed))
    for name, bit in places:
        volume = Volume(damaged(name, bit))
        # By a reader: the record is refused (a batch), or the damage is said and nothing is missing (all else).
        log = volume.recover(1)
        if name.endswith(".idx"):
            # Whoever reads on from the beginning of a segment does not look at its index.
            first = int(name.removesuffix(".idx"))
            assert log.read(first + 1, 1).records == [everything[1][first + 1]]
        records = volume.records(log)
        if name == "meta":
            # Its other slot holds, and it is mended at the start: worth a line, as after a crash in the middle of an update.
            assert any("'orders'" in note and "/meta is written again from its other slot" in note for note in volume.notes)
        else:
            assert any(getattr(report, "segment", "") == name for report in volume.reports), (name, bit)
        assert records.items() <= everything[1].items(), (name, bit)
        missing = sorted(everything[1].keys() - records.keys())
        assert len(missing) <= 3
        assert volume.records(volume.recover(2)) == everything[2]
        # By a check, and mended by a repair.
        found = Volume(damaged(name, bit)).verify()
        assert [(finding.stream, finding.segment) for finding in found.findings] == [("orders", name)], (name, bit)
        lost = [each for finding in found.findings for each in range(finding.position, finding.next)]
        assert lost == missing
        repaired = Volume(damaged(name, bit))
        assert all(finding.is_repaired for finding in repaired.verify(repair=True).findings)
        assert repaired.verify().is_healthy, (name, bit)
        log = repaired.recover(1)
        assert repaired.records(log).keys() == records.keys()
        assert log.view.tail == RECORDS


def damaged(name: str, bit: int) -> dict[str, bytes | None]:
    path = f"{folder_of(1)}/{name}"
    wrong = bytearray(whole()[path] or b"")
    wrong[bit // 8] ^= 1 << bit % 8
    return {**whole(), path: bytes(wrong)}
