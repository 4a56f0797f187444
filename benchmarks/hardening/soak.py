"""Hours of work: memory, descriptors, threads, records and write-ahead log under load, steps, edits and new plans."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.hardening.http_load import HttpClients
from benchmarks.hardening.process_watch import FaultLog, ProcessSample, is_alive
from benchmarks.hardening.starter import ENGINE, PLAN, QUERY, SITE, STATE, StarterApplication, await_event, prepared
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore
from circinus.matching import plan_all_queries
from circinus.serving import Mode
from circinus.serving.local.run_dir import RunDirectory
from circinus.simulation.model import Requests
from circinus.statistics.student_t import student_t_quantile
from circinus.testing.random_instances import random_specification
from circinus.testing.simulated_engine import SimulatedEngine
from circinus.testing.simulated_run import ScheduledEvent, run_controlled

_RATE_PER_S, _BURST = 4.0, 5.0
"""Rate, below the planned one, and its multiple in bursts, of which the engine refuses a part."""
_CYCLE_S, _BURST_S = 15.0, 3.0
_PHASES = (_BURST * _RATE_PER_S, _BURST_S), (_RATE_PER_S, _CYCLE_S - _BURST_S)
_EDIT_S = 45.0
"""Time between two edits of the specification, each of which makes the controller plan again."""
_NO_FAILURES = (200, 429, 503)
"""Statuses of answers, and of refusals of rates beyond the planned one."""
_SAMPLE_S = 1.0
_SETTLING = 1 / 3
"""Share of the time after which growth is judged: modules, caches and pools fill at the beginning."""
_BLOCKS = 12
"""Number of blocks whose means are fitted, as neighbouring samples are not independent."""
_LEAST_SAMPLES = 240
"""Number of samples, one a second, below which no growth in real time is judged."""
_WAL_MIB = 8.0
_CLIENTS = 50
_INTERVAL_S = 5.0
_TIMES = 8.0
_HOUR_S = 3600.0


@dataclass(frozen=True)
class RealRun:
    """Run in real time."""

    rows: list[dict[str, Any]]
    """Samples."""
    statuses: Counter[int]
    """Status -> number of requests."""
    ended: list[str]
    """Processes that ended on their own, and last lines of tracebacks."""
    is_interrupted: bool
    happened: list[dict[str, Any]]
    """Failed requests and new plans, by their time."""


def soak(seconds: float, hours: float, seed: int, console: Console) -> PartResult:
    """Run a controller with a real engine for some time, and one with a simulated engine for hours.

    Args:
        seconds: real time.
        hours: simulated time.
        seed: of the load.
        console: prints the table.

    Raises:
        KeyboardInterrupt: it was interrupted; the table of the time until then is printed.
    """
    with tempfile.TemporaryDirectory(prefix="circinus-soak-") as name:
        simulated = _simulated(Path(name) / "simulated.sqlite", hours, seed)
        application = prepared().copy_without_engine(Path(name) / "application")
        run = _real(application, seconds, seed)
    run.happened.sort(key=lambda row: row["hours"])
    figures = _figures(run, console)
    if run.is_interrupted:
        raise KeyboardInterrupt
    last = simulated[-1]
    figures += [
        Figure("soak: write-ahead log in simulated time, most", max(row["wal_mib"] for row in simulated), _WAL_MIB,
               "lower", "MiB", f"{hours:g} simulated hours, {last['events']} events"),
        growth_figure("memory in simulated time", "MiB", 10.0, simulated, "rss_mib"),
    ]  # fmt: skip
    return figures, [*run.rows[:: round(60.0 / _SAMPLE_S)], *run.happened, *simulated]  # a row a minute


def _real(application: StarterApplication, seconds: float, seed: int) -> RealRun:
    with application.start("serve", PLAN, "--mode", "real", "--json") as controller:
        try:
            await_event(controller, "applied")
            return asyncio.run(_loaded(application, controller, seconds, seed))
        finally:
            controller.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                controller.communicate(timeout=60.0)
            controller.kill()
            application.run("destroy")


async def _loaded(
    application: StarterApplication, controller: subprocess.Popen[str], seconds: float, seed: int
) -> RealRun:
    directory = RunDirectory((application.folder / ENGINE).absolute())
    address, engine = directory.http_address(), directory.process()
    assert address is not None, "the engine listens"
    assert engine is not None, "the engine runs"
    happened: list[dict[str, Any]] = []
    reading = asyncio.create_task(asyncio.to_thread(_read_plans, controller, time.time(), happened))
    clients = HttpClients(address, f"/{SITE}/{QUERY}", _CLIENTS, b'"clean this"')
    start_s, statuses, number = time.monotonic(), Counter[int](), 0
    rows: list[dict[str, Any]] = []
    is_interrupted = False
    try:
        async with asyncio.TaskGroup() as tasks:
            besides = [
                tasks.create_task(_sample(application, controller.pid, directory, rows, start_s)),
                tasks.create_task(_edit(application.folder / "queries.yaml")),
            ]
            while time.monotonic() < start_s + seconds and controller.poll() is None:
                number += 1
                rate_per_s, phase_s = _PHASES[number % len(_PHASES)]
                left_s = max(0.0, min(phase_s, start_s + seconds - time.monotonic()))
                phase_hours = (time.monotonic() - start_s) / _HOUR_S
                outcomes = await clients.load(rate_per_s, left_s, 2.0, seed * 1000 + number)
                statuses.update(outcome.status for outcome in outcomes)
                happened += [
                    _happened(phase_hours + outcome.scheduled_s / _HOUR_S, f"{outcome.status}: {outcome.text[:500]}")
                    for outcome in outcomes
                    if outcome.status not in _NO_FAILURES
                ]
            for task in besides:
                task.cancel()
    except asyncio.CancelledError:
        is_interrupted = True
    await clients.close()
    ended = _ends(controller, directory, engine)
    controller.send_signal(signal.SIGINT)
    await reading
    ended += [line for log in (application.errors, directory.log) for line in FaultLog(log).tracebacks()]
    return RealRun(rows, statuses, ended, is_interrupted, happened)


def _ends(controller: subprocess.Popen[str], directory: RunDirectory, engine: int) -> list[str]:
    """Return processes that ended on their own; a killed engine is named in its folder until another one runs."""
    ends = [] if controller.poll() is None else [f"the controller with code {controller.returncode}"]
    return ends if directory.process() == engine and is_alive(engine) else [*ends, "the engine"]


def _read_plans(controller: subprocess.Popen[str], start_s: float, happened: list[dict[str, Any]]) -> None:
    """Read the controller's events until it ends, and add those of new plans."""
    assert controller.stdout is not None, "its output is a pipe"
    for line in controller.stdout:
        event = json.loads(line)["data"] if line.startswith('{"') else {}
        if event.get("kind") == "replan":
            happened.append(_happened((event["time_s"] - start_s) / _HOUR_S, event["reason"]))


