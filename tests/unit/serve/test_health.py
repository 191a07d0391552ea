"""The health endpoint: what it answers, and that nobody's slowness keeps it from answering."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from outlast import ConfigurationError
from outlast._serve import server as bounded_http
from outlast._serve.endpoint import Endpoint
from outlast._serve.health import DependencyStatus, HealthStatus, health_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENT_S = 60.0
WELL = HealthStatus("shop", ready=True, live=True, phase="running")
STARTING = HealthStatus("shop", ready=False, live=True, phase="starting")


@contextlib.contextmanager
def serving(status: Callable[[], HealthStatus], *, request_s: float = PATIENT_S) -> Iterator[Endpoint]:
    endpoint = Endpoint("127.0.0.1:0", health_pages(status), request_s=request_s)
    endpoint.start()
    try:
        yield endpoint
    finally:
        endpoint.close()


def ask(endpoint: Endpoint, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=PATIENT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers


def connect(endpoint: Endpoint, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", endpoint.port), timeout=PATIENT_S)
    client.sendall(data)
    return client


def rest(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as file:
        return file.read()


def test_a_service_that_is_well() -> None:
    with serving(lambda: WELL) as endpoint:
        for path in ("/livez", "/readyz", "/readyz?verbose"):
            code, text, headers = ask(endpoint, path)
            assert (code, text) == (200, "ok\n")
            assert headers["Cache-Control"] == "no-store"
            assert headers["Content-Type"] == "text/plain; charset=utf-8"
            assert "Python" not in headers["Server"]


@pytest.mark.parametrize(
    ("status", "livez", "readyz"),
    [
        (STARTING, (200, "ok\n"), (503, "starting\n")),
        (
            HealthStatus("shop", ready=False, live=True, phase="drain", reason="stopping: SIGTERM"),
            (200, "ok\n"),
            (503, "stopping: SIGTERM\n"),
        ),
        (
            HealthStatus("shop", ready=False, live=False, phase="running", reason="the event loop has not turned for 7 s"),
            (503, "the event loop has not turned for 7 s\n"),
            (503, "the event loop has not turned for 7 s\n"),
        ),
        (HealthStatus("shop", ready=True, live=False, phase="running"), (503, "not live\n"), (200, "ok\n")),
    ],
)
def test_a_service_that_is_not(status: HealthStatus, livez: tuple[int, str], readyz: tuple[int, str]) -> None:
    with serving(lambda: status) as endpoint:
        assert ask(endpoint, "/livez")[:2] == livez
        assert ask(endpoint, "/readyz")[:2] == readyz
        assert ask(endpoint, "/statusz")[0] == 200


def test_a_reason_stays_on_its_line_and_keeps_no_password() -> None:
    status = HealthStatus("shop", ready=False, live=True, phase="running", reason="postgresql://u:hunter2@h\r\nX: y")
    with serving(lambda: status) as endpoint:
        assert ask(endpoint, "/readyz")[1] == "postgresql://u:***@h X: y\n"


def test_the_whole_status_as_json() -> None:
    status = HealthStatus(
        "shop",
        ready=False,
        live=True,
        phase="drain",
        reason="stopping: SIGTERM",
        since_s=1.5,
        dependencies=(DependencyStatus("postgres", "DOWN", "connection refused", 12.0), DependencyStatus("disk", "UP")),
        holders=3,
    )
    with serving(lambda: status) as endpoint:
        code, text, headers = ask(endpoint, "/statusz")
    assert code == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(text) == {
        "name": "shop",
        "ready": False,
        "live": True,
        "phase": "drain",
        "reason": "stopping: SIGTERM",
        "since_s": 1.5,
        "dependencies": [
            {"name": "postgres", "state": "DOWN", "cause": "connection refused", "since_s": 12.0},
            {"name": "disk", "state": "UP", "cause": "", "since_s": None},
        ],
        "holders": 3,
    }


def test_head_has_the_headers_of_get_and_no_body() -> None:
    with serving(lambda: STARTING) as endpoint:
        code, text, headers = ask(endpoint, "/readyz", "HEAD")
        raw = rest(connect(endpoint, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert (code, text, headers["Content-Length"]) == (503, "", str(len("starting\n")))
    assert raw.endswith(b"\r\n\r\n")


def test_what_it_does_not_answer() -> None:
    with serving(lambda: WELL) as endpoint:
        assert ask(endpoint, "/")[:2] == (404, "not found\n")
        assert ask(endpoint, "/livez/../etc")[0] == 404
        code, _, headers = ask(endpoint, "/livez", "POST", b"x" * 50_000)
        assert (code, headers["Allow"]) == (405, "GET, HEAD")
        assert ask(endpoint, "/livez", "DELETE")[0] == 405
        assert b" 400 " in rest(connect(endpoint, b"complete nonsense that is no request\r\n\r\n"))
        assert b" 505 " in rest(connect(endpoint, b"GET /livez HTTP/3.0\r\n\r\n"))
        assert b" 431 " in rest(connect(endpoint, b"GET /" + b"x" * bounded_http.HEAD_BYTES_MAX))
        assert rest(connect(endpoint, b"GET /livez HTTP/1.0\n\n")).endswith(b"ok\n")


def test_it_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(lambda: WELL) as endpoint:
        ask(endpoint, "/livez")
        rest(connect(endpoint, b"nonsense\r\n\r\n"))
    assert capfd.readouterr() == ("", "")


def test_a_status_that_cannot_be_told_is_unknown_and_said_once(expected_logs: Any) -> None:
    expected_logs("the status cannot be told; /livez answers 503 unknown")
    answers: list[HealthStatus | None] = [None, None, None, WELL]

    def status() -> HealthStatus:
        answer = answers.pop(0)
        if answer is None:
            raise ZeroDivisionError
        return answer

    with serving(status) as endpoint:
        for path in ("/livez", "/readyz", "/statusz"):
            assert ask(endpoint, path)[:2] == (503, "unknown\n")
        assert ask(endpoint, "/livez")[:2] == (200, "ok\n")
    assert len(expected_logs.messages) == 1


def test_a_status_that_json_cannot_say_is_unknown(expected_logs: Any) -> None:
    expected_logs("the status cannot be told")
    with serving(lambda: HealthStatus("shop", ready=True, live=True, phase="running", since_s=float("nan"))) as endpoint:
        assert ask(endpoint, "/statusz")[:2] == (503, "unknown\n")


def test_a_slow_client_keeps_nobody_waiting() -> None:
    with serving(lambda: WELL) as endpoint:
        slow = [connect(endpoint, b"GET /livez HT") for _ in range(bounded_http.REQUESTS_MAX - 1)]
        assert ask(endpoint, "/livez")[0] == 200
        slow[0].sendall(b"TP/1.0\r\n\r\n")
        assert rest(slow[0]).endswith(b"ok\n"), "slow is no fault, within the limit"
        for client in slow[1:]:
            client.close()


def test_more_clients_than_it_serves_are_refused_at_once() -> None:
    with serving(lambda: WELL) as endpoint:
        stuck = [connect(endpoint) for _ in range(bounded_http.REQUESTS_MAX)]
        for _ in range(bounded_http.REFUSED_MAX + 10):
            code, text, headers = ask(endpoint, "/livez")
            assert code == 503
            assert text.startswith("unknown: ")
            assert headers["Cache-Control"] == "no-store"
        for client in stuck:
            client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert all(rest(client).endswith(b"ok\n") for client in stuck), "those that were let in are answered"


def test_a_client_is_cut_off_when_its_time_is_over() -> None:
    with serving(lambda: WELL, request_s=0.02) as endpoint:
        stuck = [connect(endpoint, b"GET /livez") for _ in range(bounded_http.REQUESTS_MAX)]
        assert [rest(client) for client in stuck] == [b""] * len(stuck)


def test_a_byte_now_and_then_wins_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dripping(socket.socket):
        received = 0

        def recv(self, size: int, flags: int = 0) -> bytes:
            Dripping.received += 1
            return b"x"

    now = iter(range(1000))
    monkeypatch.setattr(bounded_http.time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(bounded_http.socket, "socket", Dripping)
    server = bounded_http.BoundedServer(("127.0.0.1", 0), lambda path: None, request_s=10.0)
    with contextlib.closing(Dripping()) as client, pytest.raises(TimeoutError):
        bounded_http._Request(client, None, server)
    assert 5 <= Dripping.received <= 10
    server.server_close()


def test_it_answers_while_the_main_thread_is_busy() -> None:
    answered: list[int] = []
    with serving(lambda: HealthStatus("shop", ready=True, live=False, phase="running", reason="blocked")) as endpoint:
        asker = threading.Thread(target=lambda: answered.append(ask(endpoint, "/livez")[0]), daemon=True)
        asker.start()
        while asker.is_alive():
            # No await and no wait: what a blocked event loop looks like to others.
            sum(range(1000))
    assert answered == [503]


def test_an_address_that_somebody_has() -> None:
    with serving(lambda: WELL) as first:
        second = Endpoint(f"127.0.0.1:{first.port}", {})
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{first.port}: .* in use; choose another"):
            second.start()
        second.close()


def test_an_address_of_version_six() -> None:
    endpoint = Endpoint("[::1]:0", health_pages(lambda: WELL))
    try:
        endpoint.start()
    except ConfigurationError as error:
        pytest.skip(str(error))
    with contextlib.closing(endpoint), socket.create_connection(("::1", endpoint.port), timeout=PATIENT_S) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert rest(client).endswith(b"ok\n")


def test_start_and_close_may_be_said_twice_and_the_port_is_free_afterwards() -> None:
    endpoint = Endpoint("127.0.0.1:0", health_pages(lambda: WELL))
    assert endpoint.port == 0
    endpoint.start()
    port = endpoint.port
    endpoint.start()
    assert endpoint.port == port
    stuck = connect(endpoint)
    endpoint.close()
    endpoint.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENT_S)
    stuck.close()
    again = Endpoint(f"127.0.0.1:{port}", health_pages(lambda: WELL))
    again.start()
    assert ask(again, "/livez")[0] == 200
    again.close()


def test_an_accept_that_fails_is_tried_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with serving(lambda: WELL) as endpoint:
        server = endpoint._server
        assert server is not None
        listener, failures = server.socket, [24, 24]

        class Failing:
            def accept(self) -> tuple[socket.socket, Any]:
                if failures:
                    raise OSError(failures.pop(), "Too many open files")
                return listener.accept()

            def close(self) -> None:
                listener.close()

        monkeypatch.setattr(server._closing, "wait", waits.append)
        monkeypatch.setattr(server, "socket", Failing())
        assert ask(endpoint, "/livez")[0] == 200
    assert waits == [bounded_http.ACCEPT_PAUSE_S] * 2


def test_no_thread_to_be_had_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda: WELL) as endpoint:
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        for _ in range(bounded_http.REQUESTS_MAX + 1):
            assert ask(endpoint, "/livez")[0] == 503
        monkeypatch.undo()
        assert ask(endpoint, "/livez")[0] == 200


def _no_thread(thread: threading.Thread) -> None:
    msg = "can't start new thread"
    raise RuntimeError(msg)
