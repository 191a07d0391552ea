"""Child processes: found, named, asked to end, killed, and nobody's exit status stolen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outlast._runtime.process import offspring
from outlast._runtime.process import proc as process_files
from outlast._runtime.process.proc import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.short,
    pytest.mark.skipif(not process_files.readable(), reason="needs /proc"),
]

LIMIT_S = 60.0
GRACE_S = 1.0
"""Enough for whoever ends at once, on a busy machine too."""
SLEEPER = "import time; print('here', flush=True); time.sleep(300)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
PARENT = """
import subprocess, sys
inner = subprocess.Popen([sys.executable, "-c", {inner!r}], stdout=subprocess.PIPE)
inner.stdout.readline()
print(inner.pid, flush=True)
inner.wait()
"""


@contextlib.contextmanager
def started(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a program until it has said a line; give the process and the line."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().decode().strip()
        finally:
            process.kill()


def found(pid: int) -> Child:
    return next(child for child in offspring.children() if child.pid == pid)


def gone(pid: int) -> bool:
    """Whether a process ends within the limit."""
    until = time.monotonic() + LIMIT_S
    while (seen := process_files.stat(pid)) is not None and not seen.dead:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def script(code: str) -> str:
    """Run a program that may kill all its children: the tests' own have servers among theirs."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_child_is_found_and_named_without_its_secrets() -> None:
    with started(SLEEPER, "--password", "hunter2", "postgresql://u:hunter3@h/d", "x" * 500) as (process, _):
        child = found(process.pid)
        assert child.parent_pid == os.getpid()
        assert child.name.startswith(Path(sys.executable).name) or child.name.startswith(sys.executable[:20])
        assert "hunter" not in child.name
        assert len(child.name) < 120
        assert found(process.pid) == child
    assert process.pid not in [other.pid for other in offspring.children()]


def test_a_secret_in_a_word_of_its_own_is_masked() -> None:
    with started(SLEEPER, "--password", "hunter2", "--port", "5432") as (process, _):
        raw = process_files._PROC / str(process.pid) / "cmdline"
        assert b"hunter2" in raw.read_bytes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process_files, "NAME_CHARS_MAX", 1000)
            name = found(process.pid).name
    assert name.endswith("--password *** --port 5432")


def test_a_child_that_has_ended_and_was_not_waited_for_is_none() -> None:
    with started("print('here')") as (process, _):
        assert gone(process.pid)
        seen = process_files.stat(process.pid)
        assert seen is not None
        assert seen.state == "Z"
        assert process.pid not in [child.pid for child in offspring.children()]
        assert process.wait() == 0


def test_the_state_is_read_behind_a_name_with_parentheses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "42").mkdir()
    text = "42 (a) b (c)) R 7 42 42 0 -1 4194304 100 0 0 0 1234 66 99 99 20 0 3 0 100 4096000 25 0"
    (tmp_path / "42" / "stat").write_text(text)
    monkeypatch.setattr(process_files, "_PROC", tmp_path)
    found = process_files.stat(42)
    assert found == process_files.Stat("a) b (c)", "R", 7, cpu_ticks=1300, threads=3, start_ticks=100)


def test_the_same_without_the_kernels_list(monkeypatch: pytest.MonkeyPatch) -> None:
    with started(PARENT.format(inner=SLEEPER)) as (process, inner):
        listed = process_files.below([process.pid])
        monkeypatch.setattr(process_files, "_listed", None)
        monkeypatch.setattr(process_files.Path, "exists", lambda path: False)
        assert process.pid in [child.pid for child in offspring.children()]
        assert [child.pid for child in listed] == [int(inner)]
        assert process_files.below([process.pid]) == listed
        os.kill(int(inner), signal.SIGKILL)


def test_where_there_is_no_proc_there_seem_to_be_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with started(SLEEPER):
        monkeypatch.setattr(process_files, "_PROC", tmp_path)
        assert offspring.children() == ()
        assert offspring.kill_all() == ()
        (tmp_path / "self").symlink_to("1" if os.getpid() != 1 else "2")
        assert offspring.children() == (), "a /proc of another namespace numbers other processes"
        assert offspring.kill_all() == ()


def test_one_that_listens_ends_by_itself() -> None:
    with started(SLEEPER) as (process, _):
        assert asyncio.run(offspring.end([found(process.pid)], LIMIT_S)) == ()
        assert process.wait() == -signal.SIGTERM, "its status is still its owner's to fetch"


