"""Load of the machine: own CPU time is told apart from that of other programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from circinus.serving.loadtest.machine_load import MachineLoad, MachineMonitor

SPIN = "import time\nwhile time.process_time() < {0}: pass\nprint(flush=True)\ninput()"


def test_processes_with_their_descendants_are_the_load_test() -> None:
    begin_s = time.monotonic()
    own, none = MachineMonitor([os.getpid()]), MachineMonitor([])
    child = subprocess.Popen(
        [sys.executable, "-c", SPIN.format(0.4)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()  # it has spent its time, and lives
        seen, others = own.load(), none.load()
        elapsed_s = time.monotonic() - begin_s
    finally:
        child.communicate("\n")
    assert seen.own_cpus * elapsed_s >= 0.3
    assert others.own_cpus == 0.0
    assert others.others_cpus * elapsed_s >= 0.3


def test_processes_that_end_are_still_of_the_load_test() -> None:
    begin_s = time.monotonic()
    own = MachineMonitor([os.getpid()])
    subprocess.run([sys.executable, "-c", SPIN.format(0.4)], input="\n", text=True, check=True)
    load, elapsed_s = own.load(), time.monotonic() - begin_s
    assert load.own_cpus * elapsed_s >= 0.3


@pytest.mark.parametrize(
    ("own", "others", "busy"), [(0.1, 1.9, True), (1.9, 0.1, False), (1.2, 0.5, True), (0.1, 1.0, False)]
)
def test_a_machine_is_busy_if_others_leave_no_cpu(own: float, others: float, busy: bool) -> None:
    assert MachineLoad(2, own, others).busy is busy
