"""Where the output goes: the log file, full disks, slow readers and readers that have gone away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guarded import Guarded, guard, python, until

from outlast._core.faults import ConfigurationError
from outlast._programs.guard.logfile import LogFile
from outlast._programs.guard.rotation import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see what is left behind")

COUNT = r"""
import sys
for number in range({count}): sys.stdout.write("line %07d of many that fill the place they go to\n" % number)
sys.stdout.flush()
"""
"""53 bytes a line."""


def numbers(text: str) -> list[int]:
    """The numbers of whole lines; fails on anything else but a line of the guard."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"line (\d{7}) of many that fill the place they go to", line)
        assert match or line.startswith("outlast guard: "), line
        found += [int(match[1])] if match else []
    return found


def dropped(text: str) -> int:
    """The lines that the guard's lines say were dropped."""
    return sum(int(count.replace(",", "")) for count in re.findall(r"([\d,]+) lines? \([\d,]+ bytes?\) dropped", text))


def log_text(path: Path) -> str:
    """A log with its rotated files, from the oldest line to the newest."""
    return "".join(each.read_text() for each in [*sorted(path.parent.glob(path.name + ".*")), path] if each.exists())


# The whole way


def test_the_log_has_both_streams_and_the_readers_have_theirs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "import sys; print('out'); print('err', file=sys.stderr)"
    assert guard("--log", str(log), *python(program)) == (0, "out\n", "err\n")
    assert sorted(log.read_text().splitlines()) == ["err", "out"]
    assert guard("--log", str(log), "--log-only", *python(program)) == (0, "", "")
    assert len(log.read_text().splitlines()) == 4


def test_a_burst_beyond_the_backlog_is_whole_in_a_quick_log_and_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["--no-fold", "--log", str(log), "--log-only", "--log-size", "1M", "--log-files", "99"]
    assert guard(*words, *python(COUNT.format(count=300_000))) == (0, "", "")
    assert numbers(log_text(log)) == list(range(300_000))
    rotated = sorted(log.parent.glob("log.*"))
    assert len(rotated) == pytest.approx(300_000 * 53 / 2**20, abs=3)
    assert all(each.read_bytes().endswith(b"\n") for each in rotated)


@pytest.mark.parametrize("with_log", [True, False])
def test_a_pipe_that_nobody_reads_never_blocks_the_program(tmp_path: Path, with_log: bool) -> None:  # noqa: FBT001 - a case
    log, done = tmp_path / "log", tmp_path / "done"
    count = 400_000
    program = COUNT.format(count=count) + f"open({str(done)!r}, 'w')"
    with Guarded("--no-fold", *(["--log", str(log)] if with_log else []), *python(program)) as guarded:
        # Nobody reads before the guard has ended: what the pipe holds is all that came through.
        assert guarded.process.wait(60) == 0
        assert done.exists()
        _, out, err = guarded.finish()
    if with_log:
        assert numbers(log.read_text()) == list(range(count))
    came = numbers(out)
    assert came == list(range(len(came)))
    assert len(came) + dropped(err) == count
    assert "standard output: " in err


def test_a_reader_that_comes_back_finds_whole_lines_and_the_count_of_what_it_missed(tmp_path: Path) -> None:
    done = tmp_path / "done"
    count = 300_000
    program = (
        COUNT.format(count=count)
        + f"open({str(done)!r}, 'w'); input(); print('line %07d of many that fill the place they go to' % {count})"
    )
    with Guarded("--no-fold", *python(program), stdin=subprocess.PIPE) as guarded:
        until(done.exists)
        assert guarded.process.stdout is not None
        first = b""
        while first.count(b"\n") < 60_000:
            first += os.read(guarded.process.stdout.fileno(), 1 << 16)
        assert guarded.process.stdin is not None
        guarded.process.stdin.write(b"\n")
        guarded.process.stdin.flush()
        code, out, err = guarded.finish()
    came = numbers(first.decode() + out)
    assert code == 0
    assert came[-1] == count
    assert len(came) + dropped(err) == count + 1


def test_a_reader_that_has_gone_away_is_told_to_the_program_as_if_nobody_were_in_between() -> None:
    with Guarded("--", "yes") as guarded:
        assert guarded.line() == "y"
        assert guarded.process.stdout is not None
        guarded.process.stdout.close()
        assert guarded.process.wait(60) == 128 + signal.SIGPIPE
        assert guarded.process.stderr is not None
        assert guarded.process.stderr.read().decode() == (
            "outlast guard: standard output: its reader has gone away (Broken pipe)\n"
        )


