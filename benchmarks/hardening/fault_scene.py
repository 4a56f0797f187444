"""Scene of faults: the starter application under a controller and a light load, struck by one fault after the other.

Runs as a process of its own, in a mount namespace where that is allowed, and prints one line of JSON per fault.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.control.crash_recovery import double_actions
from benchmarks.hardening.fault_kinds import (
    ALL,
    CASES,
    CONTROLLER,
    ENGINE,
    FORK_SERVER,
    REPLICA,
    FaultKind,
    ShiftedClock,
    SmallDisk,
    Struck,
)
from benchmarks.hardening.process_watch import FaultLog, children, is_alive, kill_with, processes_with
from benchmarks.hardening.scene_requests import SceneRequests
from benchmarks.hardening.starter import ENGINE as RUN_FOLDER
from benchmarks.hardening.starter import PLAN, STATE, STORE, environment, run_verb, verb
from circinus.control.state_store import ControlStateStore, Event
from circinus.errors import CircinusError
from circinus.serving.local.client import LocalEngineClient
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.state_serialization import state_from_json

MARK = "CIRCINUS_FAULT_SCENE"
"""Variable of all processes of a scene; its value is the folder."""
_LOOK_S = 0.1
_BEFORE_S, _AFTER_S = 0.3, 0.5
_RECOVERY_S = 60.0
_STEADY = 3
"""Number of good looks in a row after which everything counts as recovered."""
_NONE_SENT = "no request was sent since"


@dataclass
class FaultOutcome:
    """Outcome of one fault."""

    kind: str
    target: str
    scene: int
    number: int
    lasted_s: float
    wall_s: float = 0.0
    recovery_s: float = float("inf")
    """Time from the strike, or from healing for a fault that lasts, until all is well."""
    requests: int = 0
    failed: int = 0
    """Requests that were refused or failed with a status, or were not taken."""
    cut_off: int = 0
    """Requests that were taken, and whose connection was lost although the engine lived on."""
    silent: int = 0
    lost: list[str] = field(default_factory=list)
    """Committed data that is lost or cannot be read."""
    doubled: int = 0
    orphans: int = 0
    crashes: list[str] = field(default_factory=list)
    """Ends of controller and engine that the fault may not cause, and last lines of tracebacks."""
    reasons: list[str] = field(default_factory=list)


class Scene:
    """Engine, controller and load in one folder."""

    def __init__(self, folder: Path, stop_s: float, scene: int, seed: int, has_disk: bool) -> None:
        self._folder, self._stop_s, self._scene, self._seed = folder, stop_s, scene, seed
        self._disk = SmallDisk(folder) if has_disk else None
        self._cases = [(kind, target) for kind, target in CASES if has_disk or not kind.needs_disk]
        self._rng = np.random.default_rng()
        self._healed_s = -math.inf
        self._clock = ShiftedClock(folder.with_name(f"{folder.name}-clock"))
        path = f"{self._clock.folder}{os.pathsep}{environment()['PYTHONPATH']}"
        self._environment = environment(**{MARK: str(folder), "PYTHONPATH": path})
        self._controller: subprocess.Popen[bytes] | None = None
        self._run = RunDirectory((folder / RUN_FOLDER).absolute())
        self._requests = SceneRequests(self._run.http_address)
        self._controller_errors = folder.with_name(f"{folder.name}-controller.log")  # on no full disk
        self._logs = FaultLog(self._controller_errors), FaultLog(self._run.log)

    async def strike(self, numbers: range, seconds: float) -> None:
        """Strike one fault after the other for some time from the start of the scene, and print each outcome."""
        parent, load = os.getppid(), asyncio.create_task(self._requests.send_forever())
        try:
            await self._restart()
            end_s = time.monotonic() + seconds
            for number in numbers:
                if time.monotonic() > end_s or os.getppid() != parent:
                    break
                order = np.random.default_rng([self._seed, number // len(self._cases)]).permutation(len(self._cases))
                self._rng = np.random.default_rng([self._seed, number, 1])
                kind, target = self._cases[order[number % len(self._cases)]]
                outcome = await self._fault(kind, target, number)
                _print(asdict(outcome))
                if outcome.recovery_s == float("inf"):
                    await self._restart()
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            rest = await self._requests.take_rest(self._healed_s)
            _print({"left": self._end(), "requests": rest.total(), "silent": rest["silent"]})

    async def _fault(self, kind: FaultKind, target: str, number: int) -> FaultOutcome:
        start_s, lasts_s = time.monotonic(), kind.lasts * self._stop_s
        outcome = FaultOutcome(kind.name, target, self._scene, number, lasts_s)
        await asyncio.sleep(_BEFORE_S + float(self._rng.uniform(0.0, 1.0)))
        events, plan, engine = self._events(), (self._folder / PLAN).read_bytes(), self._run.process()
        may_end = {place for place in (ENGINE, CONTROLLER) if kind.ends_processes and target in (place, ALL)}
        self._count(outcome, may_cut_off=False)
        self._supervise(outcome, ())

        def end() -> None:
            self._supervise(outcome, may_end)
            self._has_ended(engine, outcome, may_end)
            may_end.update((ENGINE, CONTROLLER))
            outcome.orphans += self._end()

        heal = kind.strike(Struck(self._processes(target), self._clock, self._disk, end))
        try:
            await asyncio.sleep(lasts_s)
        finally:
            heal()
            self._healed_s = time.monotonic()
        outcome.recovery_s = await self._recovery_s(self._healed_s, outcome, may_end)
        await asyncio.sleep(_AFTER_S)
        has_ended = self._has_ended(engine, outcome, may_end)
        self._count(outcome, may_cut_off=has_ended)
        if has_ended:
            self._logs[1].rewind()
        logged = Counter(line for log in self._logs for line in log.tracebacks())
        outcome.crashes += [f"{line}, {times} times" for line, times in logged.items()]
        outcome.lost = self._lost(events, plan)
        outcome.doubled = double_actions(self._events(), {}) - double_actions(events, {})
        outcome.orphans += len(self._orphans())
        outcome.wall_s = time.monotonic() - start_s
        return outcome

    def _has_ended(self, engine: int | None, outcome: FaultOutcome, may_end: Collection[str]) -> bool:
        """Return whether the engine has ended, and count an end that the fault may not cause."""
        has_ended = self._run.process() != engine or not is_alive(engine or 0)
        if has_ended and ENGINE not in may_end:
            outcome.crashes.append("the engine ended")
        return has_ended

    def _count(self, outcome: FaultOutcome, *, may_cut_off: bool) -> None:
        counts = self._requests.take(self._healed_s)
        outcome.requests += counts.total()
        outcome.failed += counts["failed"] + counts["cut_off"] * may_cut_off
        outcome.cut_off += counts["cut_off"] * (not may_cut_off)
        outcome.silent += counts["silent"]

    async def _recovery_s(self, healed_s: float, outcome: FaultOutcome, may_end: Collection[str]) -> float:
        """Wait until all is well, with a supervised controller."""
        steady, first_s = 0, 0.0
        while time.monotonic() < healed_s + _RECOVERY_S:
            self._supervise(outcome, may_end)
            looked_s = time.monotonic()
            reason = await self._trouble(healed_s)
            if reason:
                steady = 0
                if reason != _NONE_SENT and reason not in outcome.reasons and len(outcome.reasons) < 5:
                    outcome.reasons.append(reason)
            else:
                first_s = looked_s if steady == 0 else first_s
                steady += 1
                if steady == _STEADY:
                    return max(0.0, first_s - healed_s)
            await asyncio.sleep(_LOOK_S)
        return float("inf")

    def _supervise(self, outcome: FaultOutcome, may_end: Collection[str]) -> None:
        """Start the controller again if it has ended, and count an end that the fault may not cause."""
        code = None if self._controller is None else self._controller.poll()
        if code is not None and not (CONTROLLER in may_end and (code > 0 or code == -signal.SIGKILL)):
            outcome.crashes.append(f"the controller ended with code {code}")
        if self._controller is None or code is not None:
            self._start_controller()

    async def _trouble(self, since_s: float) -> str:
        """Return what is not well, or an empty text: a request that was sent since has been answered, too."""
        client = LocalEngineClient(self._folder / RUN_FOLDER)
        try:
            async with asyncio.timeout(2.0):
                status = await client.status()
        except (CircinusError, TimeoutError, OSError) as error:
            return f"status: {getattr(error, 'code', type(error).__name__)}"
        finally:
            with suppress(CircinusError, OSError):
                await client.disconnect()
        if not status.healthy:
            return "a replica is not ready"
        if not status.state:
            return "no state is in force"
        if not self._holder():
            return "no controller holds the lease"
        answer = self._requests.last_status(since_s)
        return _NONE_SENT if answer is None else "" if answer == 200 else f"request: {answer}"

    def _holder(self) -> str:
        with suppress(CircinusError, sqlite3.Error), closing(self._store()) as store:
            holder = store.holder(time.time() + self._clock.shift_s)
            process = self._controller.pid if self._controller is not None else 0
            return holder if f"process {process} " in holder else ""
        return ""

    def _lost(self, events: Sequence[Event], plan: bytes) -> list[str]:
        lost = []
        if self._events()[: len(events)] != events:
            lost.append("events")
        if (self._folder / PLAN).read_bytes() != plan:
            lost.append("plan file")
        for name in (STATE, STORE):
            with suppress(sqlite3.Error), closing(sqlite3.connect(self._folder / name)) as database:
                if database.execute("PRAGMA quick_check").fetchone() == ("ok",):
                    continue
            lost.append(name)
        try:
            state_from_json(self._run.desired.read_text(encoding="utf-8"))
        except (OSError, CircinusError):
            lost.append("applied state")
        return lost

    def _events(self) -> list[Event]:
        with closing(self._store()) as store:
            return list(store.events(count=100_000))

    def _store(self) -> ControlStateStore:
        return ControlStateStore.open_existing(self._folder / STATE)

    def _processes(self, target: str) -> list[int]:
        engine = self._run.process()
        engines = [] if engine is None else [engine]
        servers = [child for process in engines for child in children(process)]
        replicas = [child for server in servers for child in children(server)]
        controllers = [] if self._controller is None else [self._controller.pid]
        chosen = {ENGINE: engines, FORK_SERVER: servers[:1], CONTROLLER: controllers}
        if target == REPLICA:
            return [replicas[int(self._rng.integers(len(replicas)))]] if replicas else []
        if target == ALL:
            return [*controllers, *engines, *servers, *replicas]
        return chosen[target]

    def _orphans(self) -> list[int]:
        """Return marked processes that are neither controller nor engine nor below one of them."""
        marked = processes_with(MARK, str(self._folder))  # before their parents: one that starts meanwhile is no orphan
        roots = [process for target in (ENGINE, CONTROLLER) for process in self._processes(target)]
        expected = {*roots, *(child for root in roots for child in children(root, recursive=True))}
        return [process for process in marked if process not in expected and is_alive(process)]

    def _start_controller(self) -> None:
        with self._controller_errors.open("ab") as errors:
            self._controller = subprocess.Popen(
                verb("serve", PLAN, "--mode", "real", "--json"), cwd=self._folder, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    async def _restart(self) -> None:
        """Start everything anew."""
        self._end()
        self._start_controller()
        outcome = FaultOutcome("start", "", self._scene, 0, 0.0)
        if await self._recovery_s(time.monotonic(), outcome, ()) == float("inf"):
            raise RuntimeError(f"the scene does not start: {', '.join(outcome.reasons + outcome.crashes)}")
        self._healed_s = time.monotonic()
        self._requests.take(self._healed_s)
        self._logs[1].rewind()
        for log in self._logs:
            log.tracebacks()

    def _end(self) -> int:
        """End everything as a user does; return the number of processes that are left."""
        if self._controller is not None:
            self._controller.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._controller.wait(30.0)
            self._controller = None
        run_verb(self._folder, "destroy")
        return kill_with(MARK, str(self._folder))


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Run a scene, see `faults.Scenes`."""
    application, folder, has_disk = Path(arguments[0]), Path(arguments[1]), arguments[2] == "1"
    scene, seed, first, count = map(int, arguments[3:7])
    seconds, stop_s = map(float, arguments[7:])
    for number in (signal.SIGINT, signal.SIGTERM):  # which a shell may have let be ignored
        signal.signal(number, signal.default_int_handler)
    if has_disk:
        SmallDisk(folder).create()
    shutil.copytree(application, folder, dirs_exist_ok=True)
    os.sync()  # so that a disk that fails loses nothing but what the product has not synced
    asyncio.run(Scene(folder, stop_s, scene, seed, has_disk).strike(range(first, first + count), seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
