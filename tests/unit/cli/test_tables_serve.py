"""`outlast tables serve`: what it refuses before it serves anything, and every message that a user can meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from outlast._cli.app import app
from outlast._cli.tables.serve import TOKENS_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.expected_logs("stops within"), pytest.mark.timeout(30)]
"""A start that fails is stopped."""


def serve(folder: Path, *words: str, **environment: str) -> Result:
    command = ["tables", "serve", "--store", f"{folder}/metrics.db", "--listen", "127.0.0.1:0", "--put", "none"]
    return CliRunner(env={TOKENS_VARIABLE: "", **environment}).invoke(app, [*command, *words])


def refusal(result: Result) -> tuple[int, str]:
    """The exit code, and what a mistake writes: one line on stderr, nothing on stdout, no traceback."""
    assert result.stdout == ""
    assert "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if " INFO " not in line]
    assert line.startswith("outlast: ")
    return result.exit_code, line


def test_help_has_examples_and_exit_codes() -> None:
    result = CliRunner().invoke(app, ["tables", "serve", "--help"])
    assert result.exit_code == 0
    assert "Example: outlast tables serve" in result.stdout
    assert "Exits with" in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--store", "etcd://db:2379"), 64, "write a file (work.db, sqlite:work.db) or postgresql://HOST/DATABASE"),
        (("--listen", "somewhere"), 64, "'somewhere' is no address to listen on"),
        (("--put", "somewhere"), 64, "'somewhere' is no address to listen on"),
        (("--admin", "localhost:x"), 64, "is no address to listen on"),
        (("--connections", "0"), 64, "0 is not in the range"),
        (("--body-size", "much"), 64, "'much' is not a size"),
        (("--retention", "a while"), 64, "'a while' is not a duration; write it as 20s, 1m, 500ms, 1.5h, 30d"),
        (("--retention", "0s"), 64, "points are kept for longer than 0 s"),
        (("--tables-max", "0"), 64, "0 is not in the range"),
        (("--fields-max", "1001"), 78, "fields_max must be a whole number from 1 to 1000, not 1001"),
        (("--tables-per-minute", "0"), 64, "0.0 is not in the range"),
        (("--points-per-s", "-1"), 64, "-1.0 is not in the range"),
        (("--tls-cert", "cert.pem"), 64, "--tls-cert and --tls-key come together"),
        (("--listen", "0.0.0.0:0"), 78, "is open to other machines, without tokens and without TLS"),
        (("--listen", "0.0.0.0:0"), 78, "or say --open-to-all"),
        (("--put", "0.0.0.0:0"), 78, "put has no tokens; listen on 127.0.0.1, or say --open-to-all"),
        (("--tokens", "{folder}/nowhere"), 78, "the file cannot be read: No such file"),
        (("--tls-cert", "no.pem", "--tls-key", "no.pem"), 78, "TLS: no.pem cannot be read"),
        (("--journal", "{folder}"), 64, "is a directory"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(words: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    seen, line = refusal(serve(tmp_path, *(word.format(folder=tmp_path) for word in words)))
    assert seen == code
    assert message in line


def test_tokens_come_from_the_environment_where_no_file_is_named(tmp_path: Path) -> None:
    code, line = refusal(serve(tmp_path, **{TOKENS_VARIABLE: "deploy write short"}))
    assert (code, TOKENS_VARIABLE in line, "short" in line) == (78, True, False)
