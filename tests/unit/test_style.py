"""The house rules that a program can check."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "outlast"
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
NOT_IN_CORE = {
    "asyncio",
    "logging",
    "os",
    "random",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}
NOT_A_NAME = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns", "sleep"}

CLOCK = re.compile(r"\b(?:monotonic|perf_counter|time)\(\)")
MOMENT = re.compile(r"(?:^|_)(?:at|began|start|started|released)(?:_s)?$")
DURATION = re.compile(r"(?:^|[._])(?:took|elapsed|waited|lasted)(?:_m?s)?$")
"""What tells the time, and how tests name when something was and how long it took."""
SOMEBODYS_PATH = re.compile(r"(?<![\w.}/-])/(?:work|root|home|Users|tmp/plan)\b[\w/.-]*")

SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
ALL = [*SOURCES, *TESTS, *sorted((ROOT / "bench").rglob("*.py")), *sorted(ROOT.glob("dev*.py"))]


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            continue
        yield node
        yield from runtime_nodes(node)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def calls(tree: ast.AST, module: str) -> Iterator[ast.Call]:
    """Calls of the form `module.function(...)`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == module
        ):
            yield node


@each(ALL)
def test_a_file_is_one_idea(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES_MAX, f"{lines} lines; a file has at most {FILE_LINES_MAX}: split it by idea"
    assert path.stem not in NOT_A_NAME, "a name says what is inside"


@each(SOURCES)
def test_a_function_can_be_read_at_once(path: Path) -> None:
    long = [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


@each(sorted((PACKAGE / "_core").rglob("*.py")))
def test_the_core_has_no_clock_and_does_no_input_or_output(path: Path) -> None:
    assert not set(imported(parsed(path))) & NOT_IN_CORE


@each([path for path in TESTS if "real" not in path.relative_to(ROOT / "tests").parts])
def test_tests_do_not_wait(path: Path) -> None:
    """Outside tests/real nothing reads a clock or sleeps; `asyncio.sleep` is for virtual time, where it takes none."""
    tree = parsed(path)
    clocks = [f"line {call.lineno}" for call in calls(tree, "time") if ast.unparse(call.func).removeprefix("time.") in CLOCKS]
    assert not clocks, f"reads the clock or sleeps: {', '.join(clocks)}"
    sleeps = [
        call.lineno
        for call in calls(tree, "asyncio")
        if ast.unparse(call) != "asyncio.sleep(0)" and ast.unparse(call.func) == "asyncio.sleep"
    ]
    real = [call.lineno for call in calls(tree, "asyncio") if ast.unparse(call.func) == "asyncio.run"]
    assert not (sleeps and real), f"sleeps (line {sleeps[0]}) and runs a real loop (line {real[0]}): use run_virtual"


def is_a_measured_time(node: ast.expr) -> bool:
    """Whether an expression is how long something took: a difference of moments, or what is named so."""
    differences = (inner for inner in ast.walk(node) if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub))
    return bool(DURATION.search(ast.unparse(node))) or any(
        CLOCK.search(ast.unparse(inner)) or (isinstance(inner.right, ast.Name) and MOMENT.search(inner.right.id))
        for inner in differences
    )


def says_how_quickly(tree: ast.AST) -> Iterator[int]:
    """The lines of assertions that something took less than so long."""
    for node in ast.walk(tree):
        for compare in ast.walk(node.test) if isinstance(node, ast.Assert) else ():
            if isinstance(compare, ast.Compare):
                sides = [compare.left, *compare.comparators]
                for left, operator, right in zip(sides, compare.ops, sides[1:], strict=False):
                    less = left if isinstance(operator, ast.Lt | ast.LtE) else right
                    if isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and is_a_measured_time(less):
                        yield node.lineno


@each([path for path in TESTS if "real" in path.relative_to(ROOT / "tests").parts])
def test_tests_assert_order_and_counts_and_never_how_quickly(path: Path) -> None:
    """On a busy machine everything takes longer: a time that is promised is measured by bench and drill."""
    lines = sorted(set(says_how_quickly(parsed(path))))
    assert not lines, f"line {lines[0]} compares a measured time with a limit: assert order, counts or states"


def test_what_says_how_quickly_is_seen() -> None:
    wrong = (
        "assert time.monotonic() - began < 2",
        "assert 5 >= loop.time() - cancelled_at",
        "assert ended.took_s < 2.0 * 1.1",
        "assert max(await asyncio.gather(*waiters)) - down_at < 5",
    )
    right = ("assert time.monotonic() < end", "assert loop.time() - began >= 0.2", "assert len(gaps) - 1 < 5")
    assert [list(says_how_quickly(ast.parse(text))) for text in wrong] == [[1]] * 4
    assert [list(says_how_quickly(ast.parse(text))) for text in right] == [[]] * 3


def test_what_is_run_on_every_python_is_there() -> None:
    from conftest import EVERY_PYTHON

    assert [name for name in EVERY_PYTHON if not (ROOT / "tests" / name).exists()] == []


@pytest.mark.parametrize("door", ["outlast", "outlast.admission"])
def test_importing_a_door_loads_nothing_of_third_parties_and_no_event_loop(door: str) -> None:
    probe = (
        f"import sys; before = set(sys.modules); import {door}; "
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(loaded - (sys.stdlib_module_names - {'asyncio', 'logging', 'socket', 'ssl'}) - {'outlast'}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert done.stdout.split() == []


def test_the_list_of_versions_names_no_place_to_fetch_them_from() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in pins
    assert "--" not in pins
    assert "@" not in pins


def test_no_file_names_a_directory_of_the_machine_it_was_written_on() -> None:
    """Absolute paths below somebody's home or workplace mean nothing to a reader."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone, to know which files belong to the project")
    # Whichever git is on PATH made the clone.
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    found = [
        f"{name}: {match.group()}"
        for name in listed.split("\0")
        if name and (ROOT / name).is_file()
        for match in SOMEBODYS_PATH.finditer((ROOT / name).read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found
