"""`outlast guard` around real programs: exit codes, signals, restarts, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from guarded import Guarded, guard, python, until

import exposition
from outlast._programs.guard import processes
from outlast._runtime.process import proc as process_files

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see what is left behind")

SIGNALS = """
import signal, sys, time
def show(number, frame): print(signal.Signals(number).name, flush=True)
for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"):
    signal.signal(getattr(signal, name), show)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
print("ready", flush=True)
while True: time.sleep(60)
"""

FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) < 2:
    subprocess.Popen([sys.executable, "-c", {source!r}, "child"])                            # in the same group
    subprocess.Popen([sys.executable, "-c", {source!r}, "session"], start_new_session=True)  # in a session of its own
    if os.fork() == 0:                                                                       # a daemon, with no parent
        os.setsid()
        if os.fork() == 0: time.sleep(600)
        os._exit(0)
    os.wait()
    print("ready", flush=True)
time.sleep(600)
"""
STUBBORN = FAMILY.format(source="import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")


@pytest.mark.short
def test_both_streams_stdin_arguments_and_the_exit_code_are_the_programs() -> None:
    program = "import sys; print('out', sys.argv[1:], sys.stdin.read()); print('err', file=sys.stderr); sys.exit(3)"
    code, out, err = guard(*python(program), "--restart", "$HOME", "a b", data=b"from stdin")
    assert (code, out, err) == (3, "out ['--restart', '$HOME', 'a b'] from stdin\n", "err\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--", "no-such-program"], 127, "cannot run 'no-such-program': there is no such program on PATH"),
        (["--", "/no/such/program"], 127, "cannot run '/no/such/program': there is no such file"),
        (["--", "/etc/passwd"], 126, "cannot run '/etc/passwd': Permission denied"),
        ([], 64, "Missing argument"),
        (["--restart", "sometimes", "--", "true"], 64, "--restart"),
        (["--log-only", "--", "true"], 64, "--log-only needs --log FILE"),
        (["--log-size", "many", "--", "true"], 64, "'many' is not a size"),
        (["--listen", "somewhere", "--", "true"], 64, "'somewhere' is no address"),
        (["--restarts-max", "-1", "--", "true"], 64, "not a number of restarts"),
        (["--log", "/no/such/directory/log", "--", "true"], 78, "cannot log to /no/such/directory/log: No such file"),
        (["--log", "/dev/null", "--", "true"], 78, "cannot log to /dev/null: it is no regular file"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(words: list[str], code: int, said: str) -> None:
    got, out, err = guard(*words)
    assert (got, out, len(err.splitlines())) == (code, "", 1)
    assert said in err


def test_an_interpreter_that_is_missing_is_named_as_that(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    code, _, err = guard("--", str(script))
    assert code == 127
    assert "its interpreter is missing" in err


def test_an_unfinished_last_line_stays_unfinished() -> None:
    assert guard("--no-fold", *python("print('a\\nb', end='')")) == (0, "a\nb", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_end_by_a_signal_is_told_as_a_shell_does(number: int) -> None:
    code, _, _ = guard(*python(f"import os; os.kill(os.getpid(), {int(number)})"))
    assert code == 128 + number


def test_signals_are_forwarded_and_sigterm_is_obeyed() -> None:
    with Guarded(*python(SIGNALS)) as guarded:
        assert guarded.line() == "ready"
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGWINCH, signal.SIGINT, signal.SIGQUIT):
            guarded.send(number)
            assert guarded.line() == number.name
        guarded.send(signal.SIGTERM)
        assert guarded.finish() == (7, "", "")


def test_what_nohup_ignores_stays_ignored() -> None:
    with Guarded(
        *python("import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True); input()"),
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as guarded:
        assert guarded.line() == "True"
        guarded.send(signal.SIGHUP)
        assert guarded.finish(b"\n")[0] == 0


def test_what_ignores_sigterm_is_killed_with_all_its_family() -> None:
    with Guarded("--stop-after", "300ms", *python(STUBBORN)) as guarded:
        assert guarded.line() == "ready"
        assert len(guarded.alive()) == 5
        guarded.send(signal.SIGTERM)
        code, _, err = guarded.finish()
        assert guarded.alive() == []
    assert code == 137
    assert re.fullmatch(r"outlast guard: python\S* did not end within 0\.3 s of SIGTERM and is killed\n", err)


def test_what_the_program_leaves_behind_is_ended_when_it_ends() -> None:
    """Its own end is not changed by that; what listens to SIGTERM is not killed."""
    child = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit())); "
        "print('up', flush=True); print('up', file=sys.stderr, flush=True); time.sleep(600)"
    )
    program = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True, stderr=subprocess.PIPE)
