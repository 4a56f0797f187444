"""Clock of runs: closed forms of its arithmetic, and a real process that has to share its CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from budget import HANG_LIMIT_S
from circinus.operators import run_clock
from circinus.operators.run_clock import RunClock

SHARED_CPU = """
import json, os, subprocess, sys, time
from circinus.operators.run_clock import RunClock
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
try:
    clock = RunClock()
    while time.process_time() < 0.5:
        pass
    times = clock.stop()
finally:
    for rival in rivals:
        rival.kill()
        rival.wait()
print(json.dumps([times.elapsed_s, times.cpu_s, times.own_s, times.waited_share]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs to bind processes to a CPU")
@pytest.mark.slow
def test_computing_beside_others_takes_its_own_cpu_time() -> None:
    program = [sys.executable, "-c", textwrap.dedent(SHARED_CPU)]
    result = subprocess.run(program, capture_output=True, text=True, check=True, timeout=HANG_LIMIT_S)
    elapsed_s, cpu_s, own_s, waited_share = json.loads(result.stdout)
    assert elapsed_s > 1.5 * cpu_s
    assert own_s == pytest.approx(cpu_s, rel=0.1)
    assert waited_share == pytest.approx(1 - own_s / elapsed_s)


@pytest.mark.parametrize(
    ("cpu_s", "switches", "queued_s", "wait_s"),
    [
        (10.0, 0, {}, 0.0),  # it computed all the time
        (4.0, 0, {}, 6.0),  # nothing but the machine can have stopped it
        (4.0, 1, {}, 0.0),  # it may have waited for a file, a network or a device
        (4.0, 1, {"1": 5.0, "2": 2.0}, 5.0),  # threads wait at the same time
        (4.0, 0, {"1": 5.0}, 6.0),  # a hypervisor took the rest
        (15.0, 0, {"1": 1.0}, 1.0),  # two threads
        (0.0, 9, {"1": 99.0}, 10.0),  # clocks differ by a little
    ],
)
def test_waits_follow_from_queues_and_from_what_was_not_computed(
    cpu_s: float, switches: int, queued_s: dict[str, float], wait_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, cpu, voluntary = iter((100.0, 110.0)), iter((1.0, 1.0 + cpu_s)), iter((7, 7 + switches))
    queues = iter(({"1": 3.0}, {thread: s + 3.0 * (thread == "1") for thread, s in queued_s.items()}))
    monkeypatch.setattr(run_clock.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(run_clock, "_cpu_s", lambda: next(cpu))
    monkeypatch.setattr(run_clock, "_voluntary_switches", lambda: next(voluntary))
    monkeypatch.setattr(run_clock, "_run_queue_waits_s", lambda: next(queues))
    times = RunClock().stop()
    assert (times.elapsed_s, times.wait_s, times.own_s) == pytest.approx((10.0, wait_s, 10.0 - wait_s))
