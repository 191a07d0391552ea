"""`outlast streams serve`: what it refuses before it serves anything, and every message that a user can meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from outlast._cli.app import app
from outlast._cli.streams.serve import TOKENS_VARIABLE, needed_scope
from outlast.extend import LOCAL_FILES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.expected_logs("stops within")
"""A start that fails is stopped."""


def serve(*words: object, **environment: str) -> Result:
    return CliRunner(env={TOKENS_VARIABLE: "", **environment}).invoke(app, ["streams", "serve", *map(str, words)])


def refusal(result: Result) -> tuple[int, str]:
    """The exit code, and what a mistake writes: one line on stderr, nothing on stdout, no traceback."""
    assert result.stdout == ""
    assert "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if " INFO " not in line]
    assert line.startswith("outlast: ")
    return result.exit_code, line


def test_help_has_examples_and_exit_codes() -> None:
    result = serve("--help")
    assert result.exit_code == 0
    assert "Example: outlast streams serve" in result.stdout
    assert "Exits with" in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 64, "Missing argument 'FOLDER...'"),
        (("{folder}", "--listen", "somewhere"), 64, "'somewhere' is no address to listen on"),
        (("{folder}", "--admin", "localhost:x"), 64, "is no address to listen on"),
        (("{folder}", "{folder}"), 64, "A FOLDER is named twice"),
        (("{folder}", "{folder}/../{name}"), 64, "A FOLDER is named twice"),
        (("{folder}", "--connections", "0"), 64, "0 is not in the range"),
        (("{folder}", "--body-size", "much"), 64, "'much' is not a size"),
        (("{folder}", "--body-size", "1G"), 64, "body_bytes_max is 1 to"),
        (("{folder}", "--quota", "0"), 64, "quota_bytes of a stream is at least 1, not 0"),
        (("{folder}", "--long-poll", "2h"), 64, "long_poll_s is 0 to 3600"),
        (("{folder}", "--tls-cert", "cert.pem"), 64, "--tls-cert and --tls-key come together"),
        (("{folder}/nowhere",), 66, "cannot serve the streams in {folder}/nowhere: there is no"),
        (("{folder}", "--listen", "0.0.0.0:0"), 78, "is open to other machines, without tokens and without TLS"),
        (("{folder}", "--listen", "0.0.0.0:0"), 78, "or say --open-to-all"),
        (("{folder}", "--tokens", "{folder}/nowhere"), 78, "the file cannot be read: No such file"),
        (("{folder}", "--tls-cert", "no.pem", "--tls-key", "no.pem"), 78, "TLS: no.pem cannot be read"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(words: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    def said(text: str) -> str:
        return text.format(folder=tmp_path, name=tmp_path.name)

    seen, line = refusal(serve(*map(said, words)))
    assert seen == code
    assert said(message) in line


def test_tokens_come_from_the_environment_where_no_file_is_named(tmp_path: Path) -> None:
    code, line = refusal(serve(tmp_path, **{TOKENS_VARIABLE: "deploy write short"}))
    assert (code, TOKENS_VARIABLE in line, "short" in line) == (78, True, False)


def test_a_folder_that_another_process_holds_is_refused_with_its_holder(tmp_path: Path) -> None:
    (tmp_path / "outlast-streams.lock").touch()
    descriptor = LOCAL_FILES.open(tmp_path / "outlast-streams.lock", 2)
    try:
        LOCAL_FILES.lock(descriptor)
        code, line = refusal(serve(tmp_path, "--listen", "127.0.0.1:0"))
    finally:
        LOCAL_FILES.close(descriptor)
    assert code == 69
    assert "in use" in line


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/stream/orders", "read"),
        ("HEAD", "/v1/streams", "read"),
        ("POST", "/v1/stream/orders", "write"),
        ("PUT", "/v1/stream/orders", "write"),
        ("DELETE", "/v1/stream/orders", "write"),
        ("POST", "/v1/streams/orders/consumers/billing/fetch", "write"),
        ("POST", "/v1/verify", "write"),
        ("PATCH", "/v1/stream/orders", "write"),
        ("GET", "/livez", None),
        ("GET", "/readyz", None),
        ("OPTIONS", "/v1/stream/orders", None),
    ],
)
def test_looking_needs_the_scope_read_and_all_else_write(method: str, path: str, scope: str | None) -> None:
    assert needed_scope(method, path) == scope
