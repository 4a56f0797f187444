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
    ("thread_s", "switches", "queue_s", "wait_s"),
    [
        (10.0, 0, 0.0, 0.0),  # it computed all the time
        (4.0, 0, 0.0, 6.0),  # nothing but the machine can have stopped it
        (4.0, 1, 0.0, 0.0),  # it may have waited for a file, a network, a device, or another thread
        (4.0, 1, 5.0, 5.0),
        (4.0, 0, 5.0, 6.0),  # a hypervisor took the rest
        (11.0, 9, 99.0, 10.0),  # clocks differ by a little
    ],
)
def test_waits_follow_from_the_queue_and_from_what_was_not_computed(
    thread_s: float, switches: int, queue_s: float, wait_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, thread = iter((100.0, 110.0)), iter((1.0, 1.0 + thread_s))
    voluntary, queue = iter((7, 7 + switches)), iter((3.0, 3.0 + queue_s))
    monkeypatch.setattr(run_clock.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(run_clock.time, "thread_time", lambda: next(thread))
    monkeypatch.setattr(run_clock, "_voluntary_switches", lambda: next(voluntary))
    monkeypatch.setattr(run_clock, "_run_queue_s", lambda: next(queue))
    times = RunClock().stop()
    assert (times.elapsed_s, times.wait_s, times.own_s) == pytest.approx((10.0, wait_s, 10.0 - wait_s))
