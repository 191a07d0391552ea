"""`/metrics` of a service as a process: complete, well formed, and answered while the event loop stands still."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import exposition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE = """
import asyncio, sys, time
import outlast
from outlast.extend import Act, Figure, Lag, SystemHealth

service = outlast.Service("shop", deadline_s=2.0)

async def is_away():
    raise ConnectionRefusedError(111, "refused")

peer = outlast.Dependency("peer", probe=is_away)

class Outbox:
    system, name, sent = "outbox", "orders", 0

    def figures(self):
        return [Figure.counter("sent_messages", "Messages the peer took.", self.sent)]

    def health(self):
        return SystemHealth(well=True, state="sending")

    def lag(self):
        return Lag(seconds=0.5)

    def acts(self):
        return [Act("retry dead messages", "Sends them again.", is_away, concerns=17)]

outbox = Outbox()
service.show(outbox)

@service.loop(needs=peer)
async def settle(stop):
    pass

@service.task()
async def work(stop):
    async def told():
        return await asyncio.to_thread(sys.stdin.readline)
    print("ready", flush=True)
    while (line := await told()).strip() != "end":
        outbox.sent += 1
        if line.strip() == "ask":
            peer.report(ConnectionRefusedError(111, "refused"))
            print("asked", flush=True)
        if line.strip() == "block":
            print("blocked", flush=True)
            # The event loop stands still until somebody who asked /metrics meanwhile says so: a deadlock otherwise.
            sys.stdin.readline()
            print("free", flush=True)

sys.exit(outlast.run(service, listen="127.0.0.1:0"))
"""


class Running:
    """The process, what it says, and its `/metrics`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        found = None
        while found is None:
            found = re.search(r"health on port (\d+)", process.stderr.readline())
        self.port = int(found[1])
        self.heard("ready")

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def heard(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == line + "\n"

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            return str(answer.read().decode())


@contextmanager
def running(tmp_path: Path) -> Iterator[Running]:
    program = tmp_path / "shop.py"
    program.write_text(SERVICE, encoding="utf-8")
    argv = [sys.executable, program]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Running(process)
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.short
def test_metrics_are_answered_while_the_event_loop_stands_still(tmp_path: Path) -> None:
    with running(tmp_path) as shop:
        shop.say("count")
        shop.say("block")
        shop.heard("blocked")
        families = [exposition.read(shop.metrics()) for _ in range(3)]
        assert [each["outlast_outbox_sent_messages_total"].samples for each in families] == [{(("name", "orders"),): 2}] * 3
        lags = [each["outlast_event_loop_lag_seconds"].samples[()] for each in families]
        assert lags == sorted(lags)
        assert families[0]["outlast_ready"].samples == {(): 1}
        shop.say("go on")
        shop.heard("free")
        shop.say("end")


def test_the_runtime_shows_its_dependencies_incidents_loops_and_phase(tmp_path: Path) -> None:
    with running(tmp_path) as shop:
        shop.say("ask")
        shop.heard("asked")
        text = shop.metrics()
        families = exposition.read(text)
        states = families["outlast_dependency_state"].samples
        assert states[("dependency", "peer"), ("state", "down")] == 1
        assert states[("dependency", "peer"), ("state", "up")] == 0
        assert families["outlast_incident_open"].samples[(("subject", "peer"),)] == 1
        assert families["outlast_incidents_total"].samples[(("subject", "peer"),)] == 1
        assert families["outlast_loop_turns_total"].samples[("service", "shop"), ("loop", "work")] == 1
        assert families["outlast_loop_workers"].samples[("service", "shop"), ("loop", "settle")] == 1
        assert families["outlast_phase"].samples[(("phase", "running"),)] == 1
        assert families["outlast_system_act_concerns"].samples == {
            (("system", "outbox"), ("name", "orders"), ("act", "retry dead messages")): 17
        }
        assert families["outlast_left_out_samples"].samples == {(): 0}
        shop.say("end")


def test_promtool_finds_nothing(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (it comes with prometheus)")
    with running(tmp_path) as shop:
        text = shop.metrics()
        shop.say("end")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