def _happened(hours: float, what: str) -> dict[str, Any]:
    return {"part": "soak: plans and failures", "hours": hours, "what": what}


async def _edit(file: Path) -> None:
    texts = [file.read_text(encoding="utf-8")]
    texts.append(texts[0].replace("rate: 10/s", "rate: 11/s"))
    assert texts[0] != texts[1], "the specification has this rate"
    while True:
        await asyncio.sleep(_EDIT_S)
        texts.reverse()
        unfinished = file.with_suffix(".new")
        unfinished.write_text(texts[0], encoding="utf-8")
        os.replace(unfinished, file)


async def _sample(
    application: StarterApplication,
    controller: int,
    directory: RunDirectory,
    rows: list[dict[str, Any]],
    start_s: float,
) -> None:
    while True:
        processes = {"controller": controller, "engine": directory.process() or 0}
        samples = {name: ProcessSample.of(process) for name, process in processes.items()}
        rows.append(
            {
                "part": "soak",
                "hours": (time.monotonic() - start_s) / _HOUR_S,
                **{f"{name}_rss_mib": sample.rss_bytes / 2**20 for name, sample in samples.items()},
                **{f"{name}_descriptors": sample.descriptors for name, sample in samples.items()},
                **{f"{name}_threads": sample.threads for name, sample in samples.items()},
                **_store_sizes(application.folder / STATE),
                "log_mib": directory.log.stat().st_size / 2**20,
            }
        )
        await asyncio.sleep(_SAMPLE_S)


def _store_sizes(path: Path) -> dict[str, float]:
    wal = path.with_name(f"{path.name}-wal")
    return {"state_mib": path.stat().st_size / 2**20, "wal_mib": wal.stat().st_size / 2**20 if wal.exists() else 0.0}