def test_with_a_log_the_program_outlives_its_reader(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "print('one', flush=True); input(); print('two', flush=True); input(); print('three')"
    with Guarded("--log", str(log), *python(program), stdin=subprocess.PIPE) as guarded:
        assert guarded.line() == "one"
        assert guarded.process.stdout is not None
        guarded.process.stdout.close()
        guarded.process.stdout = None
        code, _, err = guarded.finish(b"\n\n")
    assert code == 0
    assert err == "outlast guard: standard output: its reader has gone away (Broken pipe)\n"
    assert [line for line in log.read_text().splitlines() if "outlast" not in line] == ["one", "two", "three"]


def test_two_guards_do_not_write_one_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Guarded("--log", str(log), *python("print('ready'); input()"), stdin=subprocess.PIPE) as guarded:
        assert guarded.line() == "ready"
        code, _, err = guard("--log", str(log), "--", "true")
        assert (code, err) == (78, f"outlast: cannot log to {log}: another process writes it\n")
        assert guarded.finish(b"\n")[0] == 0


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    # Whichever mount is on PATH. Root of a container may not be allowed to.
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "outlast-test", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount a small disk: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S607


def fill(disk: Path) -> Path:
    """Take all the room that there is."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


@pytest.mark.root
@pytest.mark.parametrize("when", ["from the start", "in the middle"])
def test_a_full_disk_never_holds_the_program_up_and_the_gap_is_counted(small_disk: Path, tmp_path: Path, when: str) -> None:
    log, done = small_disk / "log", tmp_path / "done"
    count = 200_000
    program = (
        f"input()\n{COUNT.format(count=count)}\nopen({str(done)!r}, 'w')\ninput()\n"
        f"print('line %07d of many that fill the place they go to' % {count})\n"
    )
    words = ["--no-fold", "--log", str(log), "--log-only", "--log-share", "100"]
    if when == "from the start":
        filler = fill(small_disk)
    with Guarded(*words, *python(program), stdin=subprocess.PIPE) as guarded:
        stdin, stderr = guarded.process.stdin, guarded.process.stderr
        assert stdin is not None
        assert stderr is not None
        if when == "in the middle":
            until(log.exists)
            filler = small_disk / "filler"
            filler.write_bytes(b"x" * (9 << 20))
        stdin.write(b"\n")
        stdin.flush()
        until(done.exists)
        said = stderr.readline().decode()
        assert said.startswith(f"outlast guard: {log} cannot be written: ")
        # A reader never sees half a line, whatever the disk did.
        came = numbers(log_text(log))
        assert came == list(range(len(came)))
        filler.unlink()
        until(lambda: log.exists() and "dropped" in log_text(log))
        stdin.write(b"\n")
        code, out, err = guarded.finish()
    written = log_text(log)
    came = numbers(written)
    assert (code, out) == (0, "")
    assert came == sorted(came)
    assert came[-1] == count
    missing = count + 1 - len(came)
    assert missing > 0
    # Told with the same count where the lines are missing, and on stderr.
    assert dropped("".join(line for line in written.splitlines() if str(log) not in line)) == missing
    assert dropped(err) == missing
    assert "can be written again" in err


@pytest.mark.root
def test_the_log_gives_way_when_others_need_the_disk(small_disk: Path) -> None:
    log = LogFile(small_disk / "log", Limits(size_bytes_max=1 << 20, share=0.5))
    line = b"x" * 1023 + b"\n"
    for _ in range(20 * 1024):
        log.write(line)
        assert log.size_bytes <= 6.5 * 2**20
    assert log.size_bytes > 4 * 2**20
    (small_disk / "other").write_bytes(b"x" * (6 << 20))
    for _ in range(3 * 1024):
        log.write(line)
    disk = os.statvfs(small_disk)
    assert log.size_bytes <= 0.5 * (disk.f_bavail * disk.f_frsize + log.size_bytes) + 2**20
    log.close()


@pytest.mark.root
def test_a_write_that_the_disk_refuses_half_way_is_taken_back_to_a_whole_line(small_disk: Path) -> None:
    path = small_disk / "log"
    log = LogFile(path, Limits(share=1.0))
    first = b"first\n" * 10_000
    log.write(first)
    filler = fill(small_disk)
    # Room for some of what is written then.
    os.truncate(filler, filler.stat().st_size - 30 * 4096)
    data = b"".join(b"%04d %s\n" % (number, b"x" * 994) for number in range(200))
    kept = log.write(data)
    assert 0 < kept < len(data)
    assert kept % 1000 == 0
    assert log_text(path).encode() == first + data[:kept]
    with pytest.raises(OSError, match="No space"):
        log.write(data[kept:])
    assert log_text(path).encode() == first + data[:kept]
    filler.unlink()
    assert log.write(data[kept:]) == len(data) - kept
    assert log_text(path).encode() == first + data
    log.close()


# The file itself


def test_a_line_that_a_crash_cut_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"whole\ncut")
    log = LogFile(path, Limits())
    log.write(b"next, ")
    log.write(b"and its rest\n")
    log.close()
    assert path.read_bytes() == b"whole\ncut\nnext, and its rest\n"


def test_rotated_files_are_numbered_on_and_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.000007").write_text("old\n")
    (tmp_path / "log.gz").write_text("not ours\n")
    (tmp_path / "log.1").write_text("not ours\n")
    log = LogFile(path, Limits(size_bytes_max=10, files_max=2))
    for word in (b"one", b"two", b"three"):
        log.write(word + b" ........\n")
    log.tick()
    log.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.000009", "log.000010", "log.1", "log.gz"]


def test_a_file_that_was_there_is_rotated_by_its_age(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    log = LogFile(path, Limits(age_s_max=3600.0))
    log.tick()
    log.close()
    assert (tmp_path / "log.000001").read_text() == "old\n"


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_file_that_somebody_takes_away_is_made_again(tmp_path: Path, how: str) -> None:
    path = tmp_path / "log"
    log = LogFile(path, Limits())
    log.write(b"one\n")
    if how == "moved":
        path.rename(tmp_path / "log.old")
    else:
        path.unlink()
    log._looked_at = float("-inf")
    log.write(b"two\n")
    log.close()
    assert path.read_bytes() == b"two\n"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="no regular file"):
        LogFile(tmp_path / "pipe", Limits())
