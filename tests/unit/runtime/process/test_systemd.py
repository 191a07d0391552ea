"""What a service tells systemd, heard on sockets like systemd's."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from outlast._runtime.process.systemd import ADDRESS_BYTES_MAX, Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets of the UNIX domain")


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        manager.setblocking(False)
        yield manager


def heard(manager: socket.socket) -> list[str]:
    messages: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(manager.recv(4096).decode())
    return messages


@pytest.fixture
def path() -> Iterator[str]:
    """Not in pytest's own directory, whose name may be longer than the kernel allows here."""
    with tempfile.TemporaryDirectory(prefix="outlast") as directory:
        yield str(Path(directory, "notify"))


def everything(address: str) -> list[str]:
    with listening(address) as manager:
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
        notifier.ready()
        notifier.ready("12 loop workers")
        notifier.status("postgres is down")
        notifier.status("")
        notifier.watchdog()
        notifier.extend_timeout(2.5)
        notifier.stopping("SIGTERM")
        notifier.stopping()
        notifier.close()
        notifier.close()
        notifier.watchdog()
        assert notifier.lost == 0
        return heard(manager)


SAID = [
    "READY=1",
    "READY=1\nSTATUS=12 loop workers",
    "STATUS=postgres is down",
    "STATUS=",
    "WATCHDOG=1",
    "EXTEND_TIMEOUT_USEC=2500000",
    "STOPPING=1\nSTATUS=SIGTERM",
    "STOPPING=1",
]


def test_what_is_said_to_a_path(path: str) -> None:
    assert everything(path) == SAID


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_what_is_said_to_an_abstract_socket() -> None:
    assert everything(f"@outlast-{uuid.uuid4().hex}") == SAID


def test_without_a_manager_nothing_happens() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000000"}):
        notifier = Notifier.from_environment(environ)
        notifier.ready()
        notifier.watchdog()
        notifier.extend_timeout(1)
        notifier.stopping("SIGTERM")
        notifier.close()
        assert notifier.lost == 0
        assert notifier.watchdog_interval_s is None


def test_a_status_stays_on_its_line_within_its_bound_and_keeps_no_password(path: str) -> None:
    with listening(path) as manager, contextlib.closing(Notifier(path)) as notifier:
        notifier.status("one\nREADY=1\r\ntwo")
        notifier.ready("three\nSTOPPING=1")
        notifier.stopping("postgresql://u:hunter2@h/d")
        notifier.status("x" * 100_000)
        notifier.status("\udcff")
        messages = heard(manager)
    assert messages[:3] == [
        "STATUS=one READY=1 two",
        "READY=1\nSTATUS=three STOPPING=1",
        "STOPPING=1\nSTATUS=postgresql://u:***@h/d",
    ]
    assert len(messages[3]) < 260
    assert messages[4] == "STATUS=?"


def test_a_socket_that_nobody_reads_any_more_is_no_fault(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "outlast"), contextlib.closing(Notifier(path)) as notifier:
        with listening(path) as manager:
            notifier.watchdog()
        for _ in range(5):
            notifier.watchdog()
        assert notifier.lost == 5
        Path(path).unlink()
        with listening(path) as manager:
            notifier.watchdog()
            assert heard(manager) == ["WATCHDOG=1"]
        notifier.status("x")
    assert notifier.lost == 6
    assert [(record.levelno, record.message.split(":")[0]) for record in caplog.records] == [
        (logging.DEBUG, "systemd was not told WATCHDOG=1"),
        (logging.DEBUG, "systemd was not told STATUS=x"),
    ]


def test_a_full_socket_is_not_waited_for(path: str) -> None:
    with listening(path) as manager, contextlib.closing(Notifier(path)) as notifier:
        while not notifier.lost:
            notifier.watchdog()
        notifier.ready("go")
        assert notifier.lost == 2
        assert set(heard(manager)) == {"WATCHDOG=1"}
        notifier.status("well")
        notifier.watchdog()
        assert heard(manager) == ["READY=1\nSTATUS=well", "WATCHDOG=1"], "READY is said again"


def test_what_the_start_owed_is_dropped_by_the_stop(path: str) -> None:
    with contextlib.closing(Notifier(path)) as notifier:
        notifier.ready()
        notifier.stopping()
        with listening(path) as manager:
            notifier.status("draining")
            assert heard(manager) == ["STOPPING=1\nSTATUS=draining"]


@pytest.mark.parametrize("address", ["relative", "@", "/", "vsock:2:1234", "/" + "x" * ADDRESS_BYTES_MAX, "/a\0b"])
def test_a_socket_that_cannot_be_one(address: str, expected_logs: Any) -> None:
    expected_logs("NOTIFY_SOCKET is .*, and has to be an absolute path")
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    notifier.ready()
    assert notifier.lost == 0
    assert notifier.watchdog_interval_s is None
    assert len(expected_logs.messages) == 1


def test_a_socket_name_of_the_greatest_length() -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/" + "x" * (ADDRESS_BYTES_MAX - 1)})
    notifier.ready()
    assert notifier.lost == 1, "the kernel took the address, and found nobody there"
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "nonsense", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
    ],
)
def test_how_often_the_watchdog_wants_to_hear(environ: dict[str, str], interval_s: float | None, path: str) -> None:
    with contextlib.closing(Notifier.from_environment({"NOTIFY_SOCKET": path, **environ})) as notifier:
        assert notifier.watchdog_interval_s == interval_s


@pytest.mark.parametrize(
    "environ",
    [{"WATCHDOG_USEC": text} for text in ("0", "-1", "1.5", "30s", "٣", str(2**64 - 1), "9" * 5000)]
    + [{"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "me"}],
)
def test_a_watchdog_that_makes_no_sense(environ: dict[str, str], path: str, expected_logs: Any) -> None:
    expected_logs("systemd's watchdog is left alone: WATCHDOG_")
    with contextlib.closing(Notifier.from_environment({"NOTIFY_SOCKET": path, **environ})) as notifier:
        assert notifier.watchdog_interval_s is None
    assert len(expected_logs.messages) == 1


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_makes_no_sense(seconds: float) -> None:
    with pytest.raises(ValueError, match="finite number above 0"):
        Notifier().extend_timeout(seconds)


def test_no_socket_to_be_had(monkeypatch: pytest.MonkeyPatch, path: str, expected_logs: Any) -> None:
    expected_logs("systemd will hear nothing from this service: no socket to be had: .*Too many open files")

    def exhausted(*args: Any) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", exhausted)
    notifier = Notifier(path, watchdog_s=10.0)
    notifier.ready()
    assert notifier.watchdog_interval_s is None
