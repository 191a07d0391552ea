"""The log of a process that has configured none, and what Python itself says."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from outlast._core.faults import ConfigurationError
from outlast._runtime.process import log as process_log
from outlast._runtime.process.log import ProcessLog, last_line
from outlast.logs import _last_words as last_words
from outlast.logs._writer import QueuedHandler

if TYPE_CHECKING:
    from collections.abc import Iterator


class Said(io.StringIO):
    """What was written to standard error; nothing is closed."""

    @property
    def lines(self) -> list[str]:
        for handler in logging.getLogger().handlers:
            handler.flush()
        return self.getvalue().splitlines()


@contextmanager
def unconfigured() -> Iterator[Said]:
    """A process in which nobody has configured anything; inside a test, since pytest adds its handlers before."""
    stream, root = Said(), logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(root, "handlers", [])
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "excepthook", sys.__excepthook__)
        patch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
        patch.setattr(threading, "excepthook", threading.__excepthook__)
        yield stream
        logging.captureWarnings(capture=False)
        for handler in root.handlers:
            handler.close()
    root.setLevel(level)


def test_text_is_the_default_at_info() -> None:
    with unconfigured() as said:
        ProcessLog()
        logging.getLogger("shop").info("open")
        logging.getLogger("shop").debug("not shown")
        (line,) = said.lines
        assert line.endswith(" INFO shop: open")
        assert isinstance(logging.getLogger().handlers[0], QueuedHandler)


def test_json_lines_on_demand() -> None:
    with unconfigured() as said:
        ProcessLog("json")
        logging.getLogger("shop").info("open", extra={"port": 80})
        (line,) = said.lines
        assert json.loads(line).items() >= {"level": "INFO", "logger": "shop", "message": "open", "port": 80}.items()


def test_another_format_is_refused() -> None:
    with unconfigured():
        with pytest.raises(ConfigurationError, match="log_format is one of text, json, not 'xml'"):
            ProcessLog("xml")
        assert logging.getLogger().handlers == []


def test_what_the_program_has_configured_stays_and_a_format_that_is_not_used_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with unconfigured():
        own = logging.NullHandler()
        logging.getLogger().handlers = [own, caplog.handler]
        assert ProcessLog().handler is None
        assert caplog.messages == []
        ProcessLog("json")
        assert caplog.messages == ["log format json is not used: the program has configured logging itself"]
        assert logging.getLogger().handlers == [own, caplog.handler]
        assert sys.excepthook is sys.__excepthook__


def test_a_level_that_the_program_has_set_stays() -> None:
    with unconfigured():
        logging.getLogger().setLevel(logging.DEBUG)
        ProcessLog()
        assert logging.getLogger().level == logging.DEBUG


def test_without_standard_error_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with unconfigured():
        monkeypatch.setattr(sys, "stderr", None)
        log = ProcessLog()
        log.flush(1.0)
        assert log.handler is None


def test_what_python_says_becomes_records() -> None:
    with unconfigured() as said:
        ProcessLog("json")

        class Broken:
            def __del__(self) -> None:
                raise ValueError("in a destructor")

        def ends() -> None:
            raise KeyError("in a thread")

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning("old", UserWarning, "shop.py", 1)
        Broken()
        thread = threading.Thread(target=ends, name="worker")
        thread.start()
        thread.join()
        sys.excepthook(RuntimeError, RuntimeError("the end"), None)
        found = [json.loads(line) for line in said.lines]
        assert [(each["level"], each["message"].splitlines()[0]) for each in found] == [
            ("WARNING", "shop.py:1: UserWarning: old"),
            ("ERROR", "exception ignored in: function"),
            ("ERROR", "thread worker ended by an exception"),
            ("CRITICAL", "the process ends by an exception"),
        ]
        assert ["ValueError: in a destructor" in found[1]["exception"], "KeyError" in found[2]["exception"]] == [True, True]


@pytest.mark.parametrize(("format_", "shown"), [("text", " ERROR outlast: leaves"), ("json", '"message": "leaves"}')])
def test_the_last_line_is_written_as_the_others_are(format_: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with unconfigured() as said:
        lines: list[str] = []
        monkeypatch.setattr(last_words, "say", lambda line, seconds: lines.append(line))
        monkeypatch.setattr(process_log, "LAST_S", 60.0)
        ProcessLog(format_)
        logging.getLogger("shop").warning("queued")
        last_line("leaves")
        assert "queued" in said.getvalue()
        assert lines[0].endswith(shown)
        logging.getLogger().handlers = []
        last_line("leaves")
        assert lines[1] == "outlast: leaves"
