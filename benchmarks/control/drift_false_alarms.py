"""False alarms of drift monitors without drift, compared with the promised rate."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.api.plan_context import LoadedPlan
from circinus.control.drift.baselines import AccuracyBaseline, ServiceTimeBaseline, scaled_late_share
from circinus.control.drift.detector import ScaledObservation
from circinus.control.drift.drift_monitor import DriftDependencies
from circinus.control.drift.drift_tests import (
    AccuracyMonitor,
    DriftState,
    LatencySloMonitor,
    MonitorSample,
    ServiceTimeMonitor,
    Watch,
    reset_monitors,
    update_monitors,
)
from circinus.control.drift.reference_outputs import ReplayReferenceRunner
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import ReplanDependencies
from circinus.control.settings import ControlSettings, DriftSettings
from circinus.control.state_store import ControlStateStore, EventKind
from circinus.profiling import OperatorProfile
from circinus.serving import Mode, ServedBatch
from circinus.simulation.model import Requests
from circinus.specification import Allocation, Configuration, HardwareClass, KnobValues, MetricSpec
from circinus.testing.simulated_engine import SimulatedEngine
from circinus.testing.simulated_run import run_controlled

DAY_S = 86_400.0
_POLL_S = 90.0
_FAST_POLL_S = 5.0
_OFTEN_S = 1_000.0
"""Promised seconds per false alarm, in runs that are to have enough alarms to count."""
_DAYS_A_RUN = 5.0
"""Simulated days of a run, after which everything is profiled again."""
_METRIC = MetricSpec(name="right", uses="metric:right")
_UNSHARED = Allocation(1.0, 1, 0.7)
_RISK = 0.05
_SPREADS = (0.1, 0.2, 0.4, 0.6)
"""Standard deviations of the logarithms of service times."""
_ITEMS = (8, 16, 60, 150)
"""Number of profiled items per operator."""
_WANDER = (0.86, 1.16, 600.0)
"""Factors between which means alternate, and the seconds between changes."""
_LOAD, _INTERVAL_S, _STARTUP_S = 0.8, 2.0, 1.0

Values = Mapping[Watch, Callable[[float], ScaledObservation]]


@dataclass(frozen=True)
class QuietOptions:
    """Simulated durations and seed."""

    days: float = 100.0
    simulated_hours: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class QuietRun:
    """Simulation of monitors without a controller."""

    promised_every_s: float
    look_s: float
    days: float
    seed: int
    watches: int
    alarms: Sequence[str]
    """Monitors with a false alarm."""


def false_alarms(opened: LoadedPlan, options: QuietOptions, console: Console) -> PartResult:
    """Simulate monitors alone for days, and the controller with a simulated engine."""
    count = max(1, round(options.days / _DAYS_A_RUN))
    jobs = [(DAY_S, _POLL_S, options.days / count, options.seed + number) for number in range(count)]
    jobs += [(_OFTEN_S, _FAST_POLL_S, options.days / 800, options.seed + number) for number in range(8)]
    start_s = perf_counter()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(quiet_run, *zip(*jobs, strict=True)))
    console.print(f"quiet watches: {perf_counter() - start_s:.0f} s", highlight=False)
    simulated = simulated_quiet(opened, options)
    console.print(f"quiet controller: {simulated}", highlight=False)
    rows = [{"part": "quiet watches", **vars(run)} for run in runs]
    return quiet_figures(runs, simulated), [*rows, {"part": "quiet controller", **simulated}]


def quiet_run(promised_every_s: float, look_s: float, days: float, seed: int) -> QuietRun:
    """Simulate monitors whose means alternate close to the tolerance; alarms reset a monitor, as remeasuring would."""
    settings = DriftSettings(false_alarm_every_s=promised_every_s)
    values = quiet_values(np.random.default_rng(seed), settings)
    state, alarms = DriftState(), []
    for number in range(round(days * DAY_S / look_s)):
        now_s = number * look_s
        state, drifted = update_monitors(
            state, [MonitorSample(w, now_s, value(now_s)) for w, value in values.items()], now_s, settings
        )
        if drifted:
            alarmed = {drift.watch for drift in drifted}
            alarms += [str(watch) for watch in alarmed]
            state = reset_monitors(state, {watch: watch not in alarmed for watch in values})
    return QuietRun(promised_every_s, look_s, days, seed, len(values), alarms)


def quiet_values(rng: np.random.Generator, settings: DriftSettings) -> Values:
    """Return the observations of each monitor over time: service times, accuracies and late requests."""
    risk = settings.reference_risk / (2 * (len(_ITEMS) + 2))
    values: dict[Watch, Callable[[float], ScaledObservation]] = {}
    for number, (items, spread) in enumerate(zip(_ITEMS, _SPREADS, strict=True)):
        prefix = Configuration.of({"read": KnobValues.of({"size": number})})
        values[ServiceTimeMonitor("codes", "read", prefix, "local")] = _service(rng, items, spread, settings, risk)
    for query, items in (("few", 30), ("many", 200)):
        values[AccuracyMonitor(query, "codes")] = _scores(rng, items, settings, risk)
        values[LatencySloMonitor(query)] = lambda now_s: scaled_late_share(rng.binomial(20, 0.05) / 20, 95.0)
    return values


def _service(
    rng: np.random.Generator, items: int, spread: float, settings: DriftSettings, risk: float
) -> Callable[[float], ScaledObservation]:
    service_s = 0.02 * np.exp(spread * rng.standard_normal(items))
    ratios = {(1.0, 1): 1.0}
    profile = OperatorProfile("read", Configuration.of({}), service_s, service_s, 1.0, 1.0, ratios, frozenset(ratios))
    reference = ServiceTimeBaseline.of(
        profile, HardwareClass(name="local"), tolerance=settings.service_tolerance, risk=risk
    )
    assert reference is not None, "too few items for a baseline"
    faster, slower, stays_s = _WANDER

    def value(now_s: float) -> ScaledObservation:
        factor = slower if now_s // stays_s % 2 else faster
        seconds = 0.02 * factor * float(np.exp(spread * rng.standard_normal()))
        scaled = reference.placed(ServedBatch(seconds, 1, "", 9), _UNSHARED)
        assert scaled is not None
        return scaled

    return value


def _scores(
    rng: np.random.Generator, items: int, settings: DriftSettings, risk: float
) -> Callable[[float], ScaledObservation]:
    profiled = rng.binomial(4, 0.9, items) / 4
    reference = AccuracyBaseline.of_scores(profiled, _METRIC, tolerance=settings.accuracy_tolerance, risk=risk)
    return lambda now_s: reference.placed(rng.binomial(4, 0.9 + 0.015 * (1 if now_s // 600 % 2 else -1)) / 4)


def simulated_quiet(opened: LoadedPlan, options: QuietOptions) -> dict[str, Any]:
    """Run the controller on a simulated engine without drift."""
    matching, until_s = opened.plan_set.matching, options.simulated_hours * 3600.0
    controlled = ManagedPlans(
        matching, opened.specification, matching.deployments, Mode.REAL, None, opened.plan_set.code_versions
    )
    profiles, rng = opened.profiles(), np.random.default_rng(options.seed)
    requests = {}
    for name, query in controlled.queries.items():
        arrival_s = np.sort(rng.uniform(0.0, until_s, rng.poisson(_LOAD * query.rate_per_s * until_s)))
        requests[name] = Requests(arrival_s, rng.integers(10_000, size=len(arrival_s)))
    tools = DriftDependencies(
        answers=lambda specification: ReplayReferenceRunner(specification, opened.store),
        agreements=lambda specification, pairs: {},
    )
    start_s = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        records = ControlStateStore(Path(folder) / "control.sqlite")
        try:
            events = run_controlled(
                SimulatedEngine(controlled, profiles, requests, startup_s=_STARTUP_S),
                controlled,
                records,
                until_s=until_s,
                settings=ControlSettings(interval_s=_INTERVAL_S),
                planner=ReplanDependencies(lambda plans: profiles),
                drift=tools,
            )
        finally:
            records.close()
    return {
        "hours": options.simulated_hours,
        "requests": sum(len(sent.arrival_s) for sent in requests.values()),
        "alarms": [event.reason for event in events if event.kind == EventKind.DRIFT],
        "replans": sum(event.kind == EventKind.REPLAN for event in events),
        "wall_s": perf_counter() - start_s,
    }


def quiet_figures(results: Sequence[QuietRun], simulated: Mapping[str, Any]) -> list[Figure]:
    """Return the numbers of alarms over the promised ones."""
    figures = []
    for every_s, aim, unit in ((DAY_S, 1.0, "a day"), (_OFTEN_S, 1.0, "in 1,000 s")):
        runs = [run for run in results if run.promised_every_s == every_s]
        spans = sum(run.days for run in runs) * DAY_S / every_s
        alarms = sum(len(run.alarms) for run in runs)
        figures.append(
            Figure(f"false alarms where one {unit} is promised", alarms / spans, aim, "lower", unit,
                   f"{alarms} in {sum(run.days for run in runs):.3g} simulated days of {runs[0].watches} watches, "
                   f"polled every {runs[0].look_s:g} s")
        )  # fmt: skip
    hours, alarms = simulated["hours"], len(simulated["alarms"])
    figures.append(
        Figure("false alarms of the controller, simulated", alarms / hours * 24, 1.0, "lower", "a day",
               f"{alarms} in {hours:g} h with {simulated['requests']} requests")
    )  # fmt: skip
    return figures
