from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

import outlast
from outlast._cli.app import app
from outlast._cli.jobs.shown import age

if TYPE_CHECKING:
    from pathlib import Path


def outlast_(*words: str, **extra: str) -> Result:
    return CliRunner(env={"OUTLAST_DSN": "", **extra}).invoke(app, words)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def the_line(result: Result) -> str:
    """What a mistake writes: one line on stderr, nothing on stdout, no traceback."""
    assert result.stdout == ""
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("outlast: ")
    return line


def test_version() -> None:
    result = outlast_("--version")
    assert (result.exit_code, result.stdout) == (0, f"outlast {outlast.__version__}\n")


def test_help_names_every_command() -> None:
    result = outlast_("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("up", "drill", "jobs"))


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("up", "--help"),
        *(("drill", name, "--help") for name in ("coder", "greptime")),
        *(("jobs", name, "--help") for name in ("migrate", "enqueue", "list", "counts", "retry", "cancel", "purge")),
    ],
)
def test_every_command_has_help_or_says_what_is_missing(words: tuple[str, ...]) -> None:
    result = outlast_(*words)
    assert result.exit_code == (0 if "--help" in words else 64)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("--frob",), "--frob"),
        (("up", "shop"), "'shop' does not name a service; write MODULE:SERVICE"),
        (("up", "shop:"), "does not name a service"),
        (("up", "../shop:service"), "does not name a service"),
        (("drill", "coder", "--outage", "soon"), "'soon' is not a duration"),
        (("drill", "coder", "--fault", "fire"), "'fire' is not one of"),
        (("drill", "coder", "--arms", "naive,fast"), "arms 'naive,fast'"),
        (("drill", "coder", "--arms", "naive,naive"), "at most once"),
        (("drill", "coder", "--loops", "0"), "--loops"),
        (("drill", "coder", "--outage", "0"), "above 0"),
        (("drill", "coder", "--report", "/nowhere/at/all.html"), "/nowhere/at is no directory"),
        (("drill", "coder", "--dsn", "host=x password=hunter2"), "with --dsn choose refuse"),
        (("drill", "greptime", "--fault", "stop"), "'stop' is not one of"),
        (("drill", "greptime", "--arms", "outlast-http"), "arms 'outlast-http'"),
        (("drill", "greptime", "--writes", "0"), "--writes"),
        (("drill", "greptime", "--quota", "1"), "--quota"),
        (("drill", "greptime", "--fault", "taken"), "unknown fault 'taken'; choose one of refused, cleared, hangs"),
        (("drill", "greptime", "--over", "http", "--fault", "hangs"), "unknown fault 'hangs'; choose one of taken, denied"),
        (("drill", "greptime", "--over", "http", "--arms", "dbos"), "name each of naive, naive-postgres, outlast"),
        (("jobs", "list"), "'--dsn'"),
        (("jobs", "list", "--dsn", "host=x", "--state", "lost"), "'lost' is not one of"),
        (("jobs", "retry", "--dsn", "host=x"), "ID..."),
        (("jobs", "retry", "--dsn", "host=x", "seven"), "'seven' is not a valid integer"),
        (("jobs", "enqueue", "--dsn", "host=x", "settle", "{bad secret"), "the payload of 11 characters is no JSON"),
        (("jobs", "enqueue", "--dsn", "host=x", "settle", "--run-at", "noon"), "'noon' is not a time"),
        (("jobs", "enqueue", "--dsn", "host=x", "settle", "--run-at", "2026-01-31", "--delay", "1m"), "not both"),
    ],
)
def test_bad_usage_is_one_line_and_64(words: tuple[str, ...], says: str) -> None:
    result = outlast_(*words)
    assert says in the_line(result)
    assert result.exit_code == 64
    assert "hunter2" not in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize("dsn", ["nonsense=1 password=hunter2", "postgresql://u:hunter2@h:port/x"])
def test_a_dsn_that_cannot_be_read_is_78_and_shows_no_password(dsn: str) -> None:
    result = outlast_("jobs", "counts", "--dsn", dsn)
    assert result.exit_code == 78
    assert "DSN" in the_line(result)
    assert "hunter2" not in result.output


def test_up_gives_the_services_own_exit_code(here: Path) -> None:
    (here / "shop_clean.py").write_text(
        "import outlast\nservice = outlast.Service('shop')\n@service.task()\nasync def once(stop): print('ran')\n"
    )
    result = outlast_("up", "shop_clean:service")
    assert (result.exit_code, result.stdout) == (0, "ran\n")


def test_up_takes_a_function_that_makes_a_service(here: Path) -> None:
    (here / "shop_made.py").write_text(
        "import outlast\n"
        "def make():\n"
        "    service = outlast.Service('shop')\n"
        "    @service.task()\n"
        "    async def once(stop): print('ran')\n"
        "    return service\n"
    )
    assert outlast_("up", "shop_made:make").stdout == "ran\n"


@pytest.mark.parametrize(
    ("name", "text", "target", "says"),
    [
        ("shop_a", "", "shop_absent:service", "there is no module 'shop_absent'"),
        ("shop_b", "import nowhere_at_all\n", "shop_b:service", "No module named 'nowhere_at_all'"),
        ("shop_c", "1 / 0\n", "shop_c:service", "ZeroDivisionError: division by zero"),
        ("shop_d", "def (\n", "shop_d:service", "SyntaxError"),
        ("shop_e", "import outlast\nmain = outlast.Service('m')\n", "shop_e:service", "has no 'service'; services in it: main"),
        ("shop_f", "service = 7\n", "shop_f:service", "it is a int, not an outlast.Service"),
        ("shop_g", "def make(): raise KeyError('DSN')\n", "shop_g:make", "calling it raised KeyError"),
        (
            "shop_h",
            "import outlast\nraise outlast.ConfigurationError('password=hunter2 is too short')\n",
            "shop_h:service",
            "password=*** is too short",
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_line_and_78(here: Path, name: str, text: str, target: str, says: str) -> None:
    (here / f"{name}.py").write_text(text)
    result = outlast_("up", target)
    assert says in the_line(result)
    assert result.exit_code == 78
    assert "hunter2" not in result.output


def test_where_an_import_failed_is_named(here: Path) -> None:
    (here / "shop_line.py").write_text("x = 1\n\nraise ValueError('no')\n")
    assert "shop_line.py:3)" in the_line(outlast_("up", "shop_line:service"))


def test_traceback_is_shown_when_asked_for(here: Path) -> None:
    (here / "shop_trace.py").write_text("1 / 0\n")
    result = outlast_("up", "shop_trace:service", "--traceback")
    assert result.exit_code == 78
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("name", ["click", "rich"])
def test_without_click_or_rich_it_says_what_to_install(name: str) -> None:
    code = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, package=None: None if name == {name!r} else found(name, package)\n"
        "from outlast._cli.main import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 78
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"needs {name}" in line
    assert 'pip install "outlast[cli]"' in line


def test_help_loads_neither_driver_nor_plots() -> None:
    code = (
        "import json, sys\n"
        "from outlast._cli.main import main\n"
        "sys.argv = ['outlast', '--version']\n"
        "main()\n"
        "print(json.dumps([name for name in ('psycopg', 'matplotlib', 'rich.table', 'psutil') if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=59.9), "59 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(hours=5, minutes=59), "5 h"),
        (timedelta(days=400), "400 d"),
        (timedelta(minutes=-3), "in 3 min"),
    ],
)
def test_ages(ago: timedelta, text: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert age(now - ago, now) == text


def test_an_age_that_is_none() -> None:
    assert age(None, datetime(2026, 1, 31, tzinfo=UTC)) == ""
