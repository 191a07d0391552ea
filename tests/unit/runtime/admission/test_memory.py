"""The meter of memory on folders that look like the kernel's: which limit holds, what counts against it, and what is unknown."""

from __future__ import annotations

import asyncio
import gc
import logging
import mmap
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from outlast._runtime.admission import memory
from outlast._runtime.admission.cgroup import Groups, Usage, text_of
from outlast._runtime.admission.memory import UNKNOWN, MemoryMeter
from outlast._runtime.process.own_thread import OwnThread
from outlast.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
MACHINE = 8192 * MIB
RESIDENT = 10 * MIB
V1_NO_LIMIT = 9223372036854771712
V1_HYBRID = "4:memory:{path}\n3:cpuset:/\n1:name=systemd:/\n0::/\n"


class Machine:
    """A folder for /proc and one for the control groups, which it mounts."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.groups = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        self.write("meminfo", f"MemFree: 7 kB\nMemTotal:       {MACHINE // 1024} kB\n")
        self.write("self/statm", f"4096 {RESIDENT // mmap.PAGESIZE} 100 5 0 300 0\n")
        self.write("self/cgroup", "0::/\n")
        self.mount("cgroup2", "rw")

    def write(self, name: str, text: str) -> None:
        (self.proc / name).write_text(text)

    def mount(self, kind: str, options: str, root: str = "/", at: Path | None = None) -> None:
        other = "24 1 0:22 / /proc rw,relatime shared:12 - proc proc rw\n35 31 0:9 / /sys/cpu rw - cgroup cgroup rw,cpu\n"
        self.write("self/mountinfo", f"{other}32 31 0:29 {root} {at or self.groups} rw,relatime - {kind} {kind} {options}\n")

    def v2(self, path: str, limit: str, used: int, *, high: str = "max", inactive: int = 0, active: int = 0) -> Path:
        level = self._level(path)
        (level / "memory.max").write_text(f"{limit}\n")
        (level / "memory.high").write_text(f"{high}\n")
        (level / "memory.current").write_text(f"{used}\n")
        (level / "memory.stat").write_text(f"anon 1\nfile 2\ninactive_file {inactive}\nactive_file {active}\n")
        return level

    def v1(self, path: str, limit: int, used: int, *, inactive: int = 0, above: int = V1_NO_LIMIT) -> Path:
        level = self._level(path)
        (level / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (level / "memory.usage_in_bytes").write_text(f"{used}\n")
        figures = f"inactive_file 3\nhierarchical_memory_limit {min(limit, above)}\n"
        (level / "memory.stat").write_text(f"{figures}total_inactive_file {inactive}\ntotal_active_file 0\n")
        return level

    def _level(self, path: str) -> Path:
        level = self.groups / path
        level.mkdir(parents=True, exist_ok=True)
        (level / "cgroup.procs").touch()
        return level

    def meter(self, bytes_max: float | None = None) -> MemoryMeter:
        return MemoryMeter(bytes_max=bytes_max, proc=self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_limit_of_a_parent_holds_where_the_leaf_says_max(machine: Machine) -> None:
    machine.write("self/cgroup", "0::/pod/main/leaf\n")
    machine.v2("pod/main/leaf", "max", 20 * MIB)
    machine.v2("pod/main", str(512 * MIB), 90 * MIB)
    machine.v2("pod", str(256 * MIB), 100 * MIB, inactive=30 * MIB)
    assert machine.meter().read() == (70 * MIB, 256 * MIB), "of that level, with all who use it"


def test_the_limit_of_the_leaf_holds_where_it_is_the_smallest(machine: Machine) -> None:
    machine.write("self/cgroup", "0::/pod/leaf\n")
    machine.v2("pod/leaf", str(64 * MIB), 20 * MIB)
    machine.v2("pod", str(256 * MIB), 100 * MIB)
    assert machine.meter().read() == (20 * MIB, 64 * MIB)


def test_of_equal_limits_it_is_the_upper_one_that_fills_first(machine: Machine) -> None:
    machine.write("self/cgroup", "0::/pod/leaf\n")
    machine.v2("pod/leaf", str(256 * MIB), 20 * MIB)
    machine.v2("pod", str(256 * MIB), 100 * MIB)
    assert machine.meter().read() == (100 * MIB, 256 * MIB)


def test_the_level_above_which_the_kernel_slows_down_is_a_limit(machine: Machine) -> None:
    machine.v2("", "max", 20 * MIB, high=str(128 * MIB))
    assert machine.meter().read() == (20 * MIB, 128 * MIB)


def test_page_cache_alone_uses_nothing_up(machine: Machine) -> None:
    machine.v2("", str(256 * MIB), 240 * MIB, inactive=100 * MIB, active=100 * MIB)
    assert machine.meter().read() == (40 * MIB, 256 * MIB)


def test_counters_read_one_after_the_other_are_never_below_nothing(machine: Machine) -> None:
    machine.v2("", str(16 * MIB), 5 * MIB, inactive=6 * MIB)
    assert Groups(machine.proc).usage() == Usage(0, 16 * MIB)


def test_version_1_beside_version_2_is_the_one_that_accounts(machine: Machine) -> None:
    machine.write("self/cgroup", V1_HYBRID.format(path="/docker/abc"))
    machine.mount("cgroup", "rw,memory")
    machine.v1("docker/abc", V1_NO_LIMIT, 9 * MIB)
    machine.v1("docker", 256 * MIB, 120 * MIB, inactive=20 * MIB)
    machine.v1("", V1_NO_LIMIT, 500 * MIB)
    assert machine.meter().read() == (100 * MIB, 256 * MIB)


@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_where_nobody_set_a_limit_the_process_counts_against_the_machine(machine: Machine, path: str) -> None:
    machine.write("self/cgroup", V1_HYBRID.format(path=path))
    machine.mount("cgroup", "rw,memory")
    machine.v1("docker/abc", V1_NO_LIMIT, 9 * MIB)
    machine.v1("", V1_NO_LIMIT, 5000 * MIB)
    assert machine.meter().read() == (RESIDENT, MACHINE)


def test_version_1_says_which_limit_comes_from_levels_that_cannot_be_seen(machine: Machine) -> None:
    machine.write("self/cgroup", V1_HYBRID.format(path="/pod/abc"))
    machine.mount("cgroup", "rw,memory", root="/pod/abc")
    machine.v1("", V1_NO_LIMIT, 90 * MIB, above=256 * MIB)
    assert machine.meter().read() == (90 * MIB, 256 * MIB)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        pytest.param("/", "/", id="a namespace of its own"),
        pytest.param("/system.slice/docker-abc.scope", "/system.slice/docker-abc.scope", id="--cgroupns host, its folder alone"),
        pytest.param("/", "/system.slice/docker-abc.scope", id="the folder mounted in another namespace than we are in"),
        pytest.param("/", "/../..", id="the same, as our own namespace says it"),
    ],
)
def test_the_groups_folder_is_found_by_what_was_mounted(machine: Machine, path: str, root: str) -> None:
    machine.write("self/cgroup", f"0::{path}\n")
    machine.mount("cgroup2", "rw,nsdelegate", root=root)
    machine.v2("", str(256 * MIB), 90 * MIB)
    assert machine.meter().read() == (90 * MIB, 256 * MIB)


def test_with_the_hosts_namespace_the_whole_path_is_followed(machine: Machine) -> None:
    machine.write("self/cgroup", "0::/system.slice/docker-abc.scope\n")
    machine.v2("system.slice/docker-abc.scope", str(256 * MIB), 90 * MIB)
    (machine.groups / "cgroup.procs").touch()
    assert machine.meter().read() == (90 * MIB, 256 * MIB)


def test_the_mount_that_shows_most_levels_is_taken(machine: Machine) -> None:
    machine.write("self/cgroup", "0::/pod/leaf\n")
    machine.v2("pod/leaf", "max", 20 * MIB)
    machine.v2("pod", str(256 * MIB), 100 * MIB)
    roots = ("/pod/leaf", "/", "/pod")
    machine.write("self/mountinfo", "".join(f"1 1 0:1 {root} {machine.groups}{root} rw - cgroup2 c rw\n" for root in roots))
    assert machine.meter().read() == (100 * MIB, 256 * MIB)


def test_a_folder_with_a_space_is_read_as_mountinfo_writes_it(machine: Machine) -> None:
    machine.groups = machine.groups / "a b"
    machine.mount("cgroup2", "rw", at=Path(str(machine.groups).replace(" ", r"\040")))
    machine.v2("", str(256 * MIB), 90 * MIB)
    assert machine.meter().read() == (90 * MIB, 256 * MIB)


def test_a_process_that_is_moved_to_another_group_is_followed(machine: Machine) -> None:
    machine.write("self/cgroup", "0::/one\n")
    machine.v2("one", str(256 * MIB), 90 * MIB)
    machine.v2("two", str(128 * MIB), 30 * MIB)
    meter = machine.meter()
    assert meter.read() == (90 * MIB, 256 * MIB)
    machine.write("self/cgroup", "0::/two\n")
    assert meter.read() == (30 * MIB, 128 * MIB)
    machine.v2("two", str(100 * MIB), 30 * MIB)
    assert meter.read() == (30 * MIB, 100 * MIB), "and so is a limit that is changed"


def test_the_pair_that_is_nearer_to_its_limit_is_returned(machine: Machine) -> None:
    machine.v2("", str(256 * MIB), 90 * MIB)
    assert machine.meter(20 * MIB).read() == (RESIDENT, 20 * MIB)
    assert machine.meter(1000 * MIB).read() == (90 * MIB, 256 * MIB)


def test_a_kernel_without_control_groups_leaves_the_machine(machine: Machine) -> None:
    (machine.proc / "self/cgroup").unlink()
    meter = machine.meter()
    assert meter.read() == (RESIDENT, MACHINE)
    assert not meter.unknown


def test_a_mount_that_goes_away_takes_no_limit_with_it(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.v2("", str(256 * MIB), 90 * MIB)
    meter = machine.meter()
    assert meter.read() == (90 * MIB, 256 * MIB)
    assert not meter.unknown
    machine.groups.rename(machine.groups.with_name("away"))
    assert meter.read() == (RESIDENT, None), "unknown, and not: none"
    assert len(caplog.records) == 1
    caplog.clear()
    machine.groups.with_name("away").rename(machine.groups)
    assert meter.read() == (90 * MIB, 256 * MIB)
    assert not meter.unknown


def without(name: str) -> Callable[[Machine], None]:
    return lambda machine: (machine.proc / name).unlink()


def saying(name: str, text: str) -> Callable[[Machine], None]:
    return lambda machine: machine.write(name, text)


@pytest.mark.parametrize(
    ("trouble", "found"),
    [
        pytest.param(saying("self/cgroup", ""), (RESIDENT, None), id="no group"),
        pytest.param(saying("self/cgroup", "nonsense"), (RESIDENT, None), id="nonsense for a group"),
        pytest.param(saying("self/mountinfo", ""), (RESIDENT, None), id="nothing mounted"),
        pytest.param(without("self/mountinfo"), (RESIDENT, None), id="no mounts"),
        pytest.param(
            lambda machine: (machine.groups / "memory.max").write_text("much"), (RESIDENT, None), id="nonsense for a limit"
        ),
        pytest.param(lambda machine: (machine.groups / "memory.current").unlink(), (RESIDENT, None), id="no usage"),
        pytest.param(
            lambda machine: (machine.groups / "memory.stat").write_text("anon 1\n"), (RESIDENT, None), id="a figure is missing"
        ),
        pytest.param(without("self/statm"), (90 * MIB, 256 * MIB), id="no state of its own: the group is known"),
        pytest.param(saying("self/statm", "4096"), (90 * MIB, 256 * MIB), id="a state cut short"),
        pytest.param(saying("meminfo", "MemFree: 1 kB\n"), (90 * MIB, 256 * MIB), id="no size of the machine"),
    ],
)
def test_what_cannot_be_read_is_unknown_and_said_once(
    machine: Machine, caplog: pytest.LogCaptureFixture, trouble: Callable[[Machine], None], found: memory.Reading
) -> None:
    machine.v2("", str(256 * MIB), 90 * MIB)
    assert machine.meter().read() == (90 * MIB, 256 * MIB)
    meter = machine.meter()
    trouble(machine)
    assert [meter.read() for _ in range(3)] == [found] * 3
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert meter.unknown
    assert meter.unknown in said.getMessage()
    caplog.clear()


def test_a_limit_of_ones_own_holds_where_that_of_the_group_is_unknown(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.write("self/mountinfo", "")
    assert machine.meter(20 * MIB).read() == (RESIDENT, 20 * MIB)
    assert len(caplog.records) == 1
    caplog.clear()


def test_where_there_is_no_proc_everything_is_unknown_and_nobody_is_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = MemoryMeter(proc=tmp_path / "proc")
    with caplog.at_level(logging.INFO):
        assert [meter.read(), meter.read()] == [UNKNOWN, UNKNOWN]
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_sample_is_read_in_a_thread_of_its_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.v2("", str(256 * MIB), 90 * MIB)
    meter, threads = machine.meter(), []

    def text_in(file: Path) -> str:
        threads.append(threading.current_thread().name)
        return text_of(file)

    async def main() -> None:
        assert await meter.sample() == (90 * MIB, 256 * MIB)
        meter.close()

    monkeypatch.setattr(memory, "text_of", text_in)
    run_virtual(main)
    assert set(threads) == {"outlast memory meter"}


class SilentThread(OwnThread):
    """Takes one call, and never makes it."""

    def start(self, function: Any) -> Any:
        if self.waiting_max == 0:
            raise RuntimeError("the thread silent has 1 calls to make already (limit 1)")
        self.waiting_max = 0
        return asyncio.get_running_loop().create_future()


def test_a_proc_that_does_not_answer_is_unknown_and_holds_nobody(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    meter = machine.meter()
    meter._thread = SilentThread("silent", waiting_max=1)

    async def main() -> None:
        began_at = asyncio.get_running_loop().time()
        assert await meter.sample() == UNKNOWN
        assert asyncio.get_running_loop().time() == began_at + memory.ANSWER_S
        assert await meter.sample() == UNKNOWN, "no second call waits behind the first"
        assert asyncio.get_running_loop().time() == began_at + memory.ANSWER_S

    run_virtual(main)
    assert len(caplog.records) == 2
    caplog.clear()


class Ring:
    """Holds itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_room_is_made_of_what_nobody_holds_and_not_all_the_time(machine: Machine) -> None:
    async def main() -> list[bool]:
        meter, lives = machine.meter(), []
        for now in (100.0, 105.0, 110.0):
            ring = weakref.ref(Ring())
            await meter.make_room(now)
            lives.append(ring() is not None)
        meter.close()
        return lives

    gc.collect()
    assert run_virtual(main) == [False, True, False]


def test_a_collector_that_is_disabled_stays_so(machine: Machine) -> None:
    async def main() -> None:
        meter, ring = machine.meter(), weakref.ref(Ring())
        await meter.make_room(0.0)
        assert ring() is not None
        meter.close()

    gc.disable()
    try:
        run_virtual(main)
    finally:
        gc.enable()