child.stderr.readline()
sys.exit(5)
"""
    assert guard(*python(program)) == (5, "up\nbye\n", "")


def test_when_the_guard_itself_is_killed_the_program_is_told() -> None:
    with Guarded(*python("import time; print('ready', flush=True); time.sleep(600)")) as guarded:
        assert guarded.line() == "ready"
        guarded.send(signal.SIGKILL)
        guarded.process.wait()
        until(lambda: guarded.alive() == [])


def test_restarts_wait_longer_and_longer_and_end_at_the_limit(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    program = f"open({str(runs)!r}, 'a').write('run\\n'); print('cannot connect'); raise SystemExit(9)"
    code, out, err = guard("--no-fold", "--restart", "on-failure", "--restarts-max", "5", "--wait-max", "200ms", *python(program))
    assert (code, runs.read_text()) == (9, "run\n" * 6)
    assert out == "cannot connect\n" * 6
    told = err.splitlines()
    assert [re.sub(r"\d\.\d", "#", line.partition(" ended ")[2]) for line in told] == [
        "with 9 after # s; it is started again in # s",
        "with 9 after # s; it is started again in # s (2 ends in a row)",
        "with 9 after # s; it is started again in # s (4 ends in a row)",
        "with 9 after # s; 5 restarts within 60 s did not help: the guard gives up with exit code 9",
    ]


def test_a_clean_end_is_no_failure(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    program = (
        f"runs = open({str(runs)!r}, 'a+'); runs.write('x'); runs.seek(0); raise SystemExit(0 if runs.read() == 'xxx' else 1)"
    )
    code, _, _ = guard("--restart", "on-failure", "--wait-max", "50ms", *python(program))
    assert (code, runs.read_text()) == (0, "xxx")


def test_a_program_that_was_killed_is_started_again_and_sigterm_ends_it_all() -> None:
    with Guarded(
        "--no-fold",
        "--restart",
        "on-failure",
        "--wait-max",
        "50ms",
        *python("import os, time; print(os.getpid()); time.sleep(600)"),
    ) as guarded:
        first = int(guarded.line())
        os.kill(first, signal.SIGKILL)
        second = int(guarded.line())
        assert second != first
        guarded.send(signal.SIGTERM)
        code, _, err = guarded.finish()
        assert guarded.alive() == []
    assert code == 143
    assert len(err.splitlines()) == 1
    assert "ended with 137 (SIGKILL)" in err


def test_a_wait_for_a_restart_ends_at_once_when_it_is_asked_to() -> None:
    words = ["--no-fold", "--restart", "always", "--wait-max", "1h", "--restarts-max", "unlimited"]
    with Guarded(*words, *python("print('ready'); raise SystemExit(4)")) as guarded:
        for _ in range(6):
            assert guarded.line() == "ready"
        guarded.send(signal.SIGTERM)
        assert guarded.finish()[0] in {4, 143}


def test_the_line_that_a_crash_cut_does_not_run_into_the_next_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    count = f"runs = open({str(runs)!r}, 'a+'); runs.write('x'); runs.seek(0)"
    program = f"{count}; print('begun', end=''); raise SystemExit(len(runs.read()) < 2)"
    assert guard("--no-fold", "--restart", "on-failure", "--wait-max", "50ms", *python(program))[:2] == (0, "begun\nbegun")


STORM = """
import sys
for number in range(100_000):
    sys.stdout.write("cannot connect to db:5432\\n")
    sys.stderr.write(f"request {number} failed: HTTP 503\\n")
sys.stdout.write("something else\\n")
sys.stderr.write("request 1 failed: HTTP 404\\n")
"""


@pytest.mark.short
def test_a_storm_becomes_a_few_lines_with_exact_counts_on_each_stream(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code, out, err = guard("--log", str(log), *python(STORM))
    assert code == 0
    for text, first, other in [
        (out, "cannot connect to db:5432", "something else"),
        (err, "request 0 failed: HTTP 503", "request 1 failed: HTTP 404"),
    ]:
        lines = text.splitlines()
        assert lines[0] == first
        assert other in lines
        assert len(lines) <= 6
        # The first one is shown, all others are counted.
        assert sum(int(count) for count in re.findall(r"^outlast: (\d+) more", text, re.MULTILINE)) == 99_999
    assert sorted(log.read_text().splitlines()) == sorted((out + err).splitlines())


HEADLESS = """
import ctypes, os, sys, threading, time
read, write = os.pipe()
if os.fork():
    os.read(read, 1)
    print("left", flush=True)
    os._exit(0)
