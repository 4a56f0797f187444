"""Faults strike and are healed, each request of a scene counts once, and growth is judged only where it can be."""

from __future__ import annotations

import asyncio
import io
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from benchmarks.hardening.fault_kinds import CONTROLLER, KINDS, ShiftedClock, Struck
from benchmarks.hardening.fault_scene import FaultOutcome, Scene
from benchmarks.hardening.faults import Scenes, _result, has_disks
from benchmarks.hardening.http_load import HttpOutcome
from benchmarks.hardening.journal import Journal
from benchmarks.hardening.overload import LoadOutcome
from benchmarks.hardening.overload import _result as _overload_result
from benchmarks.hardening.process_watch import FaultLog, ProcessSample, kill_with, memory_bytes, reset_peak
from benchmarks.hardening.scene_requests import CUT_OFF, NOT_TAKEN, SceneRequests, SentRequest
from benchmarks.hardening.soak import _ends, growth_figure, soak
from benchmarks.hardening.starter import ENGINE, STATE, StarterApplication
from benchmarks.harness.results import ROOT
from rich.console import Console

from circinus.serving.local.run_dir import RunDirectory


def test_the_clock_of_processes_jumps_while_they_run(tmp_path: Path) -> None:
    clock = ShiftedClock(tmp_path / "clock")
    program = "import sys, time\nfor _ in sys.stdin: print(time.time() - time.monotonic(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(clock.folder)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def ahead_s() -> float:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return float(process.stdout.readline())  # type: ignore[union-attr]

        before_s = ahead_s()
        forward = next(kind for kind in KINDS if kind.name == "clock an hour ahead")
        heal = forward.strike(Struck([process.pid], clock, None))
        assert ahead_s() - before_s == pytest.approx(3600.0, abs=1.0)
        heal()
        assert ahead_s() - before_s == pytest.approx(0.0, abs=1.0)
        process.stdin.close()


def test_limits_of_running_processes_are_set_and_taken_back(tmp_path: Path) -> None:
    program = f"""
import sys
for line in sys.stdin:
    try:
        if "write" in line:
            open({str(tmp_path / "file")!r}, "w").write("x")
        else:
            open("/dev/null").close()
        print("ok", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""
    kinds = {kind.name: kind for kind in KINDS}
    with subprocess.Popen(
        [sys.executable, "-c", program], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def tries(what: str) -> str:
            process.stdin.write(f"{what}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return process.stdout.readline().strip()  # type: ignore[union-attr]

        assert (tries("write"), tries("open")) == ("ok", "ok")
        struck = Struck([process.pid], ShiftedClock(tmp_path / "clock"), None)
        heal = kinds["no descriptors"].strike(struck)
        assert tries("open") == "24"  # EMFILE
        heal()
        assert tries("open") == "ok"
        process.stdin.close()


def test_processes_are_slowed_and_go_on(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "slowed tenfold")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            seen = set()
            heal = kind.strike(Struck([process.pid], ShiftedClock(tmp_path / "clock"), None))
            end_s = time.monotonic() + 10.0
            while psutil.STATUS_STOPPED not in seen and time.monotonic() < end_s:
                seen.add(psutil.Process(process.pid).status())
            heal()
            assert psutil.STATUS_STOPPED in seen
            assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
        finally:
            process.kill()


def test_a_process_wakes_an_hour_later(tmp_path: Path) -> None:
    clock = ShiftedClock(tmp_path / "clock")
    kind = next(kind for kind in KINDS if kind.name == "asleep for an hour")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            heal = kind.strike(Struck([process.pid], clock, None))
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            heal()
            assert os.WIFCONTINUED(os.waitpid(process.pid, os.WCONTINUED)[1])
            assert clock.shift_s == 3600.0
        finally:
            process.kill()


@pytest.mark.skipif(not has_disks(), reason="needs to mount a disk")
def test_a_disk_becomes_read_only_for_open_files_too_and_keeps_what_was_synced(tmp_path: Path) -> None:
    program = f"""
import errno, os
from pathlib import Path
from benchmarks.hardening.fault_kinds import KINDS, SmallDisk, Struck
disk = SmallDisk(Path({str(tmp_path / "folder")!r}))
disk.create()
file = open(disk.folder / "file", "wb", buffering=0)
file.write(b"kept")
os.fsync(file.fileno())
strike = next(kind.strike for kind in KINDS if kind.name == "disk read-only")
heal = strike(Struck([], None, disk, file.close))
for write in (lambda: file.write(b"lost"), (disk.folder / "new").touch, (disk.folder / "file").unlink):
    try:
        write()
    except OSError as error:
        print(errno.errorcode[error.errno])