def test_one_that_does_not_listen_is_killed_and_named() -> None:
    with started(DEAF) as (deaf, _), started(SLEEPER) as (process, _):
        child = found(deaf.pid)
        assert asyncio.run(offspring.end([child, found(process.pid)], GRACE_S)) == (child,)
        assert deaf.wait() == -signal.SIGKILL
        assert process.wait() == -signal.SIGTERM
        assert asyncio.run(offspring.end([child], 0.3)) == (), "nothing is left of it"


def test_one_that_was_stopped_hears_too() -> None:
    with started(SLEEPER) as (process, _):
        process.send_signal(signal.SIGSTOP)
        assert asyncio.run(offspring.end([found(process.pid)], LIMIT_S)) == ()
        assert process.wait() == -signal.SIGTERM


def test_what_a_child_leaves_behind_is_asked_as_well() -> None:
    with started(PARENT.format(inner=SLEEPER)) as (process, inner):
        assert asyncio.run(offspring.end([found(process.pid)], LIMIT_S)) == ()
        assert process.wait() == -signal.SIGTERM
        assert gone(int(inner))


def test_what_a_child_leaves_behind_is_known_before_the_child_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = offspring._ask

    def asked_and_gone(child: Child) -> None:
        ask(child)
        assert gone(child.pid)

    monkeypatch.setattr(offspring, "_ask", asked_and_gone)
    with started(PARENT.format(inner=SLEEPER)) as (process, inner):
        assert asyncio.run(offspring.end([found(process.pid)], LIMIT_S)) == ()
        assert gone(int(inner))


def test_what_a_child_leaves_behind_is_killed_as_well() -> None:
    with started(PARENT.format(inner=DEAF)) as (process, inner):
        killed = asyncio.run(offspring.end([found(process.pid)], GRACE_S))
        assert [child.pid for child in killed] == [int(inner)]
        assert gone(int(inner))


def test_a_child_ends_its_own_children_as_it_sees_fit() -> None:
    parent = PARENT.replace("inner.wait()", "") + (
        "import signal, time\n"
        "def ended(*_):\n    inner.kill(); print(inner.wait(), flush=True); sys.exit()\n"
        "signal.signal(signal.SIGTERM, ended)\nprint('ready', flush=True)\ntime.sleep(300)"
    )
    with started(parent.format(inner=SLEEPER)) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert asyncio.run(offspring.end([found(process.pid)], LIMIT_S)) == ()
        assert process.stdout.readline() == b"-9\n", "killed by its parent, not asked past it"


def test_whoever_cancels_leaves_none_behind() -> None:
    async def cancelled(child: Child) -> None:
        ending = asyncio.create_task(offspring.end([child], LIMIT_S))
        await asyncio.sleep(0.05)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending

    with started(DEAF) as (process, _):
        asyncio.run(cancelled(found(process.pid)))
        assert process.wait() == -signal.SIGKILL


def test_the_pid_of_another_is_not_signalled() -> None:
    with started(SLEEPER) as (process, _):
        child = found(process.pid)
        former = Child(child.pid, child.start_ticks - 1, child.name, child.parent_pid)
        assert asyncio.run(offspring.end([former], 0.3)) == ()
        assert process.poll() is None


def test_asyncio_keeps_the_status_of_its_child() -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", DEAF, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        assert len(await offspring.end([found(process.pid)], 0.3)) == 1
        assert await process.wait() == -signal.SIGKILL

    asyncio.run(main())


def test_without_pidfd_it_works_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with started(SLEEPER) as (process, _):
        assert asyncio.run(offspring.end([found(process.pid)], LIMIT_S)) == ()
        assert process.wait() == -signal.SIGTERM


HELPERS = """
import asyncio, multiprocessing, os, sys, time
from multiprocessing import resource_tracker
from outlast._runtime.process import offspring
from outlast._runtime.process import proc as process_files

def main():
    assert offspring.children() == ()
    context = multiprocessing.get_context("forkserver")
    worker = context.Process(target=time.sleep, args=(300,), daemon=True)
    worker.start()
    direct = process_files.children(os.getpid())
    assert len(direct) == 2, direct
    assert [child.pid for child in offspring.children()] == [worker.pid]
    {ending}
    worker.join(60)
    assert not worker.is_alive()
    assert process_files.children(os.getpid()) == direct
    print("done")

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    "ending",
    ["assert asyncio.run(offspring.end(offspring.children(), 30)) == ()", "assert len(offspring.kill_all()) == 1"],
)
def test_the_helpers_of_multiprocessing_are_left_and_its_workers_are_not(ending: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(HELPERS.format(ending=ending), encoding="utf-8")
    assert (
        script(f"import runpy, sys; sys.argv = [{str(program)!r}]; runpy.run_path({str(program)!r}, run_name='__main__')")
        == "done\n"
    )


FORKED = """
import asyncio, multiprocessing, time
from outlast._runtime.process import offspring

worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
worker.start()
assert asyncio.run(offspring.end(offspring.children(), 30)) == ()
assert worker.exitcode == -15, worker.exitcode
print("done")
"""


def test_multiprocessing_keeps_the_status_of_its_child() -> None:
    assert script(FORKED) == "done\n"


FOREST = """
import os, signal, subprocess, sys, time
from outlast._runtime.process import offspring
from outlast._runtime.process import proc as process_files

tree = '''
import subprocess, sys, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
depth = int(sys.argv[1])
inner = [subprocess.Popen([sys.executable, "-c", sys.argv[2], str(depth - 1), sys.argv[2]], stdout=subprocess.PIPE)
         for _ in range(2 if depth else 0)]
for each in inner:
    each.stdout.readline()
print("here", flush=True)
time.sleep(300)
'''
root = subprocess.Popen([sys.executable, "-c", tree, "2", tree], stdout=subprocess.PIPE)
root.stdout.readline()
everybody = process_files.below([os.getpid()])
assert len(everybody) == 7, everybody
{how}
until = time.monotonic() + 30
while any(process_files.lives(child) for child in everybody):
    assert time.monotonic() < until
    time.sleep(0.01)
assert root.wait() == -signal.SIGKILL
assert offspring.kill_all() == ()
root.stdout.close()
print("done")
"""
PLAIN = "assert set(offspring.kill_all()) == set(everybody); offspring.kill_all()"
HANDLER = "signal.signal(signal.SIGALRM, lambda *_: offspring.kill_all()); signal.raise_signal(signal.SIGALRM)"


@pytest.mark.parametrize("how", [PLAIN, HANDLER], ids=["plainly", "in a signal handler"])
def test_all_descendants_are_killed_at_once(how: str) -> None:
    assert script(FOREST.format(how=how)) == "done\n"


ADOPTED = """
import asyncio, ctypes, os, subprocess, sys, time
from outlast._runtime.process import offspring
from outlast._runtime.process import proc as process_files

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: orphans are given to this process
inner = "import signal, time; signal.signal(15, signal.SIG_IGN); print('here', flush=True); time.sleep(300)"
outer = '''
import subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
inner.stdout.readline()
print(inner.pid, flush=True)
time.sleep(300)
'''
process = subprocess.Popen([sys.executable, "-c", outer, inner], stdout=subprocess.PIPE)
pid = int(process.stdout.readline())
killed = asyncio.run(offspring.end(offspring.children(), 1.0))
assert [child.pid for child in killed] == [pid], killed
assert process_files.stat(pid) is None, "nobody else would have fetched its status"
assert process.wait() == -15
process.stdout.close()
print("done")
"""


def test_the_status_of_an_orphan_given_to_this_process_is_fetched() -> None:
    assert script(ADOPTED) == "done\n"


BURST = """
import os, subprocess, sys, time
from outlast._runtime.process import offspring
from outlast._runtime.process import proc as process_files

code = '''
import os, sys, time
print("here", flush=True)
while True:
    if os.fork() == 0:
        time.sleep(0.2)
        os._exit(0)
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                break
        except ChildProcessError:
            break
    time.sleep(0.001)
'''

def session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0

for _ in range(5):
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    time.sleep(0.05)
    killed = offspring.kill_all()
    assert process.pid in [child.pid for child in killed]
    assert process.wait() == -9
    process.stdout.close()
    session = [int(name) for name in os.listdir("/proc") if name.isdigit() and session_of(int(name)) == process.pid]
    slipped = [child for pid in session if (child := process_files.child(pid)) is not None and child not in killed]
    assert not slipped, slipped
print("done")
"""


def test_one_that_keeps_starting_others_leaves_none_behind() -> None:
    assert script(BURST) == "done\n"


def test_no_descriptors_left_is_said(monkeypatch: pytest.MonkeyPatch, expected_logs: object) -> None:
    def exhausted(*args: object, **kwargs: object) -> str:
        raise OSError(24, "Too many open files")

    assert callable(expected_logs)
    expected_logs("child processes may be left behind: cannot look for them: .*Too many open files")
    with started(SLEEPER) as (process, _):
        with monkeypatch.context() as patch:
            patch.setattr(process_files.Path, "read_text", exhausted)
            with pytest.raises(OSError, match="Too many"):
                offspring.children()
            assert offspring.kill_all() == ()
        assert process.poll() is None