os.setsid()
print(os.getpid(), flush=True)
def go_on():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z": time.sleep(0.01)
    os.write(write, b"x")
    time.sleep(600)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""Leaves behind a process whose first thread has ended, so that it looks like a zombie, and is none."""


def test_a_process_that_goes_on_without_its_first_thread_is_not_left_behind() -> None:
    code, out, _ = guard(*python(HEADLESS))
    pid, left = out.splitlines()
    assert (code, left) == (0, "left")
    seen = process_files.stat(int(pid))
    assert seen is None or seen.dead


def test_what_was_counted_survives_the_kill_of_the_program() -> None:
    program = "import os; os.write(1, b'cannot connect\\n' * 50_000 + b'last words'); os.kill(os.getpid(), 9)"
    code, out, _ = guard(*python(program))
    assert code == 137
    lines = out.splitlines()
    assert lines[0] == "cannot connect"
    assert "last words" in lines
    assert sum(int(count) for count in re.findall(r"^outlast: (\d+) more", out, re.MULTILINE)) == 49_999


def test_a_storm_goes_on_over_restarts_and_its_traceback_is_shown_once() -> None:
    words = ["--restart", "on-failure", "--restarts-max", "3", "--wait-max", "50ms"]
    code, out, err = guard(*words, *python("def settle(): raise ValueError(17)\nsettle()"))
    assert (code, out) == (1, "")
    assert err.splitlines().count("ValueError: 17") == 1
    assert re.search(r"^outlast: 3 more .*, 4 in all since .*ValueError: 17", err, re.MULTILINE)
    # What the guard says about an end comes after what the program said about it.
    assert err.index("ValueError: 17") < err.index("outlast guard: ")


def test_processor_time_is_read_for_every_process_below() -> None:
    with Guarded("--", "sh", "-c", f"{sys.executable} -c 'print(1)\nwhile True: pass'; true") as guarded:
        assert guarded.line() == "1"
        below = processes.descendants(guarded.process.pid)
        assert len(below) == 2
        until(lambda: max(processes.cpu_s_of(below).values()) > 0.2)
        assert processes.cpu_s_of([0]) == {}
        guarded.send(signal.SIGINT)
        guarded.finish()


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_endpoint_tells_readiness_liveness_and_figures(tmp_path: Path) -> None:
    program = "import time; print('a\\nb'); time.sleep(600)"
    with Guarded(
        "--listen", "127.0.0.1:0", "--ready-after", "200ms", "--log", str(tmp_path / "log"), *python(program)
    ) as guarded:
        assert guarded.process.stderr is not None
        address = guarded.process.stderr.readline().decode().split()[-1]
        until(lambda: get(address, "/readyz")[0] == 200)
        assert get(address, "/livez")[0] == 200
        assert get(address, "/secrets")[0] == 404
        until(lambda: 'read_lines_total{stream="stdout"} 2\n' in get(address, "/metrics")[1])
        figures = get(address, "/metrics")[1]
        assert "outlast_guard_up 1\n" in figures
        families = exposition.read(figures)
        assert families["outlast_guard_read_bytes_total"].samples[(("stream", "stdout"),)] == 4
        assert families["outlast_guard_log_cap_bytes"].kind == "gauge"
        assert f'dropped_lines_total{{place="{tmp_path / "log"}"}} 0\n' in figures
        # Idle connections take all the places, and are cut after a while; the guard does not wait for them.
        host, _, port = address.partition(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(20)]
        guarded.send(signal.SIGTERM)
        assert guarded.finish()[0] == 143
        for connection in idle:
            connection.close()


def test_while_it_waits_for_a_restart_it_is_alive_but_not_ready() -> None:
    words = ["--listen", "127.0.0.1:0", "--ready-after", "0s", "--restart", "always", "--restarts-max", "unlimited"]
    with Guarded(*words, *python("raise SystemExit(2)")) as guarded:
        assert guarded.process.stderr is not None
        address = guarded.process.stderr.readline().decode().split()[-1]
        until(lambda: "waiting; last exit code 2" in get(address, "/readyz")[1])
        assert get(address, "/livez")[0] == 200
        guarded.send(signal.SIGTERM)
        guarded.finish()


HINT = "choose another address, or end the process that has this one"


def test_an_address_in_use_is_found_before_the_program_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = guard("--listen", str(port), "--", "touch", str(tmp_path / "started"))
    assert (code, err) == (78, f"outlast: cannot listen on 127.0.0.1:{port}: Address already in use; {HINT}\n")
    assert not (tmp_path / "started").exists()


def test_closed_standard_descriptors_do_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = f'exec "{sys.executable}" -m outlast guard --log "{log}" -- sh -c "echo out; echo err >&2" <&- >&- 2>&-'
    src = Path(__file__).parents[3] / "src"
    done = subprocess.run(["/bin/sh", "-c", line], env={**os.environ, "PYTHONPATH": str(src)}, check=False, timeout=60)
    assert done.returncode == 0
    assert sorted(log.read_text().splitlines()) == ["err", "out"]
