"""The spool: readable, bounded, and never in the way. The output beside it: a full disk costs what does not fit."""

from __future__ import annotations

import errno
import gzip
import os
import zlib
from typing import TYPE_CHECKING

from outlast._programs.fold.output import Output
from outlast._programs.fold.spool import AGAIN, SEGMENTS, FoldSpool

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def contents(folder: Path) -> list[bytes]:
    return b"".join(gzip.decompress(path.read_bytes()) for path in sorted(folder.iterdir())).splitlines()


def test_what_was_folded_can_be_read_back(tmp_path: Path) -> None:
    said: list[str] = []
    spool = FoldSpool(tmp_path / "new" / "spool", 1 << 20, said.append, 0.0, "a")
    records = [b"line %d" % number for number in range(1000)]
    spool.add(records[:400])
    spool.flush(1.0)
    spool.add(records[400:])
    spool.close()
    assert contents(tmp_path / "new" / "spool") == records
    assert (spool.kept, spool.dropped, said) == (1000, 0, [])


def test_what_was_flushed_can_be_read_though_the_process_was_killed(tmp_path: Path) -> None:
    spool = FoldSpool(tmp_path, 1 << 20, lambda text: None, 0.0, "a")
    spool.add([b"one", b"two"])
    spool.flush(1.0)
    spool.add([b"three"])
    [path] = tmp_path.iterdir()
    assert zlib.decompressobj(31).decompress(path.read_bytes()) == b"one\ntwo\n"
    spool.close()


def test_the_spool_is_bounded_and_loses_its_oldest_first(tmp_path: Path) -> None:
    stranger = tmp_path / "mine.txt"
    stranger.write_text("not of the spool")
    bytes_max = 1 << 16
    spool = FoldSpool(tmp_path, bytes_max, lambda text: None, 0.0, "a")
    for number in range(2000):
        spool.add([os.urandom(256)])
        spool.flush(number)
    spool.close()
    files = sorted(tmp_path.glob("folded-*.log.gz"))
    assert bytes_max // 2 < sum(path.stat().st_size for path in files) <= bytes_max + bytes_max // SEGMENTS
    assert not files[0].name.endswith("000000.log.gz")
    assert spool.deleted_files > 0
    assert stranger.exists()


def test_a_full_disk_is_said_once_and_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    spool = FoldSpool(tmp_path, 1 << 20, said.append, 0.0, "a")
    spool.add([b"before"])
    spool.flush(0.0)
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        real(fd, data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    spool.add([b"lost"] * 3)
    spool.flush(1.0)
    spool.add([b"lost"] * 2)
    spool.flush(2.0)
    monkeypatch.setattr(os, "write", real)
    spool.add([b"lost too, it is too early"])
    assert [text.split(": ")[1].split(";")[0] for text in said] == ["No space left on device"]
    spool.flush(1.0 + AGAIN.base_s)
    spool.add([b"behind"])
    spool.close()
    assert len(said) == 2
    assert "6 folded records are missing" in said[1]
    assert (spool.kept, spool.dropped) == (2, 6)
    first, second = sorted(tmp_path.iterdir())
    assert zlib.decompressobj(31).decompress(first.read_bytes()) == b"before\n"
    assert gzip.decompress(second.read_bytes()) == b"behind\n"


def test_a_full_disk_costs_the_output_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    output = Output(fd, said.append)
    real = os.write
    left = 6

    def narrow(fd: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, data[:left])
        left -= done
        return done

    monkeypatch.setattr(os, "write", narrow)
    output.write(b"one\ntwo\n")
    output.write(b"three\n")
    left = 1000
    output.write(b"four\n")
    os.close(fd)
    assert path.read_bytes() == b"one\ntw\nfour\n"
    assert output.lost_bytes == len(b"o\nthree\n")
    assert [text.split(";")[0] for text in said] == ["writing failed: No space left on device", "writing again"]
