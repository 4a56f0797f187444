"""Scene of faults: the starter application under a controller and a light load, struck by one fault after the other.

Runs as a process of its own, in a mount namespace where that is allowed, and prints one line of JSON per fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil

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
    Struck,
)
from benchmarks.hardening.process_watch import processes_with
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
_DISK = "24m"
_NONE_SENT = "no request was sent since"


@dataclass
class FaultOutcome:
    """Outcome of one fault."""

    kind: str
    target: str
    number: int
    seconds: float
    recovery_s: float = float("inf")
    """Time from the strike, or from healing for a fault that lasts, until all is well."""
    requests: int = 0
    failed: int = 0
    silent: int = 0
    lost: list[str] = field(default_factory=list)
    """Committed data that is lost or cannot be read."""
    doubled: int = 0
    orphans: int = 0
    reasons: list[str] = field(default_factory=list)


class Scene:
    """Engine, controller and load in one folder."""

    def __init__(self, folder: Path, stop_s: float, seed: int, has_disk: bool) -> None:
        self._folder, self._stop_s, self._has_disk = folder, stop_s, has_disk
        self._rng = np.random.default_rng(seed)
        self._clock = ShiftedClock(folder.with_name(f"{folder.name}-clock"))
        path = f"{self._clock.folder}{os.pathsep}{environment()['PYTHONPATH']}"
        self._environment = environment(**{MARK: str(folder), "PYTHONPATH": path})
        self._controller: subprocess.Popen[bytes] | None = None
        self._run = RunDirectory((folder / RUN_FOLDER).absolute())
        self._requests = SceneRequests(self._run.http_address)

    async def strike_until(self, end_s: float) -> None:
        """Strike one fault after the other until a monotonic time, and print each outcome."""
        await self._restart()
        load = asyncio.create_task(self._requests.send_forever())
        number = 0
        cases = [(kind, target) for kind, target in CASES if self._has_disk or not kind.needs_disk]
        try:
            while True:
                for place in self._rng.permutation(len(cases)).tolist():
                    if time.monotonic() > end_s:
                        return
                    kind, target = cases[place]
                    outcome = await self._fault(kind, target, number)
                    number += 1
                    sys.stdout.write(f"{json.dumps(asdict(outcome))}\n")
                    sys.stdout.flush()
                    if outcome.recovery_s == float("inf"):
                        await self._restart()
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            left = self._end()
            sys.stdout.write(f"{json.dumps({'left': left})}\n")

    async def _fault(self, kind: FaultKind, target: str, number: int) -> FaultOutcome:
        outcome = FaultOutcome(kind.name, target, number, self._stop_s if kind.is_long else 0.0)
        await asyncio.sleep(_BEFORE_S + float(self._rng.uniform(0.0, 1.0)))
        events, plan = self._events(), (self._folder / PLAN).read_bytes()
        first = len(self._requests.ended)
        heal = kind.strike(Struck(self._processes(target), self._clock, self._folder if self._has_disk else None))
        if kind.is_long:
            await asyncio.sleep(self._stop_s)
        heal()
        healed_s = time.monotonic()
        outcome.recovery_s = await self._recovery_s(healed_s, outcome)
        await asyncio.sleep(_AFTER_S)
        requests = self._requests.ended[first:]
        outcome.requests, outcome.failed = len(requests), sum(request.status != 200 for request in requests)
        outcome.silent = sum(request.is_silent(healed_s) for request in requests)
        outcome.lost = self._lost(events, plan)
        outcome.doubled = double_actions(self._events(), {})
        outcome.orphans = len(self._orphans())
        return outcome

    async def _recovery_s(self, healed_s: float, outcome: FaultOutcome) -> float:
        """Wait until all is well, as a supervisor that starts a controller that has ended again."""
        steady, first_s = 0, 0.0
        while time.monotonic() < healed_s + _RECOVERY_S:
            if self._controller is None or self._controller.poll() is not None:
                code = None if self._controller is None else self._controller.returncode
                if code not in (None, -signal.SIGKILL):
                    outcome.reasons.append(f"the controller ended with code {code}")
                self._start_controller()
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
        recent = [request for request in self._requests.ended[-8:] if request.sent_s >= since_s]
        if not recent or recent[-1].status != 200:
            return f"request: {recent[-1].status}" if recent else _NONE_SENT
        return ""

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
        engine = self._run.process() or 0
        servers = [child.pid for child in _children(engine)]
        replicas = [child.pid for server in servers for child in _children(server)]
        controllers = [] if self._controller is None else [self._controller.pid]
        chosen = {ENGINE: [engine], FORK_SERVER: servers[:1], CONTROLLER: controllers}
        if target == REPLICA:
            return [replicas[int(self._rng.integers(len(replicas)))]] if replicas else []
        if target == ALL:
            return [*controllers, engine, *servers, *replicas]
        return chosen[target]

    def _orphans(self) -> list[int]:
        """Return marked processes that are neither controller nor engine nor below one of them."""
        roots = [self._run.process() or 0, *([self._controller.pid] if self._controller is not None else [])]
        expected = {*roots, *(child.pid for root in roots for child in _children(root, recursive=True))}
        return [process for process in processes_with(MARK, str(self._folder)) if process not in expected]

    def _start_controller(self) -> None:
        self._controller = subprocess.Popen(
            verb("serve", PLAN, "--mode", "real", "--json"), cwd=self._folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    async def _restart(self) -> None:
        """Start everything anew."""
        self._end()
        self._start_controller()
        load = asyncio.create_task(self._requests.send_forever())
        outcome = FaultOutcome("start", "", 0, 0.0)
        recovery_s = await self._recovery_s(time.monotonic(), outcome)
        load.cancel()
        if recovery_s == float("inf"):
            raise RuntimeError(f"the scene does not start: {', '.join(outcome.reasons)}")

    def _end(self) -> int:
        """End everything as a user does; return the number of processes that are left."""
        if self._controller is not None:
            self._controller.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._controller.wait(30.0)
        run_verb(self._folder, "destroy")
        left = processes_with(MARK, str(self._folder))
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return len(left)


def _children(process: int, *, recursive: bool = False) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(process).children(recursive=recursive)
    return []


def main(arguments: Sequence[str]) -> None:
    """Run a scene: application, folder, seed, seconds, seconds of a long fault, and 1 for a disk of its own."""
    application, folder = Path(arguments[0]), Path(arguments[1])
    seed, seconds, stop_s, has_disk = int(arguments[2]), float(arguments[3]), float(arguments[4]), arguments[5] == "1"
    folder.mkdir(parents=True)
    if has_disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "none", str(folder)], check=True)
    shutil.copytree(application, folder, dirs_exist_ok=True)
    asyncio.run(Scene(folder, stop_s, seed, has_disk).strike_until(time.monotonic() + seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
