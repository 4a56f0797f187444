"""`circinus serve` as real processes that are stopped and killed."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from budget import HANG_LIMIT_S
from circinus.control.state_store import ControlStateStore
from cli_runner import answer, in_one_line, run_circinus, start_process

pytestmark = pytest.mark.slow

SECOND_QUERY = """
---
apiVersion: circinus/v1
kind: Query
metadata:
  name: second
spec:
  pipeline: mend
  source: till
  rate: 1/s
  split: false
  slos:
    - latency p95 <= 1s
    - accuracy >= 0.7
"""


class Controller:
    """A process that runs `circinus serve`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = start_process("serve", "--mode", "replay", "--json", *options, cwd=folder)

    def until(self, kind: str, subject: str | None = None) -> dict[str, Any]:
        """The next event of a kind, and of a subject."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "{\n":
                raise AssertionError(f"no event {kind}: {line}{self.process.stdout.read()}")
            event: dict[str, Any] = json.loads(line)["data"]
            if event["kind"] == kind and subject in (None, event["subject"]):
                return event
        assert self.process.stderr is not None
        raise AssertionError(f"no event {kind}: {self.process.stderr.read()}")

    def end(self, number: int) -> int:
        """Send it a signal and wait until it has ended."""
        self.process.send_signal(number)
        try:
            self.process.communicate(timeout=HANG_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Controller]:
    controller = Controller(folder, *options)
    with controller.process:
        try:
            yield controller
        finally:
            if controller.process.poll() is None:
                controller.end(signal.SIGTERM)  # it gives its lease back


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def metrics(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_LIMIT_S) as page:
        return str(page.read().decode())


def test_it_brings_the_plan_about_and_goes_on_where_one_that_was_killed_was(application: Path) -> None:
    with serving(application) as first:
        assert first.until("began")["reason"] == "started with the plan file"
        first.until("applied")
        assert answer("status", cwd=application, kind="status")["healthy"]
        refused = run_circinus("serve", "--mode", "replay", cwd=application)
        assert refused.returncode == 1
        assert "holds the lease" in in_one_line(refused.stderr)
        assert "Traceback" not in refused.stderr
        first.end(signal.SIGKILL)
    answer("load", "--duration", "1s", "--warm-up", "0s", cwd=application, kind="load")
    before = answer("status", cwd=application, kind="status")
    assert sum(d["requests"] for d in before["deployments"]) > 0
    with closing(ControlStateStore.open_existing(application / ".circinus" / "engine-control.sqlite")) as records:
        while records.holder(time.time()):  # nobody renews the lease
            time.sleep(0.05)
        with serving(application) as second:
            assert second.until("began")["reason"] == "resumed from the stored state"
            assert records.holder(time.time()) == f"process {second.process.pid} on {socket.gethostname()}"
            assert second.end(signal.SIGINT) == 0
        assert records.holder(time.time()) == "", "it gives its lease back"
    after = answer("status", cwd=application, kind="status")
    assert after["state"] == before["state"]
    # Deployments that were replaced would count anew.
    assert [d["requests"] for d in after["deployments"]] == [d["requests"] for d in before["deployments"]]


def test_what_was_ended_is_brought_back(application: Path) -> None:
    port = free_port()
    with serving(application, "--metrics", str(port)) as controller:
        controller.until("applied")
        ended = run_circinus("destroy", cwd=application)
        assert ended.returncode == 0
        assert f"process {controller.process.pid} on" in in_one_line(ended.stderr)
        assert "will restore its own state. Stop it first." in in_one_line(ended.stderr)
        controller.until("failed", "engine")
        controller.until("applied")
        assert answer("status", cwd=application, kind="status")["healthy"]
        assert 'circinus_events_total{kind="failed",why=""}' in metrics(port)


def test_a_dry_run_says_and_does_nothing(application: Path) -> None:
    answer("apply", "--mode", "replay", cwd=application, kind="apply")
    before = answer("status", cwd=application, kind="status")["state"]
    # Whoever waits for bursts lets in more: another state, whether there is a lower rung or not.
    with serving(application, "--dry-run", "--standby-factor", "3x") as controller:
        event = controller.until("apply")
        assert event["would"]
        assert event["reason"]
        assert event["reason"] != "the engine runs nothing"
        specification, plans = application / "queries.yaml", (application / "plan.json").read_bytes()
        asked = specification.read_text()
        specification.write_text(asked + SECOND_QUERY)
        assert "no decision on second" in controller.until("failed")["reason"]
        specification.write_text(asked)
    assert (application / "plan.json").read_bytes() == plans
    assert answer("status", cwd=application, kind="status")["state"] == before


def test_what_this_machine_can_never_be_ends_it_at_the_start(application: Path) -> None:
    infrastructure = application / "infrastructure.yaml"
    infrastructure.write_text(re.sub(r"relative_speed: [\d.]+", "relative_speed: 1.1", infrastructure.read_text()))
    assert run_circinus("plan", cwd=application).returncode == 0
    for options in ((), ("--standby-factor", "3x")):
        refused = run_circinus("serve", *options, cwd=application)
        assert refused.returncode == 1
        assert "the hardware is 1.1 times as fast" in in_one_line(refused.stderr)
        assert refused.stdout == ""
    assert "no engine is running" in run_circinus("status", cwd=application).stderr


def test_what_is_written_over_is_planned_for_and_taken_over_and_events_say_so(application: Path) -> None:
    specification = application / "queries.yaml"
    before = specification.read_text()
    with serving(application) as controller:
        controller.until("began")
        specification.write_text(before + SECOND_QUERY)
        replan = controller.until("replan")
        assert replan["details"]["why"] == "files"
        assert replan["details"]["new"] == ["second"]
        controller.until("applied")
        found = answer("status", cwd=application, kind="status")
        assert "second" in found["routes"]
        specification.write_text("kind: Nonsense")
        assert specification.name in controller.until("failed", "plan")["reason"]
        assert answer("status", cwd=application, kind="status")["state"] == found["state"]
        specification.write_text(before)
        assert run_circinus("plan", cwd=application).returncode == 0
        assert controller.until("replan")["details"]["removed"] == ["second"]
        controller.until("applied")
        assert "second" not in answer("status", cwd=application, kind="status")["routes"]
    run = run_circinus("events", "--kind", "replan", cwd=application)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert "replan plans: the specification changed" in lines[-1]
    run = run_circinus("events", "--last", "1", "--json", cwd=application)
    event = json.loads(run.stdout)
    assert event["kind"] == "event"
    assert event["data"]["number"] >= len(lines)
    absent = run_circinus("events", "--state-file", "nowhere.sqlite", cwd=application)
    assert absent.returncode == 1
    assert "nowhere.sqlite: the controller state file does not exist" in in_one_line(absent.stderr)
    assert not (application / "nowhere.sqlite").exists()


def test_answers_to_items_of_the_data_set_are_audited_against_their_truths(application: Path) -> None:
    port = free_port()
    with serving(application, "--audit-rate", "100%", "--metrics", str(port)) as controller:
        controller.until("began")
        controller.until("applied")
        answer("load", "--duration", "1s", "--warm-up", "0s", "--controlled", cwd=application, kind="load")
        while 'circinus_audited_score{query="archive"}' not in (text := metrics(port)):
            time.sleep(0.1)
        assert 'circinus_audits_total{against="truth",query="archive"}' in text
        assert 'circinus_audits_total{against="answer",query="archive"}' not in text
        assert controller.end(signal.SIGTERM) == 0
    run = run_circinus("events", "--kind", "failed", "--json", cwd=application)
    assert "audit" not in {json.loads(line)["data"]["subject"] for line in run.stdout.splitlines()}
