"""An operator in a process of its own: measured, failing, crashing, and ended with its planner."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from sample_application import Application

from budget import HANG_LIMIT_S
from circinus.operators import resolve_operator
from circinus.operators.executor_process import OperatorProcessError
from circinus.operators.fork_server_client import ForkServerClient
from circinus.operators.host import BatchRun, OperatorHost
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.profiling.measurement.operator_process import (
    OperatorProcess,
    OperatorProcessKey,
    OperatorProcessPool,
)
from circinus.specification import KnobValues
from process_ends import has_ended

pytestmark = pytest.mark.slow  # every test starts processes

MODULE = "sample_replica"
SOURCE = """
import os, signal, subprocess, sys, threading, time
import numpy as np
from circinus.operators import operator

@operator
class Any:
    def __init__(self, *, mode: str = "", cpus: float = 1):
        self.cpus = cpus
        if mode == "broken":
            raise RuntimeError("no model here")
        if mode == "large":
            self.held = np.ones(50_000_000 // 8)

    def process(self, commands):
        return [self.one(*command) for command in commands]

    def one(self, command, *arguments):
        if command == "echo":
            return arguments[0]
        if command == "repeat":
            return b"x" * arguments[0]
        if command == "raise":
            raise ValueError("bad " + arguments[0])
        if command == "raise without text":
            raise type("Textless", (Exception,), {"__str__": lambda self: 1 / 0})
        if command == "exit":
            print("about to end", file=sys.stderr, flush=True)
            os._exit(7)
        if command == "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        if command == "sleep":
            time.sleep(arguments[0])
        if command == "spin":
            end = time.process_time() + arguments[0]
            while time.process_time() < end:
                pass
        if command == "allocate":
            np.ones(arguments[0] // 8).sum()
        if command == "print":
            print("noise on standard output", flush=True)
        if command == "start":
            return subprocess.Popen(["sleep", "600"]).pid
        if command == "start and exit":
            subprocess.Popen(["sleep", arguments[0]])
            os._exit(7)
        if command == "interrupt":
            os.kill(arguments[0], signal.SIGINT)
            time.sleep(600)
        if command == "pid":
            return os.getpid()
        if command == "environment":
            return os.environ.get(arguments[0])
        if command == "close output":
            sys.stdout = None
        if command == "cpus":
            return self.cpus
        if command == "lambda":
            return lambda: 1

@operator
class Slow:
    def __init__(self):
        time.sleep(0.5)

    def process(self, commands):
        return list(commands)

@operator
class Short:
    def process(self, commands):
        return list(commands)[1:]

@operator
class Lazy:
    def process(self, commands):
        return (command for command in commands)

@operator
class Counted:
    def __init__(self, *, cold_s):
        self.calls, self.cold_s = 0, cold_s

    def process(self, values):
        self.calls += 1
        if self.calls == 1:
            time.sleep(self.cold_s)
        elif not self.cold_s:
            time.sleep(0.05)
        return [self.calls] * len(values)
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerClient]:
    """Yield the client of one fork server for all tests, which starts again after a test that killed it."""
    client = ForkServerClient(OperatorHost)
    yield client
    client.close()


@pytest.fixture
def start(application: Application, processes: ForkServerClient) -> Iterator[Callable[..., OperatorProcess]]:
    application.write(MODULE, SOURCE)
    sys.modules.pop(MODULE, None)
    with ExitStack() as stack:

        def started(
            attribute: str = "Any", cpus: float = 1.0, timeout_s: float = HANG_LIMIT_S, **knobs: Any
        ) -> OperatorProcess:
            uses = f"{MODULE}:{attribute}"
            version = resolve_operator(uses, [application.folder]).version
            key = OperatorProcessKey(uses, version, KnobValues.of(knobs), cpus)
            replica = OperatorProcess(processes, key, (application.folder,), timeout_s)
            stack.callback(replica.close)
            return replica

        yield started
    sys.modules.pop(MODULE, None)


def _run(replica: OperatorProcess, batch: list[list[bytes]]) -> BatchRun:
    return next(replica.process_each([batch]))


def _ask(replica: OperatorProcess, *command: Any) -> Any:
    return unpickle_value(_run(replica, [[pickle_value(command)]]).outputs[0])


def test_it_loads_once_and_processes_batches(start: Callable[..., OperatorProcess]) -> None:
    replica = start(cpus=3.0)
    run = _run(replica, [[pickle_value(("echo", "a"))], [pickle_value(("echo", 2.5))]])
    assert [unpickle_value(output) for output in run.outputs] == ["a", 2.5]
    assert run.service_s > 0
    assert 0 < replica.load_s < replica.startup_s
    assert _ask(replica, "cpus") == 3.0
    assert _ask(replica, "pid") != os.getpid()


@pytest.mark.parametrize(("failure", "lives"), [(("raise", "apple"), True), (("exit",), False)])
def test_batches_sent_ahead_of_a_failure(
    start: Callable[..., OperatorProcess], failure: tuple[Any, ...], lives: bool
) -> None:
    """The runs before it are kept, those behind it are dropped, and no late reply is taken for another one."""
    replica = start()
    commands = [*(("echo", number) for number in range(20)), failure, *(("echo", number) for number in range(20))]
    runs = replica.process_each([[[pickle_value(command)]] for command in commands])
    assert [unpickle_value(run.outputs[0]) for run in islice(runs, 20)] == list(range(20))
    with pytest.raises(OperatorProcessError):
        next(runs)
    assert replica.alive == lives
    if lives:
        assert _ask(replica, "echo", "later") == "later"


@pytest.mark.parametrize("input_bytes", [100, 900, 2_000, 12_000, 3_000_000])
def test_batches_sent_ahead_of_large_outputs(start: Callable[..., OperatorProcess], input_bytes: int) -> None:
    """Neither end may wait for the other to read."""
    replica, count = start(), 10 if input_bytes > 1_000_000 else 60
    batch = [[pickle_value(("repeat", 300_000, b"x" * input_bytes))]]
    runs = replica.process_each([batch] * count)
    assert [len(unpickle_value(run.outputs[0])) for run in runs] == [300_000] * count


def test_the_start_up_is_the_load_and_the_process_besides(start: Callable[..., OperatorProcess]) -> None:
    """A model that takes long to load is in both; the start of the fork server is in neither."""
    slow, quick = start("Slow"), start("Short")
    assert slow.load_s >= 0.5
    for replica in (slow, quick):
        assert replica.startup_s > replica.load_s


@pytest.mark.parametrize(("cold_s", "calls"), [(0.0, [2, 3, 4, 5, 6]), (0.3, [2, 3, 5, 6, 8])])
def test_first_runs_of_slow_starters_are_not_counted(
    start: Callable[..., OperatorProcess], cold_s: float, calls: list[int]
) -> None:
    """The first call of a process always warms up; if it took long, so does that of each further source and size."""
    replica, value = start("Counted", cold_s=cold_s), [pickle_value(None)]
    batches = [(1, "a"), (1, "a"), (1, "b"), (1, "a"), (2, "a")]
    runs = [next(replica.process_each([[value] * size], source=source)) for size, source in batches]
    assert [unpickle_value(run.outputs[0]) for run in runs] == calls


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, "1"), (1.0, "1"), (1.5, "2"), (3.0, "3")])
def test_threads_are_held_to_the_cpus(start: Callable[..., OperatorProcess], cpus: float, threads: str) -> None:
    replica = start(cpus=cpus)
    assert _ask(replica, "environment", "OMP_NUM_THREADS") == threads
    assert _ask(replica, "environment", "OPENBLAS_NUM_THREADS") == threads


