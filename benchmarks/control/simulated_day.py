"""Day of the controller on a simulated clock: bursts, a site that is lost for two hours, and a slower operator.

The clock stands still while plans are made and profiles remeasured; the benchmarks of lost nodes and of drift measure
that time.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.published.queries import MIXED, workloads
from circinus.control.drift.drift_monitor import DriftDependencies
from circinus.control.drift.reference_outputs import ReplayReferenceRunner
from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import NO_REPLANNING, ReplanDependencies
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore, Event
from circinus.matching import plan_all_queries
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.serving import Mode
from circinus.simulation.model import Requests
from circinus.specification import Query
from circinus.specification.formatting import format_duration
from circinus.testing.simulated_engine import SimulatedEngine
from circinus.testing.simulated_run import ScheduledEvent, run_controlled

Profiles = Mapping[str, PipelineProfile]

DAY_S = 86_400.0
_HOUR_S = 3_600.0
_SLOT_S = 10.0
"""Seconds of constant rates."""
_LOST_S, _BACK_S = 10 * _HOUR_S, 12 * _HOUR_S
_DRIFT_S = 15 * _HOUR_S
_SLOWER = 1.6
"""Factor by which the busiest operator is slower from `_DRIFT_S` on."""
_BURST_S = 60.0, 300.0
_STARTUP_S = 5.0
PARTS = "whole day", "bursts", "site lost", "drifted"
_KINDS = 24
"""Kinds of queries of each data set."""
_ITEMS = 10_000
"""Number of distinct items of requests."""
_SPAN_S = 1_800.0
"""Span of a goodput value: half an hour."""


@dataclass(frozen=True)
class DayOptions:
    """Durations, load and events of a day."""

    traces: Path
    queries: int = 10
    hours: float = 24.0
    bursts: int = 24
    """Number of bursts in 24 hours."""
    burst_times: float = 4.0
    standby_times: float = 4.0
    interval_s: float = 5.0
    """Polling interval of the controller."""
    busier: float = 8.0
    """Factor of the rates of the matching benchmark."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Day:
    """Plans, requests and events of a day."""

    controlled: ManagedPlans
    profiles: Profiles
    requests: Mapping[str, Requests]
    until_s: float
    bursts: Sequence[tuple[str, float, float]]
    """(query, start, end) in seconds."""
    lost: str
    """Busiest pool other than devices."""
    drifts: tuple[str, str]
    """Busiest (pipeline, operator)."""

    def happenings(self) -> list[ScheduledEvent]:
        """Return the scheduled events: loss and return of a site, and a slower operator."""
        happenings = [
            ScheduledEvent(_LOST_S, lambda engine: engine.fail_nodes(self.lost)),
            ScheduledEvent(_BACK_S, lambda engine: engine.restore_nodes(self.lost)),
            ScheduledEvent(_DRIFT_S, lambda engine: engine.drift(self.slower())),
        ]
        return [event for event in happenings if event.time_s < self.until_s]

    def slower(self) -> Profiles:
        """Return the profiles from `_DRIFT_S` on."""
        name, operator = self.drifts
        configurations = tuple(
            replace(c, operators={**c.operators, operator: _slower(c.operators[operator])})
            for c in self.profiles[name].configurations
        )
        return {**self.profiles, name: replace(self.profiles[name], configurations=configurations)}

    def engine(self) -> SimulatedEngine:
        """Return a simulated engine at midnight."""
        return SimulatedEngine(self.controlled, self.profiles, self.requests, startup_s=_STARTUP_S)


def _slower(profile: OperatorProfile) -> OperatorProfile:
    return replace(profile, service_s=profile.service_s * _SLOWER)


