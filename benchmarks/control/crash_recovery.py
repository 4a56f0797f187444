"""Crashes of the controller and of replicas under load: lost requests, repeated actions, orphaned deployments.

A third of the controllers is killed at a random moment, a third while a step on a ladder is applied, and a third while
a new plan file is applied.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.control.plan_file_changes import BroughtAbout, WrittenPlans
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.serving.replica_crashes import replica_kills
from benchmarks.workloads.burst_shop import BEGAN, PEAK, STEP, Scene
from benchmarks.workloads.traffic import Phase, lost, phased_arrivals, recorded_requests
from circinus.control.state_store import ControlStateStore, Event, EventKind
from circinus.serving import DesiredState, EngineStatus
from circinus.serving.loadtest.open_loop import OpenLoop, RequestOutcome
from circinus.serving.local.client import LocalEngineClient, start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.local.run_dir import RunDirectory

_CYCLE = (Phase(4.0, PEAK), Phase(22.0, 0.8))
"""Cycle of traffic: a peak that steps down the ladders, and a calm phase long enough to step up again."""
_DWELL_S = 2.0
_MAX_LIFETIME_S = 6.0
"""Maximum time from the start of a controller to its kill."""
ANY, STEPPING, ROLLING = "at any moment", "after a step", "after other plans"
"""Kinds of kill times, in turns."""
_AFTER_S = {STEP: 0.03, EventKind.REPLAN: 0.1}
"""Maximum delay of the kill after a decision, so that the change is being applied. New plans take two polls."""
_TIMEOUT_S = 20.0
_RETRY_S = 0.5
_POLL_S = 0.2
_QUIET_S = 120.0
"""Timeout, without requests, until all queries are back on their plans."""


@dataclass
class _Observations:
    """Observations of engine and controllers."""

    killed_s: list[float] = field(default_factory=list)
    """Times of kills in seconds since 1970."""
    when: list[str] = field(default_factory=list)
    """`ANY`, `STEPPING` or `ROLLING`, per kill."""
    answers: list[RequestOutcome] = field(default_factory=list)
    orphans: int = 0
    same: bool = False
    """True if the engine runs the stored state at the end."""
    away: int = 0
    """Number of queries that are not on their plans at the end, after a long time without requests."""
    brought: BroughtAbout = field(default_factory=lambda: BroughtAbout(0, ()))


class _Controllers:
    """Successive processes of `circinus serve`."""

    def __init__(self, scene: Scene, run_folder: Path, records: Path) -> None:
        options = ["--mode", "replay", "--json", "--standby-factor", f"{PEAK:g}x", "--dwell", f"{_DWELL_S:g}s"]
        files = ["--run-dir", str(run_folder), "--state-file", str(records)]
        self._command = [sys.executable, "-m", "circinus", "serve", str(scene.plan_file), *options, *files]
        self._folder = scene.folder
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._decided = {STEP: asyncio.Event(), EventKind.REPLAN: asyncio.Event()}

    async def start(self) -> None:
        """Start processes until one gets the lease."""
        while True:
            self._started.clear()
            process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            self._process, self._reading = process, asyncio.create_task(self._read(process))
            started = asyncio.create_task(self._started.wait())
            await asyncio.wait({started, self._reading}, return_when=asyncio.FIRST_COMPLETED)
            started.cancel()
            if self._started.is_set():
                return
            await process.wait()
            await asyncio.sleep(_RETRY_S)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if not line.startswith(b'{"'):
                continue  # an error message
            kind = json.loads(line)["kind"]
            if kind == BEGAN:
                self._started.set()
            if kind in self._decided:
                self._decided[kind].set()

    async def decided(self, kind: str, after: Callable[[], None] = lambda: None) -> None:
        """Call `after`, and wait for the next decision of a kind."""
        self._decided[kind].clear()
        after()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._decided[kind].wait(), _TIMEOUT_S)

    async def end(self, number: signal.Signals) -> None:
        """Send a signal to the running process, and wait until it has ended."""
        assert self._process is not None
        assert self._reading is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        await self._process.wait()
        await self._reading


def double_actions(events: Sequence[Event], first: Mapping[str, int]) -> int:
    """Count inconsistent steps: from another rung than the current one, to the same rung, or out of order.

    Args:
        events: stored events of all controllers.
        first: initial rung per query.
    """
    rungs, last, count = dict(first), 0, 0
    for event in events:
        count += event.number <= last
        last = event.number
        if event.kind in (EventKind.REPLAN, EventKind.ROLLBACK):
            rungs.clear()  # new plans have other ladders
        if event.kind != STEP:
            continue
        source, target = event.details["from"], event.details["to"]
        count += source != rungs.get(event.subject, source) or target == source
        rungs[event.subject] = target
    return count


def without_controller_s(killed_s: Sequence[float], events: Sequence[Event]) -> list[float]:
    """Return the seconds from each kill until the next controller started."""
    starts = sorted(event.time_s for event in events if event.kind == BEGAN)
    return [next(moment for moment in starts if moment > killed) - killed for killed in killed_s]


def differences(desired: DesiredState, status: EngineStatus) -> int:
    """Count the deployments that are superfluous, missing or of another size than desired."""
    target = {replicas.deployment: replicas.replicas for replicas in desired.deployments}
    running = {replicas.deployment: replicas.target_replicas for replicas in status.deployments}
    return sum(target.get(deployment) != running.get(deployment) for deployment in target.keys() | running.keys())


def kills(scene: Scene, count: int, seed: int, console: Console) -> PartResult:
    """Kill controllers, then replicas."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        figures, rows = runner.run(_controller_kills(scene, count, seed, console))
    more, more_rows = replica_kills(scene.folder / "replicas", count, seed, console)
    return [*figures, *more], [*rows, *more_rows]