def test_half_a_cpu_takes_twice_the_time(start: Callable[..., OperatorProcess]) -> None:
    """CPU time is what counts: waiting takes no longer on half a CPU."""
    run = _run(start(cpus=0.5), [[pickle_value(("spin", 0.05))]])
    assert run.service_s >= 0.1
    idle = _run(start(cpus=0.1), [[pickle_value(("sleep", 0.05))]])
    assert idle.service_s == idle.times.own_s


def test_output_on_the_streams_harms_nothing(start: Callable[..., OperatorProcess]) -> None:
    assert _ask(start(), "print") is None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("raise", "apple"), r"ValueError: bad apple \(sample_replica\.py:\d+\)"),
        (("raise without text",), r"Textless: its text failed with ZeroDivisionError"),
        (("lambda",), "its output cannot be pickled"),
    ],
)
def test_an_error_is_told_and_the_replica_goes_on(
    start: Callable[..., OperatorProcess], command: tuple[Any, ...], said: str
) -> None:
    replica = start()
    with pytest.raises(OperatorProcessError, match=said):
        _ask(replica, *command)
    assert replica.alive
    assert _ask(replica, "echo", "still here") == "still here"


def test_a_batch_has_as_many_outputs_as_inputs(start: Callable[..., OperatorProcess]) -> None:
    with pytest.raises(OperatorProcessError, match="found 0 outputs for a batch of 1"):
        _ask(start("Short"), "echo", 1)
    with pytest.raises(OperatorProcessError, match="found generator for a batch of 1"):
        _ask(start("Lazy"), "echo", 1)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exit", "its process exited with code 7; last output: about to end"),
        ("kill", "its process was killed by SIGSEGV"),
    ],
)
def test_a_crash_is_told_and_harms_nobody(start: Callable[..., OperatorProcess], command: str, said: str) -> None:
    replica = start()
    with pytest.raises(OperatorProcessError, match=said):
        _ask(replica, command)
    assert not replica.alive
    with pytest.raises(OperatorProcessError):
        _ask(replica, "echo", 1)


