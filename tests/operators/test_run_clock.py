"""Clock of runs: closed forms of its arithmetic, and a real process that has to share its CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from budget import HANG_LIMIT_S
from circinus.operators import run_clock
from circinus.operators.run_clock import RunClock

SHARED_CPU = """
import json, os, resource, subprocess, sys, time
from circinus.operators import run_clock
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
computing = "import time\\nwhile time.process_time() < 0.2: pass"
run_clock._pressure_s = time.perf_counter  # the other CPUs may be idle
rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
run_clock._descendants = lambda process: []  # no rival works for the run
try:
    clock = run_clock.RunClock()
    while time.process_time() < 0.2:
        pass
    times = clock.stop()
    clock = run_clock.RunClock()
    subprocess.run([sys.executable, "-S", "-c", computing])
    of_child = clock.stop()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
finally:
    for rival in rivals:
        rival.kill()
        rival.wait()
print(json.dumps([times.elapsed_s, times.cpu_s, times.own_s, times.waited_share, times.worker_wait_s]))
print(json.dumps([of_child.elapsed_s, usage.ru_utime + usage.ru_stime, of_child.own_s - of_child.worker_wait_s]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs to bind processes to a CPU")
@pytest.mark.slow
def test_computing_beside_others_takes_its_own_cpu_time() -> None:
    program = [sys.executable, "-c", textwrap.dedent(SHARED_CPU)]
    result = subprocess.run(program, capture_output=True, text=True, check=True, timeout=HANG_LIMIT_S)
    own, of_child = map(json.loads, result.stdout.splitlines())
    elapsed_s, cpu_s, own_s, waited_share, worker_wait_s = own
    assert elapsed_s > 1.5 * cpu_s
    assert own_s == pytest.approx(cpu_s, rel=0.1)
    assert waited_share == pytest.approx(1 - own_s / elapsed_s)
    assert worker_wait_s == pytest.approx(0.0, abs=0.01)
    elapsed_s, cpu_s, undisturbed_s = of_child
    assert elapsed_s > 1.5 * cpu_s
    assert undisturbed_s == pytest.approx(cpu_s, rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads counts of threads")
def test_files_that_stay_open_are_those_of_the_own_thread() -> None:
    def is_own() -> bool:
        reads = (run_clock._read, run_clock._read_again, run_clock._read)
        computed = [int(read(run_clock._STATISTICS).split()[0]) for read in reads]
        return computed == sorted(computed)

    assert is_own()  # and the file stays open
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(is_own).result()
    if not (child := os.fork()):
        os._exit(0 if is_own() else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads clocks of processes")
def test_cpu_time_of_children_counts_once_while_they_run_and_after_their_end() -> None:
    waiting = "import time\nwhile time.process_time() < 0.1: pass\nprint(time.process_time(), flush=True)\ninput()"
    before_s = run_clock._children_cpu_s()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["sh", "-c", '"$0" -S -c "$1"; true', sys.executable, waiting], stdin=pipe, stdout=pipe, text=True
    ) as shell:
        assert shell.stdout is not None
        cpu_s = float(shell.stdout.readline())
        alive_s = run_clock._children_cpu_s() - before_s
        shell.communicate("\n")
    ended_s = run_clock._children_cpu_s() - before_s
    assert alive_s == pytest.approx(cpu_s, rel=0.2)
    assert alive_s <= ended_s == pytest.approx(cpu_s, rel=0.4)


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
    set_clocks(monkeypatch, thread_s=thread_s, switches=switches, queue_s=queue_s)
    times = RunClock().stop()
    assert (times.elapsed_s, times.wait_s, times.own_s) == pytest.approx((10.0, wait_s, 10.0 - wait_s))


@pytest.mark.parametrize(
    ("threads_s", "children_s", "pressure_s", "cpus", "worker_wait_s"),
    [
        (0.0, 2.0, 8.0, 1.0, 4.0),  # beside two others
        (2.0, 0.0, 8.0, 1.0, 4.0),  # a thread does not differ
        (0.0, 2.0, 0.0, 1.0, 0.0),  # on a quiet machine the rest is input and output
        (0.0, 2.0, 1.0, 1.0, 1.0),
        (0.0, 6.0, 8.0, 1.0, 0.0),  # its processes waited for each other only
        (0.0, 6.0, 8.0, 2.0, 3.0),  # two of them, which need two CPUs
        (0.0, 0.5, 8.0, 1.0, 0.0),  # it waited for something else
    ],
)
def test_waits_of_workers_are_interruptions_without_work_under_pressure(
    threads_s: float,
    children_s: float,
    pressure_s: float,
    cpus: float,
    worker_wait_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_clock.os, "cpu_count", lambda: 2)
    set_clocks(
        monkeypatch, thread_s=3.0, queue_s=1.0, threads_s=threads_s, children_s=children_s, pressure_s=pressure_s
    )
    times = RunClock(cpus).stop()
    assert (times.own_s, times.worker_wait_s) == pytest.approx((9.0, worker_wait_s))


def set_clocks(
    monkeypatch: pytest.MonkeyPatch,
    *,
    thread_s: float,
    switches: int = 1,
    queue_s: float = 0.0,
    threads_s: float = 0.0,
    children_s: float = 0.0,
    pressure_s: float = 0.0,
) -> None:
    """Let a run of 10 s advance the clocks by these seconds."""

    def advance(owner: object, name: str, start: float, by: float) -> None:
        values = iter((start, start + by))
        monkeypatch.setattr(owner, name, lambda: next(values))

    advance(run_clock.time, "perf_counter", 100.0, 10.0)
    advance(run_clock.time, "thread_time", 1.0, thread_s)
    advance(run_clock.time, "process_time", 2.0, thread_s + threads_s)
    advance(run_clock, "_voluntary_switches", 7, switches)
    advance(run_clock, "_run_queue_s", 3.0, queue_s)
    advance(run_clock, "_children_cpu_s", 4.0, children_s)
    advance(run_clock, "_pressure_s", 5.0, pressure_s)