async def _controller_kills(scene: Scene, count: int, seed: int, console: Console) -> PartResult:
    run_folder, records_file = scene.folder / "kills", scene.folder / "kills.sqlite"
    written = WrittenPlans(scene, _DWELL_S)
    engine = start_daemon(run_folder)
    seen, stop = _Observations(), asyncio.Event()
    controllers = _Controllers(scene, run_folder, records_file)
    try:
        await controllers.start()
        records = ControlStateStore.open_existing(records_file)
        first = {name: state.rung for name, state in written.in_force(records).ladders.items()}
        await _calm(engine, written, records)
        load = asyncio.create_task(_keep_sending(engine, scene, seen, stop))
        await _keep_killing(engine, written, controllers, records, seen, count, np.random.default_rng(seed))
        stop.set()
        await load
        await _calm(engine, written, records)
        await controllers.end(signal.SIGTERM)
        status = await engine.status()
        seen.brought = BroughtAbout.of(RunDirectory(run_folder.absolute()).log.read_text(encoding="utf-8"))
        last, events = written.in_force(records), records.events(count=100_000)
        records.close()
    finally:
        stop.set()
        with suppress(ProcessLookupError):
            await controllers.end(signal.SIGKILL)
        await engine.close()
        written.as_planned()
    desired, fingerprint = last.desired()
    seen.orphans += differences(desired, status)
    seen.same = fingerprint == status.state
    seen.away = sum(state.rung != state.chosen for state in last.ladders.values())
    return _kill_figures(first, seen, events, console)


async def _keep_sending(engine: LocalEngineClient, scene: Scene, seen: _Observations, stop: asyncio.Event) -> None:
    """Send one cycle after the other, without waiting for the answers of the last one."""
    cycle_s = sum(phase.duration_s for phase in _CYCLE)
    tasks: list[asyncio.Task[list[RequestOutcome]]] = []
    while not stop.is_set():
        arrivals = phased_arrivals(scene.rates_per_s, _CYCLE, len(tasks))
        requests = recorded_requests(arrivals, scene.items, len(tasks))
        tasks.append(asyncio.create_task(OpenLoop(engine, stragglers_s=60.0).send(arrivals, requests)))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), cycle_s)
    for answers in await asyncio.gather(*tasks):
        seen.answers += answers