def _simulated(path: Path, hours: float, seed: int) -> list[dict[str, Any]]:
    """Run a controller for simulated hours with bursts, and sample once an hour."""
    specification, profiles = random_specification(seed + 5, queries=4, cpus=32.0)
    matching, _ = plan_all_queries(specification, profiles)
    ready = plan_standby(matching, specification.required_infrastructure, _TIMES)
    plans = ManagedPlans(matching, specification, ready.deployments, Mode.REPLAY, Path("s"), {}, peak=_TIMES)
    rng, until_s, rows = np.random.default_rng(seed), hours * _HOUR_S, []
    requests = {}
    for name, query in plans.queries.items():
        edges_s = np.arange(0.0, until_s, 60.0)
        factors = np.where(rng.random(len(edges_s)) < 0.05, _TIMES, 0.7)
        counts = rng.poisson(factors * query.rate_per_s * 60.0)
        arrival_s = np.sort(np.repeat(edges_s, counts) + rng.uniform(0.0, 60.0, int(counts.sum())))
        requests[name] = Requests(
            arrival_s[arrival_s < until_s], rng.integers(20, size=int((arrival_s < until_s).sum()))
        )
    store = ControlStateStore(path)

    def sample(engine: SimulatedEngine) -> None:
        gc.collect()
        process = ProcessSample.of(os.getpid())
        sizes = _store_sizes(path)
        row = {"hours": engine.now_s / _HOUR_S, "rss_mib": process.rss_bytes / 2**20}
        row |= {"descriptors": process.descriptors, "events": store.newest(), **sizes}
        rows.append({"part": "soak in simulated time", **row})

    step_s = until_s / 24
    happenings = [ScheduledEvent(step_s * number, sample) for number in range(1, 25)]
    try:
        run_controlled(
            SimulatedEngine(plans, profiles, requests, startup_s=5.0), plans, store, until_s=until_s + 1.0,
            settings=replace(ControlSettings(), interval_s=_INTERVAL_S), happenings=happenings,
        )  # fmt: skip
    finally:
        store.close()
    return rows


def growth_figure(
    name: str, unit: str, aim: float, rows: Sequence[Mapping[str, Any]], column: str, least: int = 0
) -> Figure:
    """Judge a growth per hour by its 95 % interval, of the means of blocks after the settling time.

    It meets its aim if the whole interval does, and misses it if none of the interval does; else it is not judged.

    Args:
        name: of what grows.
        unit: of the values.
        aim: maximum growth per hour.
        rows: samples with `hours`.
        column: of the values.
        least: number of samples below which nothing is judged.
    """
    settled = [row for row in rows if row["hours"] >= _SETTLING * rows[-1]["hours"]]
    name, unit_per_h = f"soak: {name}, growth", f"{unit}/h"
    if len(settled) < max(least, _BLOCKS):
        note = f"not judged: {len(settled)} samples of {max(least, _BLOCKS)}"
        return Figure(name, math.nan, None, "lower", unit_per_h, note)
    blocks = np.array_split(np.arange(len(settled)), _BLOCKS)
    hours, values = (
        np.array([np.mean([settled[index][key] for index in block]) for block in blocks]) for key in ("hours", column)
    )
    centred = hours - hours.mean()
    slope = float(centred @ values / (centred @ centred))
    residuals = values - values.mean() - slope * centred
    error = math.sqrt(float(residuals @ residuals) / (_BLOCKS - 2) / float(centred @ centred))
    margin = student_t_quantile(0.025, _BLOCKS - 2) * error
    low, high = slope - margin, slope + margin
    note = f"95 % interval {low:.3g} to {high:.3g} in {rows[-1]['hours']:.3g} h"
    if low <= aim < high:
        return Figure(name, math.nan, None, "lower", unit_per_h, f"not judged, aim {aim:g}: {note}")
    return Figure(name, high if high <= aim else low, aim, "lower", unit_per_h, note)


def _figures(run: RealRun, console: Console) -> list[Figure]:
    rows, statuses = run.rows, run.statuses
    if not rows:
        raise RuntimeError(f"nothing was sampled; ended: {run.ended}")
    judged = (("rss_mib", "MiB", 10.0), ("descriptors", "descriptors", 1.0), ("threads", "threads", 1.0))
    columns = [(process, *each) for each in judged for process in ("controller", "engine")]
    figures = [
        growth_figure(f"{unit} of the {process}", unit, aim, rows, f"{process}_{column}", _LEAST_SAMPLES)
        for process, column, unit, aim in columns
    ]
    table = Table("process", "what", "first", "last", "growth per hour", title="soak")
    for (process, column, *_), figure in zip(columns, figures, strict=True):
        name = f"{process}_{column}"
        table.add_row(process, column, f"{rows[0][name]:.0f}", f"{rows[-1][name]:.0f}", figure.note)
    console.print(table)
    note = f"{rows[-1]['hours'] * 60:.0f} minutes, a burst every {_CYCLE_S:g} s, an edit every {_EDIT_S:g} s"
    return [
        *figures,
        Figure("soak: write-ahead log, most", max(row["wal_mib"] for row in rows), _WAL_MIB, "lower", "MiB", note),
        Figure("soak: log of the engine", rows[-1]["log_mib"], None, "lower", "MiB", note),
        Figure(
            "soak: ends of processes on their own, and tracebacks",
            float(len(run.ended)),
            0.0,
            "lower",
            "",
            ", ".join(run.ended),
        ),
        Figure(
            "soak: requests that failed",
            float(statuses.total() - sum(statuses[status] for status in _NO_FAILURES)),
            0.0,
            "lower",
            "requests",
            f"statuses {dict(sorted(statuses.items()))}",
        ),
    ]
