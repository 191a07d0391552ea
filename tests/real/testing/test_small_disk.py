"""Small disks: they run full, fail and hang as told, and leave nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import outlast
from outlast.testing import DiskKind, SmallDisk, SmallDiskError
from outlast.testing._disks import faulty_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
SOURCE = Path(outlast.__file__).parents[1]
KINDS: tuple[DiskKind, ...] = ("tmpfs", "ext4", "faulty")
LEAVE_BEHIND = """
import os, signal, sys, threading
from outlast.testing import SmallDisk
disk = SmallDisk(8 << 20, sys.argv[1])
disk.start()
descriptor = os.open(disk.path / "open", os.O_CREAT | os.O_RDWR)
print(disk.path, flush=True)
if sys.argv[2] == "end":
    sys.exit()
if sys.argv[1] == "faulty":
    disk.hang("fsync")
    threading.Thread(target=os.fsync, args=(descriptor,)).start()
    while not disk.counts()[0].get("fsync"):
        pass
print("ready", flush=True)
signal.pause()
"""


def small_disk(size_bytes: int, kind: DiskKind, inodes: int | None = None) -> SmallDisk:
    if (reason := SmallDisk.available(kind)) is not None:
        pytest.skip(reason)
    return SmallDisk(size_bytes, kind, inodes=inodes)


@pytest.fixture
def faulty() -> Iterator[SmallDisk]:
    with small_disk(8 * MIB, "faulty") as disk:
        yield disk


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def number_of(call: Callable[[], object]) -> int:
    """The errno of a call that fails; 0 if it works."""
    try:
        call()
    except OSError as exc:
        return exc.errno or -1
    return 0


def write_until_it_fails(descriptor: int, size: int = 65_536) -> tuple[int, int]:
    """How much was taken, and the errno."""
    taken = 0
    for _ in range(4096):
        try:
            taken += os.write(descriptor, b"x" * size)
            os.fsync(descriptor)
        except OSError as exc:
            return taken, exc.errno or -1
    return taken, 0


def wait_until(condition: Callable[[], object], limit_s: float = 60.0) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def mounted_below(path: Path) -> bool:
    return str(path) in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_is_of_its_size_and_runs_full_for_real(kind: DiskKind) -> None:
    with small_disk(8 * MIB, kind) as disk:
        assert names(disk.path) == []
        room = os.statvfs(disk.path)
        assert 4 * MIB < room.f_bavail * room.f_frsize <= 8 * MIB
        descriptor = opened(disk.path / "data")
        taken, number = write_until_it_fails(descriptor)
        assert (number, os.fstat(descriptor).st_size) == (errno.ENOSPC, taken)
        assert 4 * MIB < taken <= 8 * MIB
        os.close(descriptor)
        folder = disk.path
    assert not mounted_below(folder.parent)
    assert not folder.parent.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_takes_what_is_there_at_once_and_gives_it_back(kind: DiskKind) -> None:
    with small_disk(8 * MIB, kind) as disk:
        before = disk.available_bytes
        descriptor = opened(disk.path / "data")
        disk.fill(leave_bytes=0)
        assert disk.available_bytes == 0
        # A few kilobytes may be had from blocks that were set apart for the file already.
        taken, number = write_until_it_fails(descriptor, 4096)
        assert number == errno.ENOSPC
        assert taken <= 16_384
        disk.fill(leave_bytes=MIB)
        assert MIB <= disk.available_bytes < MIB + 65_536
        assert os.write(descriptor, b"x" * 4096) == 4096
        os.close(descriptor)
        disk.free()
        assert disk.available_bytes > before - 65_536
        assert names(disk.path) == ["data"]


@pytest.mark.parametrize("kind", ["tmpfs", "faulty"])
def test_a_disk_in_memory_grows_while_it_is_full_and_in_use(kind: DiskKind) -> None:
    with small_disk(4 * MIB, kind) as disk:
        descriptor = opened(disk.path / "data")
        assert write_until_it_fails(descriptor)[1] == errno.ENOSPC
        disk.resize(8 * MIB)
        assert number_of(lambda: os.write(descriptor, b"x" * 65_536)) == 0
        with pytest.raises(SmallDiskError, match="remount"):
            disk.resize(MIB)
        os.close(descriptor)


def test_an_ext4_keeps_its_size() -> None:
    with small_disk(8 * MIB, "ext4") as disk, pytest.raises(ValueError, match="keeps its size"):
        disk.resize(16 * MIB)


@pytest.mark.parametrize("kind", ["ext4", "faulty"])
def test_a_disk_turns_read_only_under_a_file_that_is_open_for_writing(kind: DiskKind) -> None:
    with small_disk(8 * MIB, kind) as disk:
        descriptor = opened(disk.path / "data")
        os.write(descriptor, b"kept")
        os.fsync(descriptor)
        disk.read_only()
        calls = (
            lambda: os.write(descriptor, b"x"),
            lambda: opened(disk.path / "new"),
            (disk.path / "new").mkdir,
            (disk.path / "data").unlink,
            lambda: os.ftruncate(descriptor, 0),
        )
        assert [number_of(call) for call in calls] == [errno.EROFS] * len(calls)
        assert (disk.path / "data").read_bytes() == b"kept"
        os.close(descriptor)


def test_a_disk_in_memory_turns_read_only_and_back_while_nobody_writes() -> None:
    with small_disk(4 * MIB, "tmpfs") as disk:
        descriptor = opened(disk.path / "data")
        with pytest.raises(SmallDiskError, match="busy"):
            disk.read_only()
        os.close(descriptor)
        disk.read_only()
        assert number_of(lambda: opened(disk.path / "data")) == errno.EROFS
        disk.read_only(False)
        assert (disk.path / "data").write_bytes(b"x") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_inodes_run_out_while_there_is_room(kind: DiskKind) -> None:
    with small_disk(8 * MIB, kind, inodes=64) as disk:
        for number in range(100):
            if found := number_of((disk.path / str(number)).touch):
                break
        assert found == errno.ENOSPC
        assert disk.available_bytes > 4 * MIB
        assert os.statvfs(disk.path).f_favail == 0


def test_calls_fail_as_told_as_often_as_told_and_on_the_paths_told(faulty: SmallDisk) -> None:
    one, two = opened(faulty.path / "one"), opened(faulty.path / "two")
    faulty.fail("fsync", errno.EIO, times=2)
    faulty.fail("write", errno.EIO, path_contains="two")
    assert [number_of(lambda: os.fdatasync(one)) for _ in range(3)] == [errno.EIO, errno.EIO, 0]
    assert [number_of(lambda each=each: os.write(each, b"x")) for each in (one, two)] == [0, errno.EIO]
    calls, failed = faulty.counts()
    assert (calls["fsync"], failed) == (3, {"fsync": 2, "write": 1})
    faulty.heal()
    assert number_of(lambda: os.write(two, b"x")) == 0
    os.close(one)
    os.close(two)


@pytest.mark.parametrize("call", ["write", "fsync", "statvfs"])
def test_a_call_hangs_alone_until_the_disk_is_healed_and_is_done_then(faulty: SmallDisk, call: str) -> None:
    one, two = opened(faulty.path / "one"), opened(faulty.path / "two")
    faulty.hang(call)  # type: ignore[arg-type]
    calls = {"write": lambda: os.write(one, b"late"), "fsync": lambda: os.fsync(one), "statvfs": lambda: os.statvfs(faulty.path)}
    others = {"write": lambda: os.fsync(two), "fsync": lambda: os.write(two, b"x"), "statvfs": lambda: os.write(two, b"x")}
    stuck = threading.Thread(target=calls[call])
    stuck.start()
    assert wait_until(lambda: faulty.counts()[0].get(call))  # type: ignore[call-overload]
    others[call]()
    assert stuck.is_alive()
    faulty.heal()
    stuck.join(60)
    assert not stuck.is_alive()
    assert (faulty.path / "one").read_bytes() == (b"late" if call == "write" else b"")
    os.close(one)
    os.close(two)


def test_inside_a_quota_statvfs_lies_and_writes_are_refused(faulty: SmallDisk) -> None:
    descriptor = opened(faulty.path / "data")
    faulty.quota(2 * MIB)
    faulty.statvfs(available=100 << 30)
    taken, number = write_until_it_fails(descriptor)
    room = os.statvfs(faulty.path)
    assert number == errno.EDQUOT
    assert MIB < taken <= 2 * MIB
    assert room.f_bavail * room.f_frsize == 100 << 30
    faulty.quota(None)
    assert number_of(lambda: os.write(descriptor, b"x" * 65_536)) == 0
    os.close(descriptor)


def test_files_of_a_faulty_disk_behave_as_others_do(faulty: SmallDisk) -> None:
    path = faulty.path / "data"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    os.write(descriptor, b"0123456789")
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b"ab")
    os.ftruncate(descriptor, 11)
    os.posix_fallocate(descriptor, 0, 12)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"0123456789a\0", 0o640)
    path.rename(faulty.path / "renamed")
    (faulty.path / "folder").mkdir()
    folder = os.open(faulty.path, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    assert names(faulty.path) == ["folder", "renamed"]
    (faulty.path / "renamed").unlink()
    (faulty.path / "folder").rmdir()
    os.ftruncate(descriptor, 4)
    assert (os.pread(descriptor, 10, 0), names(faulty.path)) == (b"0123", [])
    os.close(descriptor)


def test_only_a_faulty_disk_takes_orders() -> None:
    with pytest.raises(ValueError, match="kind 'faulty'"):
        SmallDisk(MIB).fail("write", errno.EIO)
    with pytest.raises(SmallDiskError, match="not mounted"):
        SmallDisk(MIB, "faulty").heal()
    with pytest.raises(SmallDiskError, match="not mounted"):
        SmallDisk(MIB).fill()


def test_a_faulty_disk_whose_program_ends_says_what_it_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no libfuse here')", encoding="utf-8")
    disk = small_disk(MIB, "faulty")
    monkeypatch.setattr(faulty_files, "PROGRAM", program)
    with pytest.raises(SmallDiskError, match="ended; it said: no libfuse here"):
        disk.start()
    with pytest.raises(SmallDiskError, match="not mounted"):
        _ = disk.path


def test_a_user_who_is_not_root_is_told_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SmallDiskError, match=r"SmallDisk\.command"):
        SmallDisk(MIB).start()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["end", "kill"])
def test_a_process_leaves_no_disk_behind(kind: DiskKind, way: str) -> None:
    small_disk(MIB, kind)
    command = [sys.executable, "-c", LEAVE_BEHIND, kind, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)}) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        root = path if kind == "faulty" else path.parent
        if way == "kill":
            assert process.stdout.readline() == "ready\n"
            assert mounted_below(root)
            process.kill()
    assert wait_until(lambda: not mounted_below(root) and not root.parent.exists())


def test_a_program_without_root_has_a_disk_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    script = """
import os
from outlast.testing import SmallDisk
with SmallDisk(4 << 20) as disk:
    disk.fill()
    try:
        (disk.path / "file").write_bytes(bytes(65536))
    except OSError as exc:
        print(disk.path, exc.errno, os.geteuid())
"""
    try:
        command = SmallDisk.command([sys.executable, "-c", script])
    except SmallDiskError as exc:
        pytest.skip(f"no user namespaces here: {exc}")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    path, number, user = done.stdout.split()
    assert (int(number), int(user)) == (errno.ENOSPC, 0)
    assert path.startswith(str(tmp_path))
    assert not mounted_below(tmp_path)