def day(options: DayOptions, console: Console) -> PartResult:
    """Simulate the day with the controller, with ladders alone, and with fixed plans.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    made = _day(options)
    ways: dict[str, tuple[SimulatedEngine, float, list[Event]]] = {}
    for name in ("controlled", "ladders alone", "plans as they are"):
        engine, start_s = made.engine(), perf_counter()
        events = _run(name, engine, made, options)
        ways[name] = engine, perf_counter() - start_s, events
    rows = [_row(name, engine, wall_s, events, made) for name, (engine, wall_s, events) in ways.items()]
    console.print(_table(rows))
    return _figures(rows, options), rows


def _day(options: DayOptions) -> Day:
    workload = next(
        w for w in workloads(options.traces, options.seed, kinds=_KINDS, busier=options.busier) if w.name == MIXED
    )
    specification, _ = workload.queries(options.queries, options.seed)
    matching, _ = plan_all_queries(specification, workload.profiles)
    ready = plan_standby(matching, workload.infrastructure, options.standby_times)
    controlled = ManagedPlans(
        matching, specification, ready.deployments, Mode.REPLAY, Path(), {}, peak=options.standby_times
    )
    until_s, rng = options.hours * _HOUR_S, np.random.default_rng(options.seed)
    names = list(controlled.queries)
    begin_s = np.sort(rng.uniform(0.02, 0.98, max(1, round(options.bursts * options.hours / 24)))) * until_s
    bursts = [
        (names[int(rng.integers(len(names)))], float(begin), float(begin + rng.uniform(*_BURST_S))) for begin in begin_s
    ]
    requests = {
        name: _requests(query, until_s, [b for b in bursts if b[0] == name], options.burst_times, rng)
        for name, query in controlled.queries.items()
    }
    tiers = {pool.name: pool.tier for pool in workload.infrastructure.pools}
    busy: defaultdict[str, float] = defaultdict(float)
    operators: defaultdict[tuple[str, str], float] = defaultdict(float)
    for sized in matching.deployments:
        deployment, busy_replicas = sized.deployment, sized.utilization * sized.replicas
        operators[deployment.pipeline, deployment.operator] += busy_replicas
        if tiers[deployment.pool] != "device":
            busy[deployment.pool] += busy_replicas
    return Day(
        controlled,
        workload.profiles,
        requests,
        until_s,
        bursts,
        max(busy, key=lambda pool: busy[pool]),
        max(operators, key=lambda operator: operators[operator]),
    )


def _requests(
    query: Query, until_s: float, bursts: Sequence[tuple[str, float, float]], times: float, rng: np.random.Generator
) -> Requests:
    """Draw requests at 0.3 (night) to 0.9 (noon) of the planned rate, and at `times` the planned rate in bursts."""
    edges_s = np.arange(0.0, until_s + _SLOT_S, _SLOT_S)
    rate_per_s = query.rate_per_s * (0.6 - 0.3 * np.cos(2 * np.pi * edges_s[:-1] / DAY_S))
    for _, begin_s, end_s in bursts:
        rate_per_s[(edges_s[:-1] >= begin_s) & (edges_s[:-1] < end_s)] = times * query.rate_per_s
    counts = rng.poisson(rate_per_s * _SLOT_S)
    arrival_s = np.sort(np.repeat(edges_s[:-1], counts) + rng.uniform(0.0, _SLOT_S, int(counts.sum())))
    return Requests(arrival_s, rng.integers(_ITEMS, size=len(arrival_s)))


def _run(name: str, engine: SimulatedEngine, made: Day, options: DayOptions) -> list[Event]:
    settings = ControlSettings(interval_s=options.interval_s)
    with tempfile.TemporaryDirectory() as folder:
        records = ControlStateStore(Path(folder) / "control.sqlite")
        controlled = made.controlled
        if name == "plans as they are":  # ladders of one rung each
            fixed = tuple(replace(a, ladder=None) for a in controlled.matching.assignments)
            controlled = replace(controlled, matching=replace(controlled.matching, assignments=fixed))
        planner, drift = NO_REPLANNING, None
        if name == "controlled":
            planner = ReplanDependencies(lambda plans: made.profiles)
            drift = DriftDependencies(
                lambda specification: ReplayReferenceRunner(specification, Path()), lambda spec, pairs: {}
            )
        try:
            return run_controlled(
                engine,
                controlled,
                records,
                until_s=made.until_s,
                settings=settings,
                happenings=made.happenings(),
                planner=planner,
                drift=drift,
            )
        finally:
            records.close()


def _row(name: str, engine: SimulatedEngine, wall_s: float, events: Sequence[Event], made: Day) -> dict[str, Any]:
    spans: dict[str, list[tuple[float, float]]] = {part: [] for part in (*PARTS, "else")}
    in_burst = {query: [(b, e) for q, b, e in made.bursts if q == query] for query, _, _ in made.bursts}
    total = in_time = 0.0
    for query_name, query in made.controlled.queries.items():
        latency = query.slos.latency
        assert latency is not None, "every kind has a latency SLO"
        arrival_s, latency_s = engine.latency_s(query_name)
        good = latency_s <= latency.limit_s
        total, in_time = total + query.weight * len(good), in_time + query.weight * float(good.sum())
        bursts = in_burst.get(query_name, [])
        for begin_s in np.arange(0.0, made.until_s, _SPAN_S):
            span = (arrival_s >= begin_s) & (arrival_s < begin_s + _SPAN_S)
            if not span.any():
                continue
            met = query.weight * float(good[span].mean() >= latency.percentile / 100)
            where = "else"
            if begin_s + _SPAN_S > _LOST_S and begin_s < _BACK_S:
                where = "site lost"
            elif any(b < begin_s + _SPAN_S and begin_s < e for b, e in bursts):
                where = "bursts"
            elif begin_s >= _DRIFT_S:
                where = "drifted"
            for part in ("whole day", where):
                spans[part].append((query.weight, met))
    kinds: list[str] = [event.kind for event in events]
    return {
        "part": "day",
        "way": name,
        "requests_in_time": in_time / total,
        "wall_s": wall_s,
        "requests": int(sum(len(sent.arrival_s) for sent in made.requests.values())),
        "steps": kinds.count("step"),
        "replans": sum(event.kind == "replan" and event.details.get("why") != "displaced" for event in events),
        "rollbacks": kinds.count("rollback"),
        "drifts": kinds.count("drift"),
        "noticed_after_s": [e.time_s - _DRIFT_S for e in events if e.kind == "drift"],
        **{
            f"goodput_{part.replace(' ', '_')}": sum(m for _, m in listed) / sum(w for w, _ in listed)
            if listed
            else None
            for part, listed in spans.items()
        },
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("way", "requests in time", "goodput", "in bursts", "site lost", "drifted", "steps", "replans", "took")
    for row in rows:
        shares = [row["requests_in_time"], *(row[f"goodput_{p.replace(' ', '_')}"] for p in PARTS)]
        words = ["" if share is None else f"{100 * share:.2f} %" for share in shares]
        table.add_row(row["way"], *words, str(row["steps"]), str(row["replans"]), format_duration(row["wall_s"]))
    return table


def _figures(rows: Sequence[Mapping[str, Any]], options: DayOptions) -> list[Figure]:
    controlled, _, fixed = rows
    what = (
        f"{options.hours:g} simulated hours, {options.queries} queries, {options.bursts} bursts, a site lost for two, "
        f"an operator that takes {_SLOWER:g} times as long from three in the afternoon on"
    )
    at_once = f"replicas start in {_STARTUP_S:g} s; planning and measuring again take no simulated time"
    fixed_note = f"with plans as they are {100 * fixed['goodput_whole_day']:.1f} %"
    return [
        Figure("day: controlled, wall time", controlled["wall_s"], 60.0, "lower", "s", what),
        Figure("day: goodput controlled", controlled["goodput_whole_day"], None, "higher", "of weight and time",
               f"SLO kept in spans of half an hour; {fixed_note}; {at_once}"),
        Figure("day: requests in time", controlled["requests_in_time"], None, "higher", "of requests by weight",
               at_once),
    ]  # fmt: skip