def test_an_operator_that_hangs_has_failed(start: Callable[..., OperatorProcess]) -> None:
    replica = start()
    assert _ask(replica, "echo", 1) == 1
    replica._timeout_s = 0.2
    with pytest.raises(OperatorProcessError, match=r"timed out after 0\.2 s"):
        _ask(replica, "sleep", 60)
    assert not replica.alive


def test_what_cannot_be_loaded_leaves_no_process(start: Callable[..., OperatorProcess]) -> None:
    start()
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(OperatorProcessError, match=r"RuntimeError: no model here \(sample_replica\.py:\d+\)"):
        start(mode="broken")
    with pytest.raises(OperatorProcessError, match="unexpected keyword argument 'size'"):
        start(size=3)
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_source_edited_meanwhile_is_noticed(start: Callable[..., OperatorProcess], application: Application) -> None:
    start()
    path = application.folder / f"{MODULE}.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    with pytest.raises(OperatorProcessError, match="its source was edited"):
        start()


def test_memory_is_that_of_the_whole_process_at_its_greatest(start: Callable[..., OperatorProcess]) -> None:
    small, large, spiking = start(), start(mode="large"), start()
    for replica in (small, large):
        _ask(replica, "echo", 1)
    _ask(spiking, "allocate", 80_000_000)
    assert small.peak_memory_bytes > 10_000_000  # an interpreter with NumPy
    assert large.peak_memory_bytes - small.peak_memory_bytes == pytest.approx(50e6, rel=0.1)
    assert spiking.peak_memory_bytes - small.peak_memory_bytes == pytest.approx(80e6, rel=0.1)
    assert spiking.memory_bytes() < spiking.peak_memory_bytes - 50e6


def test_the_planners_own_memory_is_not_counted(start: Callable[..., OperatorProcess]) -> None:
    held = bytearray(os.urandom(1)) * 300_000_000
    replica = start()
    _ask(replica, "echo", len(held))
    assert replica.peak_memory_bytes < 200_000_000