async def _keep_killing(
    engine: LocalEngineClient,
    written: WrittenPlans,
    controllers: _Controllers,
    records: ControlStateStore,
    seen: _Observations,
    count: int,
    rng: np.random.Generator,
) -> None:
    """Kill the controller, start another one, check that it resumes, and repeat."""
    for when in itertools.islice(itertools.cycle((ANY, STEPPING, ROLLING)), count):
        if when == ANY:
            await asyncio.sleep(rng.uniform(0.0, _MAX_LIFETIME_S))
        elif when == STEPPING:
            await controllers.decided(STEP)
            await asyncio.sleep(rng.uniform(0.0, _AFTER_S[STEP]))
        else:
            await controllers.decided(EventKind.REPLAN, written.write_other)
            await asyncio.sleep(rng.uniform(0.0, _AFTER_S[EventKind.REPLAN]))
        await controllers.end(signal.SIGKILL)
        seen.killed_s.append(time.time())
        seen.when.append(when)
        await controllers.start()
        seen.orphans += await _left(engine, written, records)


async def _left(engine: LocalEngineClient, written: WrittenPlans, records: ControlStateStore) -> int:
    """Return the number of orphaned or missing deployments after a controller has had time to resume."""
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:  # some plans have equal deployments on every rung
        count = differences(written.in_force(records).desired()[0], await engine.status())
        if not count or time.monotonic() > deadline_s:
            return count
        await asyncio.sleep(_POLL_S)


async def _calm(engine: LocalEngineClient, written: WrittenPlans, records: ControlStateStore) -> None:
    """Wait until every query is on its plan and the engine runs it, or until the timeout."""
    deadline_s = time.monotonic() + _QUIET_S
    while time.monotonic() < deadline_s:
        plans = written.in_force(records)
        at_rest = all(state.rung == state.chosen for state in plans.ladders.values())
        if at_rest and (await engine.status()).state == plans.desired()[1]:
            return
        await asyncio.sleep(_POLL_S)


def _kill_figures(
    first: Mapping[str, int], seen: _Observations, events: Sequence[Event], console: Console
) -> PartResult:
    steps, replans = (sum(event.kind == kind for event in events) for kind in (STEP, EventKind.REPLAN))
    resumed = sum(event.kind == BEGAN and event.reason.startswith("resumed") for event in events)
    doubled, gaps_s = double_actions(events, first), without_controller_s(seen.killed_s, events)
    count, brought = len(seen.killed_s), seen.brought
    note = f"{count} times killed, {steps} steps, {replans} times other plans, {len(seen.answers)} requests"
    engine_note = (
        f"{brought.begun} changes as the engine counts them, of which {brought.begun - len(brought.states)} were "
        "broken off"
    )
    console.print(
        f"controller killed: {note}; {lost(seen.answers)} failed, {doubled} doubled, {brought.repeated} repeated, "
        f"{engine_note}",
        highlight=False,
    )
    figures = [
        Figure("killed controllers after which the next one went on", resumed / count, 1.0, "higher", "of kills", note),
        Figure("afterwards the engine runs what is kept", float(seen.same), 1.0, "higher", "(1: yes)"),
        Figure("queries that are not back on their plans when it is calm", float(seen.away), 0.0, "lower", "queries",
               f"of {len(first)}, as an uninterrupted controller leaves them"),
        Figure("orphan or missing deployments", float(seen.orphans), 0.0, "lower", "deployments",
               "after the next controller has resumed"),
        Figure("steps decided twice", float(doubled), 0.0, "lower", "steps"),
        Figure("changes brought about twice", float(brought.repeated), 0.0, "lower", "changes", engine_note),
        Figure("requests that failed while controllers were killed", float(lost(seen.answers)), 0.0, "lower",
               "requests"),
        Figure("longest time without a controller", max(gaps_s), None, "lower", "s",
               "the lease of a killed one lasts up to 5 s; then starting a process"),
    ]  # fmt: skip
    rows = [
        {"part": "controller kills", "number": number, "without_controller_s": gap_s, "when": when}
        for number, (gap_s, when) in enumerate(zip(gaps_s, seen.when, strict=True))
    ]
    return figures, rows