heal()
(disk.folder / "new").touch()
print((disk.folder / "file").read_text())
"""
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["EROFS"] * 3 + ["kept"]


def test_each_request_counts_once_and_the_silent_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_DEADLINE_S", 0.2), ("_GRACE_S", 0.2), ("_APART_S", 0.05)):
        monkeypatch.setattr(f"benchmarks.hardening.scene_requests.{name}", value)

    async def run() -> None:
        answers = ["answer", "cut", "silence"]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            kind = answers.pop(0)
            if kind == "silence":
                await asyncio.sleep(60.0)
            if kind == "answer":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        requests = SceneRequests(lambda: server.sockets[0].getsockname() if answers else None)
        load = asyncio.create_task(requests.send_forever())
        counts = Counter[str]()
        while counts.total() < 4:
            await asyncio.sleep(0.05)
            counts += requests.take(-math.inf)
        load.cancel()
        counts += await requests.take_rest(-math.inf)
        assert (counts["answered"], counts["cut_off"], counts["silent"]) == (1, 1, 1)
        assert counts["failed"] == counts.total() - 3
        assert not await requests.take_rest(-math.inf)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("healed_s", "may_cut_off", "counts"),
    [(-math.inf, False, (1, 0, 2)), (-math.inf, True, (1, 0, 2)), (99.0, False, (1, 1, 0)), (99.0, True, (2, 0, 0))],
)
def test_a_request_has_one_outcome_judged_by_the_last_healing(
    tmp_path: Path, healed_s: float, may_cut_off: bool, counts: tuple[int, int, int]
) -> None:
    scene, outcome = Scene(tmp_path / "scene", 1.0, 0, 0, False), FaultOutcome("a fault", "", 0, 0, 0.0)
    scene._healed_s = healed_s
    late = [SentRequest(0.0, 100.0, status) for status in (200, CUT_OFF)]
    scene._requests._sent = [*late, SentRequest(99.0, 100.0, 200), SentRequest(99.0, 100.0, NOT_TAKEN)]
    scene._count(outcome, may_cut_off=may_cut_off)
    assert outcome.requests == 4
    assert (outcome.failed, outcome.cut_off, outcome.silent) == counts


@pytest.mark.parametrize(
    ("code", "may_end", "crashes"),
    [(1, (), 1), (0, (), 1), (-9, (), 1), (1, (CONTROLLER,), 0), (-9, (CONTROLLER,), 0), (-15, (CONTROLLER,), 1)],
)
def test_an_end_of_the_controller_counts_unless_the_fault_may_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, may_end: tuple[str, ...], crashes: int
) -> None:
    async def no_trouble(since_s: float) -> str:
        return ""

    def start() -> None:
        scene._controller = None

    scene, outcome = Scene(tmp_path / "scene", 1.0, 0, 0, False), FaultOutcome("a fault", "", 0, 0, 0.0)
    monkeypatch.setattr(scene, "_trouble", no_trouble)
    monkeypatch.setattr(scene, "_start_controller", start)
    program = f"import os; os._exit({code}) if {code} >= 0 else os.kill(os.getpid(), {-code})"
    with subprocess.Popen([sys.executable, "-c", program]) as scene._controller:
        pass
    assert asyncio.run(scene._recovery_s(time.monotonic(), outcome, may_end)) < math.inf
    assert len(outcome.crashes) == crashes


def _fault(**changes: Any) -> dict[str, Any]:
    row = {
        "kind": "killed", "target": "engine", "scene": 0, "number": 0, "lasted_s": 0.0, "wall_s": 5.0,
        "recovery_s": 1.0, "requests": 9, "failed": 1, "cut_off": 0, "silent": 0, "lost": [], "doubled": 0,
        "orphans": 0, "crashes": [], "reasons": [],
    }  # fmt: skip
    return {**row, **changes}


def test_troubles_of_faults_are_summed() -> None:
    lines = [
        _fault(doubled=2, crashes=["KeyError"]), _fault(doubled=1, cut_off=3), _fault(recovery_s=math.inf, silent=1),
        {"left": 2, "requests": 4, "silent": 1}, {"failed": "OSError", "scene": 1, "number": 7},
    ]  # fmt: skip
    figures, _ = _result(lines, True, Console(file=io.StringIO()))
    values = {figure.name.removeprefix("faults: "): figure.value for figure in figures}
    assert values["decisions carried out twice"] == 3.0
    assert values["ends of controllers and engines that no fault may end, and tracebacks"] == 1.0
    assert values["requests cut off by an engine that lived on"] == 3.0
    assert values["silent requests"] == 2.0
    assert values["orphaned processes"] == 2.0
    assert values["scenes that could not go on"] == 1.0
    assert values["after which not all was well within a minute"] == 1.0


def _samples(slope_per_h: float, noise: float, count: int = 600) -> list[dict[str, float]]:
    rng = np.random.default_rng(5)
    hours = np.arange(count) / 3600.0
    return [{"hours": hour, "mib": 100.0 + slope_per_h * hour + noise * rng.normal()} for hour in hours.tolist()]


@pytest.mark.parametrize(
    ("rows", "met"),
    [
        (_samples(0.0, 0.01), True),
        (_samples(40.0, 0.01), False),
        (_samples(0.0, 20.0), None),
        (_samples(0.0, 0.01, 100), None),
    ],
)
def test_growth_is_judged_only_by_long_and_steady_samples(rows: list[dict[str, float]], met: bool | None) -> None:
    figure = growth_figure("memory", "MiB", 10.0, rows, "mib", 240)
    assert figure.met is met
    assert math.isnan(figure.value) is (met is None)


def test_a_process_that_ended_in_a_soak_is_seen_and_meets_no_aim(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "engine")
    directory.path.mkdir(mode=0o700)
    processes = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) for _ in "ce"]
    controller, engine = processes
    directory.lock.write_text(f"{engine.pid}", encoding="utf-8")
    assert _ends(controller, directory, engine.pid) == []
    assert ProcessSample.of(engine.pid).rss_bytes > 0
    for process in processes:
        process.kill()
    assert os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)  # not yet waited for
    sample = ProcessSample.of(engine.pid)
    controller.wait()
    assert _ends(controller, directory, engine.pid) == ["the controller with code -9", "the engine"]
    rows = _samples(0.0, 0.01)
    assert growth_figure("memory", "MiB", 10.0, [*rows[:-1], {**rows[-1], "mib": sample.rss_bytes}], "mib").met is False
    for process in processes:
        process.communicate()
    assert _ends(controller, directory, engine.pid) == ["the controller with code -9", "the engine"]


class _ServedApplication:
    """Application whose controller and engine do nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.errors = folder, folder / "errors.log"
        run_folder = folder / ENGINE
        run_folder.mkdir(parents=True, mode=0o700)
        for name, text in (("circinus-engine.lock", str(os.getpid())), ("http", "127.0.0.1:9"), ("log", "")):
            (run_folder / name).write_text(text, encoding="utf-8")
        (folder / STATE).touch()

    def copy_without_engine(self, folder: Path) -> _ServedApplication:
        return self

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        event = '{"data": {"kind": "applied"}}'
        program = f"import time; print({event!r}, flush=True); time.sleep(60)"
        return subprocess.Popen(
            [sys.executable, "-c", program], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def run(self, *arguments: str) -> None:
        return None


def test_an_interrupted_soak_shows_its_table_and_does_not_count_as_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupt(file: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    for name, value in (("prepared", lambda: _ServedApplication(tmp_path)), ("_edit", interrupt)):
        monkeypatch.setattr(f"benchmarks.hardening.soak.{name}", value)
    monkeypatch.setattr("benchmarks.hardening.soak._simulated", lambda *_: [])
    output = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        soak(60.0, 1.0, 0, Console(file=output))
    assert "growth per hour" in output.getvalue()


def test_errors_of_a_started_verb_are_kept(tmp_path: Path) -> None:
    application = StarterApplication(tmp_path / "application")
    application.folder.mkdir()
    with application.start("serve", "--nonsense"):
        pass
    assert "--nonsense" in application.errors.read_text(encoding="utf-8")


def test_a_journal_is_taken_up_by_the_same_code_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.hardening.journal.commit", lambda: "abc")
    journal = Journal(tmp_path / "j.jsonl", seed=1)
    journal.add({"number": 0, "recovery_s": math.inf})
    with journal.path.open("a", encoding="utf-8") as file:
        file.write('{"number": 1, "reco')  # the process was killed
    again = Journal(tmp_path / "j.jsonl", seed=1)
    again.add({"number": 1})
    assert again.rows == [{"number": 0, "recovery_s": math.inf}, {"number": 1}]
    assert not Journal(tmp_path / "j.jsonl", seed=2).rows


def test_tracebacks_of_a_log_are_read_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = FaultLog(path)
    assert log.tracebacks() == []
    path.write_text("x\nTraceback (most recent call last):\n  File\nKeyError: 7\nmore\n", encoding="utf-8")
    assert log.tracebacks() == ["KeyError: 7"]
    assert log.tracebacks() == []


def test_processes_that_end_meanwhile_do_not_keep_others_from_being_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        processes = [ended.pid, running.pid]
        monkeypatch.setattr("benchmarks.hardening.process_watch.processes_with", lambda *_: processes)
        assert kill_with("A", "b") == 2
    assert running.returncode == -9


def test_no_scene_is_started_after_the_others_were_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    scenes = Scenes(1, 1, 0.0, 0, journal, has_disk=False)
    monkeypatch.setattr(scenes, "_run", lambda *_: None)
    scenes.run(tmp_path, tmp_path, math.inf)
    assert scenes._attempt(0, 0, tmp_path, tmp_path / "scene", time.monotonic()) == (0, "")
    assert not scenes._running


def test_the_peak_of_a_process_begins_anew() -> None:
    program = "x = bytearray(1) * 2**28; del x; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = memory_bytes(process.pid)
        reset_peak(process.pid)
        assert memory_bytes(process.pid) < before - 2**27
        process.communicate(b"\n")
    assert memory_bytes(process.pid) == math.inf


def test_the_memory_of_an_engine_that_ended_meets_no_aim() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    ended = LoadOutcome(1.0, 1.0, [HttpOutcome(0.0, 0.0, 0.1, 200)], memory_bytes(process.pid))
    for first, last in ((replace(ended, peak_bytes=2.0**28), ended), (ended, ended)):
        figures, _ = _overload_result([first, last], 1.0, 0.0, [413], ended.peak_bytes, Console(file=io.StringIO()))
        met = {figure.name: figure.met for figure in figures if "memory" in figure.name}
        assert list(met.values()) == [False, False]