def test_it_ends_when_the_planner_is_killed(application: Application) -> None:
    application.write(MODULE, SOURCE)
    planner = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from circinus.operators import resolve_operator
        from circinus.operators.fork_server_client import ForkServerClient
        from circinus.operators.host import OperatorHost
        from circinus.profiling.measurement.operator_process import OperatorProcess, OperatorProcessKey
        from circinus.operators.pickling import pickle_value, unpickle_value
        from circinus.specification import KnobValues
        folder = Path({str(application.folder)!r})
        version = resolve_operator("{MODULE}:Any", [folder]).version
        key = OperatorProcessKey("{MODULE}:Any", version, KnobValues(), 1.0)
        processes = ForkServerClient(OperatorHost)
        replica = OperatorProcess(processes, key, (folder,), {HANG_LIMIT_S})
        for command in ("pid", "start"):
            print(unpickle_value(next(replica.process_each([[[pickle_value((command,))]]])).outputs[0]), flush=True)
        next(replica.process_each([[[pickle_value(("sleep", 600))]]]))
    """)
    process = subprocess.Popen([sys.executable, "-c", planner], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    replica, started = (psutil.Process(int(process.stdout.readline())) for _ in range(2))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert has_ended(replica)
    assert has_ended(started)


def test_a_killed_fork_server_is_replaced(start: Callable[..., OperatorProcess]) -> None:
    replica = start()
    fork_server = psutil.Process(_ask(replica, "pid")).parent()
    assert fork_server is not None
    fork_server.kill()
    with pytest.raises(OperatorProcessError):
        _ask(replica, "sleep", 600)
    assert _ask(start(), "echo", 2) == 2


def test_an_operator_without_output_ends_alone(start: Callable[..., OperatorProcess]) -> None:
    other, replica = start(), start()
    _ask(replica, "close output")
    replica.close()
    assert _ask(other, "echo", 2) == 2


def test_large_arguments_reach_the_operator(start: Callable[..., OperatorProcess]) -> None:
    assert _ask(start(mode="x" * 2_000_000), "echo", 1) == 1


def test_who_ends_with_the_fork_server_is_a_bystander(start: Callable[..., OperatorProcess]) -> None:
    replica, crashed = start(), start()
    fork_server = psutil.Process(_ask(replica, "pid")).parent()
    assert fork_server is not None
    with pytest.raises(OperatorProcessError):
        _ask(crashed, "exit")
    fork_server.kill()

    def ask_until_it_ends() -> None:
        while True:
            _ask(replica, "echo", 1)

    with pytest.raises(OperatorProcessError):
        ask_until_it_ends()
    assert replica.was_bystander
    assert not crashed.was_bystander


def test_closing_twice_is_no_error_and_ends_the_process(start: Callable[..., OperatorProcess]) -> None:
    replica = start()
    process = psutil.Process(_ask(replica, "pid"))
    replica.close()
    replica.close()
    assert not process.is_running()


def test_what_an_operator_started_ends_with_it(start: Callable[..., OperatorProcess]) -> None:
    closed, late = start(), start()
    started = [psutil.Process(_ask(replica, "start")) for replica in (closed, late)]
    closed.close()
    late._timeout_s = 0.2
    with pytest.raises(OperatorProcessError, match="timed out"):
        _ask(late, "sleep", 60)
    assert all(has_ended(process) for process in started)


def test_what_a_crashed_operator_started_ends_too(start: Callable[..., OperatorProcess]) -> None:
    replica, mark = start(), f"600.{os.getpid()}"
    with pytest.raises(OperatorProcessError, match="exited with code 7"):
        _ask(replica, "start and exit", mark)
    left = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", mark]]
    assert all(has_ended(process) for process in left)


def test_what_cannot_be_started_leaves_nothing_open(
    start: Callable[..., OperatorProcess], processes: ForkServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    gc.collect()  # what earlier tests left open is closed now or never
    before = psutil.Process().num_fds()
    with pytest.raises(OperatorProcessError, match=r"its process cannot be started: .*/nowhere/python"):
        start()
    assert psutil.Process().num_fds() == before


def test_only_as_many_stay_loaded_as_fit_in_memory(
    start: Callable[..., OperatorProcess], application: Application
) -> None:
    def load(key: OperatorProcessKey, timeout_s: float) -> OperatorProcess:
        return start(cpus=key.cpus, timeout_s=timeout_s)

    keys = [OperatorProcessKey(f"{MODULE}:Any", "", KnobValues(), float(cpus)) for cpus in (1, 2, 3)]
    one = start().memory_bytes()
    replicas = OperatorProcessPool(load, memory_limit_bytes=2.5 * one)
    first = replicas.get(keys[0], HANG_LIMIT_S)
    replicas.get(keys[1], HANG_LIMIT_S)
    assert replicas.get(keys[0], HANG_LIMIT_S) is first
    replicas.get(keys[2], HANG_LIMIT_S)  # the second is now the least recently used
    assert len(replicas) == 2
    assert replicas.get(keys[0], HANG_LIMIT_S) is first
    assert first.alive
    replicas.close()
    assert len(replicas) == 0
    assert not first.alive


def test_one_that_is_larger_than_the_limit_is_kept_while_it_is_used(start: Callable[..., OperatorProcess]) -> None:
    replicas = OperatorProcessPool(lambda key, _: start(cpus=key.cpus), memory_limit_bytes=1.0)
    for cpus in (1.0, 2.0):
        key = OperatorProcessKey(f"{MODULE}:Any", "", KnobValues(), cpus)
        assert _ask(replicas.get(key, HANG_LIMIT_S), "echo", cpus) == cpus
        assert len(replicas) == 1
    replicas.close()


def test_a_replica_finds_what_the_planner_finds(processes: ForkServerClient, tmp_path: Path) -> None:
    """Also what is on the planner's search path alone."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "sample_elsewhere.py").write_text(
        "from circinus.operators import operator\n@operator\ndef of_this_machine(value):\n    return 'found'\n",
        encoding="utf-8",
    )
    sys.path.append(str(other))
    uses = "sample_elsewhere:of_this_machine"
    key = OperatorProcessKey(uses, resolve_operator(uses).version, KnobValues(), 1.0)
    replica = OperatorProcess(processes, key, (), HANG_LIMIT_S)
    try:
        assert _ask(replica, "x") == "found"
    finally:
        replica.close()
        sys.path.remove(str(other))
        del sys.modules["sample_elsewhere"]


def test_interrupting_ends_the_replica(start: Callable[..., OperatorProcess]) -> None:
    """An answer that comes after the interrupt must not be taken for that to the next request."""
    replica = start()
    assert _ask(replica, "echo", 1) == 1
    # Whoever runs tests in the background may have told this process to ignore interrupts.
    interrupting = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _ask(replica, "interrupt", os.getpid())
    finally:
        signal.signal(signal.SIGINT, interrupting)
    assert not replica.alive
