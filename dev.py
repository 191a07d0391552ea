#!/usr/bin/env python3
"""Sets up what a task needs and runs it; needs nothing but Python 3.11 or later.

    python3 dev.py drill [coder|electric|fluvio|greptime] [arguments of `outlast drill`]
    python3 dev.py test  [--python 3.12] [arguments of pytest]
    python3 dev.py lint  [--fix]
    python3 dev.py bench [name, as in bench/README.md] [arguments]
    python3 dev.py sim   [--hours 1] [--seed 0] [arguments of tests.sim]
    python3 dev.py size  [--json]
    python3 dev.py picture [--check]

`test` without arguments checks style, types and layers once, runs all tests but the long ones on the newest Python of 3.11 to
3.13 that the machine has, and on the others those of what can differ between them; it fails when a part costs more processor
time than its share. With arguments it runs pytest alone, on the newest: `test --long` runs the long tests too.
`size` counts statements, lines and public names; `picture` draws docs/architecture.svg from the imports.
Virtual environments are kept in .venv and .venvs, and made again when pyproject.toml or constraints.txt change.
"""

import glob
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NEWEST = (3, 13)


def _start_again_with_newer_python() -> None:
    """Replace this process by one whose Python can run the rest of this file, which older ones compile all the same."""
    programs = glob.glob(os.path.expanduser("~/.pyenv/versions/3.1[123].*/bin/python3.1[123]"))
    programs += [program for minor in (13, 12, 11) for program in [shutil.which(f"python3.{minor}")] if program]
    for program in programs:
        # A switch such as pyenv's may carry the name and have nothing to start.
        if subprocess.call([program, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            os.execv(program, [program, *sys.argv])
    here = f"{sys.version.split()[0]} at {sys.executable}"
    sys.exit(f"dev.py: needs Python 3.11 to 3.13, found none, and was started with {here}; install one of them")


if sys.version_info < OLDEST:
    _start_again_with_newer_python()

import hashlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent
PINS = ROOT / "constraints.txt"
STAMP = "outlast-stamp"
PROBE = "import ensurepip, sys, venv; print(sys.version_info.major, sys.version_info.minor)"

OTHER_PYTHONS = "other Pythons"
SHARES_S = {"lint": 48, "tests/unit": 165, "tests/contract": 9, "tests/sim": 28, "tests/real": 504, OTHER_PYTHONS: 248}
"""The most that each part of `test` may cost: seconds of processor time, user and system, of all its processes.

Together 1,002, not quite 17 minutes on two cores, for what stands: a runtime, a job queue, a change stream, durable streams with
their node and client, procedures with their three stores, tables with their doors and two stores, admission and the shell of
servers. Each system to come brings a share of its own, and the whole may reach 26 minutes when all are there. A busy machine
makes the same work dearer by a tenth or two (shared caches and cores): that margin is in the shares, compared as they are.
"""

Version = tuple[int, int]


class SetupError(Exception):
    """Something the task needs could not be set up; the message says what to do."""


@dataclass(frozen=True)
class Tally:
    """The counts of one run of pytest."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"


@dataclass(frozen=True)
class Done:
    """The end of a program: exit code, what it printed unless that was shown at once, and the cost of it and its children."""

    returncode: int
    printed: str
    cpu_s: float


@dataclass(frozen=True)
class Part:
    """One run of pytest: its name in the table of shares, the version it ran on, and what came of it."""

    name: str
    version: Version
    tally: Tally
    cpu_s: float
    printed: str = ""


def say(text: str) -> None:
    """Print a line of progress at once, so that it stands before what the next program prints."""
    print(f"dev: {text}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run one task; return the exit code: 0 all is well, 1 a check or test failed, 2 it could not be set up or asked for."""
    tasks: dict[str, Callable[[list[str]], int]] = {
        "drill": drill,
        "test": test,
        "lint": lint_alone,
        "bench": bench,
        "sim": sim,
        "size": size,
        "picture": picture,
    }
    if not arguments or arguments[0] not in tasks:
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    os.chdir(ROOT)
    try:
        return tasks[arguments[0]](list(arguments[1:]))
    except SetupError as exc:
        say(f"error: {exc}")
        return 2
    except KeyboardInterrupt:
        return 130


def drill(arguments: list[str]) -> int:
    """Set up .venv and run a drill in it, the one of the job service unless another is named."""
    python = environment(newest(find_pythons()), ROOT / ".venv", "all")
    name = arguments.pop(0) if arguments[:1] in (["coder"], ["electric"], ["fluvio"], ["greptime"]) else "coder"
    return run([python.parent / "outlast", "drill", name, *arguments])


def bench(arguments: list[str]) -> int:
    """Set up the development environment and run the benchmarks, or the one that is named."""
    names = sorted(path.stem for path in (ROOT / "bench").glob("[a-z]*.py"))
    chosen = [arguments.pop(0)] if arguments and arguments[0] in names else names
    python = development_environment(newest(find_pythons()))
    return max(run([python, f"bench/{name}.py", *arguments]) for name in chosen)


def sim(arguments: list[str]) -> int:
    """Set up the development environment and run the simulator."""
    return run([development_environment(newest(find_pythons())), "-m", "tests.sim", *arguments])


def size(arguments: list[str]) -> int:
    """Count statements, lines and public names."""
    return run([Path(sys.executable), "dev_size.py", *arguments])


def picture(arguments: list[str]) -> int:
    """Draw the packages and their imports."""
    return run([Path(sys.executable), "dev_picture.py", *arguments])


def lint_alone(arguments: list[str]) -> int:
    """Set up the development environment and check style, types and layers; `--fix` lays out and mends first what it can."""
    if arguments not in ([], ["--fix"]):
        msg = f"lint takes no argument but --fix, and was given {' '.join(arguments)}"
        raise SetupError(msg)
    python = development_environment(newest(find_pythons()))
    if arguments:
        run([python.parent / "ruff", "check", "--fix", "--quiet"])
        run([python.parent / "ruff", "format", "--quiet"])
    return 1 if lint(python)[0] else 0


def test(arguments: list[str]) -> int:
    """Set up an environment for each Python and run the tests; the last line sums them up."""
    pythons = find_pythons()
    if arguments[:1] == ["--python"]:
        pythons = only(pythons, arguments[1] if len(arguments) > 1 else "")
        arguments = arguments[2:]
    if arguments:
        return run([development_environment(newest(pythons)), "-m", "pytest", *arguments])
    ready = environments(pythons)
    say(f"set-up: {children_cpu_s():.0f} s of processor time, in no share")
    broken, lint_cpu_s = lint(next(iter(ready.values())))
    parts = pytest_on_all(ready)
    say("checks: " + (f"FAILED: {', '.join(broken)}" if broken else "passed"))
    tallies = {version: sum((part.tally for part in parts if part.version == version), Tally()) for version in ready}
    for version, tally in tallies.items():
        say(f"Python {dotted(version)}: {tally}, {tally.skipped} skipped")
    above = compare_with_shares([("lint", lint_cpu_s), *((part.name, part.cpu_s) for part in parts)])
    total = sum(tallies.values(), Tally())
    print(total, flush=True)
    # A version without a single test passed has shown nothing.
    return 1 if broken or above or total.failed or not all(tally.passed for tally in tallies.values()) else 0


def compare_with_shares(costs: Iterable[tuple[str, float]]) -> list[str]:
    """Print what each part cost beside its share, and what to do about those above it; return their names."""
    seen: dict[str, float] = {}
    for name, cpu_s in costs:
        seen[name] = seen.get(name, 0.0) + cpu_s
    say("seconds of processor time, user and system:")
    for name, cpu_s in [*seen.items(), ("together", sum(seen.values()))]:
        say(f"  {name:<14}{cpu_s:>6.0f} of {SHARES_S.get(name, sum(SHARES_S.values()))}")
    above = [name for name, cpu_s in seen.items() if cpu_s > SHARES_S[name]]
    for name in above:
        say(
            f"FAILED: {name} cost {seen[name]:.0f} s of processor time, and its share is {SHARES_S[name]} s: make the costliest"
            f" tests (pytest lists them at its end) cheaper, mark them `long` and leave a cheap twin, or move shares in SHARES_S"
        )
    return above


def only(pythons: dict[Version, Path], wanted: str) -> dict[Version, Path]:
    """Return the one version that was asked for."""
    chosen = {version: program for version, program in pythons.items() if dotted(version) == wanted}
    if not chosen:
        msg = f"asked for Python {wanted or '(none was named)'}, and this machine has {', '.join(map(dotted, pythons))}"
        raise SetupError(msg)
    return chosen


def environments(pythons: dict[Version, Path]) -> dict[Version, Path]:
    """Set up an environment for each version; the newest, which comes first, gets the tools of development too."""
    first, *others = pythons.items()
    say(f"found Python {', '.join(map(dotted, pythons))}")
    with ThreadPoolExecutor(max_workers=2) as pool:
        beside = {python[0]: pool.submit(environment, python, environment_path(python[0]), "test") for python in others}
        return {first[0]: development_environment(first), **{version: future.result() for version, future in beside.items()}}


def pytest_on_all(ready: dict[Version, Path]) -> list[Part]:
    """Run all tests on the first version, and on the others those of what can differ between versions."""
    (main_version, main_python), *others = ready.items()
    # The tests in tests/real stage outages and mostly wait, so everything else has its turn beside them.
    with ThreadPoolExecutor(max_workers=1) as pool:
        beside = [
            pool.submit(pytest, name, main_version, main_python, [name]) for name in ("tests/unit", "tests/contract", "tests/sim")
        ]
        beside += [pool.submit(pytest, OTHER_PYTHONS, *other, ["--any-python"]) for other in others]
        say(f"tests/real on Python {dotted(main_version)}, everything else beside it")
        parts = [pytest("tests/real", main_version, main_python, ["tests/real"], at_once=True)]
        for part in (future.result() for future in beside):
            parts.append(part)
            what = "what can differ" if part.name == OTHER_PYTHONS else part.name
            say(f"{what} on Python {dotted(part.version)}")
            print(part.printed, flush=True)
    return parts


def lint(python: Path) -> tuple[list[str], float]:
    """Check style, types and layers; return the names of the checks that failed, and the seconds of processor time of all."""
    tools = python.parent
    checks: dict[str, list[Path | str]] = {
        "ruff check": [tools / "ruff", "check", "--quiet"],
        "ruff format": [tools / "ruff", "format", "--check", "--quiet"],
        "mypy": [tools / "mypy", "--no-error-summary"],
        "basedpyright": [tools / "basedpyright", "--level", "error", "--pythonpath", python],
        "import-linter": [tools / "lint-imports", "--no-logo"],
    }
    broken: list[str] = []
    cpu_s = 0.0
    for name, command in checks.items():
        done = measured(command)
        cpu_s += done.cpu_s
        say(f"{name}: {'passed' if done.returncode == 0 else 'FAILED'} ({done.cpu_s:.0f} s of processor time)")
        if done.returncode:
            broken.append(name)
            print(done.printed, flush=True)
    return broken, cpu_s


def pytest(name: str, version: Version, python: Path, arguments: Sequence[str], *, at_once: bool = False) -> Part:
    """Run tests on one version; what is printed is kept unless it was to be printed `at_once`.

    A run that ends without a report, or with an exit code that its report does not explain, counts as a failure.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        # A cache of its own: others run at the same time.
        cache = f"cache_dir=.venvs/cache-{dotted(version)}-{name.replace('/', '-').replace(' ', '-')}"
        done = measured([python, "-m", "pytest", "-q", f"--junitxml={report}", "-o", cache, *arguments], at_once=at_once)
        tally = tally_of(report)
    if done.returncode and not tally.failed:
        tally += Tally(failed=1)
    return Part(name, version, tally, done.cpu_s, done.printed)


def measured(command: Sequence[Path | str], *, at_once: bool = False) -> Done:
    """Run a program to its end; its cost includes that of all processes that it and they have waited for."""
    with tempfile.TemporaryFile() as output:
        into = None if at_once else output
        with subprocess.Popen(command, stdout=into, stderr=into) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Done(process.returncode, output.read().decode(errors="replace"), usage.ru_utime + usage.ru_stime)


def children_cpu_s() -> float:
    """Return the processor time of all children that have ended so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tally_of(report: Path) -> Tally:
    """Add up a report in JUnit's format, which pytest wrote just now."""
    if not report.exists():
        return Tally()
    suites = list(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314  our own file
    total, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return Tally(passed=total - failures - errors - skipped, failed=failures + errors, skipped=skipped)


def run(command: Sequence[Path | str]) -> int:
    """Run a program in the foreground; return its exit code."""
    return subprocess.run(command, check=False).returncode


def find_pythons() -> dict[Version, Path]:
    """Return a program for each version of Python, 3.11 to 3.13, that the machine has, the newest first."""
    found: dict[Version, Path] = {}
    for program in candidates():
        # What starts is asked for its version: the name may be that of a switch that starts another one.
        done = subprocess.run([program, "-c", PROBE], check=False, capture_output=True, text=True)
        numbers = done.stdout.split()
        if done.returncode == 0 and len(numbers) == 2 and all(number.isdigit() for number in numbers):
            version = (int(numbers[0]), int(numbers[1]))
            if OLDEST <= version <= NEWEST:
                found.setdefault(version, program)
    if not found:
        msg = "no Python of 3.11 to 3.13 here can make virtual environments; on Debian: apt-get install python3-venv"
        raise SetupError(msg)
    return dict(sorted(found.items(), reverse=True))


def candidates() -> Iterable[Path]:
    """Yield every program that may be such a Python: this one, those of pyenv, those on PATH and in the usual places."""
    yield Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [Path(place) for place in (os.environ.get("PATH") or "").split(os.pathsep) if place]
    places += [Path("/usr/local/bin"), Path("/usr/bin"), Path("/opt/homebrew/bin")]
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        name = f"python3.{minor}"
        installed = sorted(pyenv.glob(f"3.{minor}.*/bin/{name}"), key=patch_number, reverse=True)
        for program in [*installed, *(place / name for place in places)]:
            if os.access(program, os.X_OK):
                yield program


def patch_number(program: Path) -> int:
    """Return 7 for `3.11.7/bin/python3.11`, and 0 for a name without a plain number."""
    last = program.parts[-3].rpartition(".")[2]
    return int(last) if last.isdigit() else 0


def newest(pythons: dict[Version, Path]) -> tuple[Version, Path]:
    """Return the newest version and its program."""
    return next(iter(pythons.items()))


def dotted(version: Version) -> str:
    """Write a version as people do."""
    return f"{version[0]}.{version[1]}"


def environment_path(version: Version) -> Path:
    """Return the directory of the virtual environment of one version."""
    return ROOT / ".venvs" / dotted(version)


def development_environment(python: tuple[Version, Path]) -> Path:
    """Return the Python of an environment with all that checks, tests and benchmarks need."""
    return environment(python, environment_path(python[0]), "dev")


def environment(python: tuple[Version, Path], directory: Path, extra: str) -> Path:
    """Return the Python of an up-to-date virtual environment, which is made when it is missing or old."""
    version, program = python
    inside = directory / "bin" / "python"
    stamp = directory / STAMP
    made_from = fingerprint(program)
    made = stamp.read_text(encoding="utf-8") if inside.exists() and stamp.exists() else ""
    # The environment of development has what the tests need, and more.
    if made in {f"{made_from} {extra}", f"{made_from} dev"}:
        return inside
    say(f"setting up {directory.relative_to(ROOT)} with Python {dotted(version)}; the first time this takes a minute or two")
    began_s = time.monotonic()
    step([program, "-m", "venv", "--clear", directory], f"making the virtual environment {directory}")
    pip: list[Path | str] = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", PINS]
    if extra == "test":
        # A part of the tests alone runs here: what it imports is compiled then, which costs half of compiling everything now.
        pip.append("--no-compile")
    # The build tools come from the same list of versions, so nothing is built in an environment of its own. A peer of the
    # bench needs setuptools.
    step([*pip, "hatchling", "editables", "setuptools"], "installing the build tools")
    step([*pip, "--no-build-isolation", "--editable", f".[{extra}]"], f"installing outlast[{extra}]")
    stamp.write_text(f"{made_from} {extra}", encoding="utf-8")
    say(f"{directory.relative_to(ROOT)} is ready ({time.monotonic() - began_s:.0f} s)")
    return inside


def fingerprint(program: Path) -> str:
    """Return a text that changes with whatever an environment is made from."""
    digest = hashlib.sha256(f"{ROOT}\n{program}\n".encode())
    for path in (ROOT / "pyproject.toml", PINS):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def step(command: Sequence[Path | str], what: str) -> None:
    """Run a step of the set-up quietly; raises SetupError with the end of what it printed when it fails."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        msg = f"{what} failed with exit code {done.returncode}; it printed last:\n{done.stdout[-2000:].strip()}"
        raise SetupError(msg)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
