"""A day of the controller on a simulated clock: bursts, a site that is lost for two hours, and data that change.

The clock stands still while plans are made and while what moved is measured again: what a day loses by that is not in
it. What it takes in truth, the benchmarks of a lost node and of drift measure.
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

from benchmarks.harness.results import Figure
from benchmarks.workloads.published.queries import MIXED, workloads
from circinus.control.drift.drift_monitor import DriftDependencies
from circinus.control.drift.reference_outputs import ReplayReferenceRunner
from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import ReplanDependencies
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
"""Rates are constant for so long."""
_LOST_S, _BACK_S = 10 * _HOUR_S, 12 * _HOUR_S
_DRIFT_S = 15 * _HOUR_S
_SLOWER = 1.6
"""Times as long as before takes the operator that has most to do, from `_DRIFT_S` on."""
_BURST_S = 60.0, 300.0
_STARTUP_S = 5.0
PARTS = "whole day", "bursts", "site lost", "drifted"
_KINDS = 24
"""Of queries of each data set."""
_ITEMS = 10_000
"""Requests ask for one of so many items, or of as many as were measured."""
_SPAN_S = 1_800.0
"""Goodput is told for spans of half an hour."""


@dataclass(frozen=True)
class DayOptions:
    """How long, and how much happens."""

    traces: Path
    queries: int = 10
    hours: float = 24.0
    bursts: int = 24
    """In 24 hours."""
    burst_times: float = 4.0
    standby_times: float = 4.0
    interval_s: float = 5.0
    """From one look of the controller to the next."""
    busier: float = 8.0
    """Times the rates of the matching benchmark."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Day:
    """What is asked, and what happens."""

    controlled: ManagedPlans
    profiles: Profiles
    requests: Mapping[str, Requests]
    until_s: float
    bursts: Sequence[tuple[str, float, float]]
    """(query, from, to) in seconds."""
    lost: str
    """The pool away from devices that has most to do."""
    drifts: tuple[str, str]
    """(pipeline, operator) that has most to do."""

    def happenings(self) -> list[ScheduledEvent]:
        """A site that is lost and comes back, and an operator that takes longer."""
        happenings = [
            ScheduledEvent(_LOST_S, lambda engine: engine.fail_nodes(self.lost)),
            ScheduledEvent(_BACK_S, lambda engine: engine.restore_nodes(self.lost)),
            ScheduledEvent(_DRIFT_S, lambda engine: engine.drift(self.slower())),
        ]
        return [one for one in happenings if one.time_s < self.until_s]

    def slower(self) -> Profiles:
        """What is true from `_DRIFT_S` on."""
        name, operator = self.drifts
        configurations = tuple(
            replace(one, operators={**one.operators, operator: _slower(one.operators[operator])})
            for one in self.profiles[name].configurations
        )
        return {**self.profiles, name: replace(self.profiles[name], configurations=configurations)}

    def engine(self) -> SimulatedEngine:
        """At midnight."""
        return SimulatedEngine(self.controlled, self.profiles, self.requests, startup_s=_STARTUP_S)


def _slower(found: OperatorProfile) -> OperatorProfile:
    return replace(found, service_s=found.service_s * _SLOWER)


def day(options: DayOptions, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """The same day with the controller, with ladders alone, and with plans that stay as they are.

    Raises:
        TracesAbsentError: see `read_arenas`.
    """
    made = _day(options)
    ways: dict[str, tuple[SimulatedEngine, float, list[Event]]] = {}
    for name in ("controlled", "ladders alone", "plans as they are"):
        engine, began_s = made.engine(), perf_counter()
        events = _run(name, engine, made, options)
        ways[name] = engine, perf_counter() - began_s, events
    rows = [_row(name, engine, wall_s, events, made) for name, (engine, wall_s, events) in ways.items()]
    console.print(_table(rows))
    return _figures(rows, options), rows


def _day(options: DayOptions) -> Day:
    workload = next(
        one for one in workloads(options.traces, options.seed, kinds=24, busier=options.busier) if one.name == MIXED
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
    for found in matching.deployments:
        if tiers[found.deployment.pool] != "device":
            busy[found.deployment.pool] += found.utilization * found.replicas
    operators: defaultdict[tuple[str, str], float] = defaultdict(float)
    for found in matching.deployments:
        operators[found.deployment.pipeline, found.deployment.operator] += found.utilization * found.replicas
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
    """At random, from three tenths of the planned rate at night to nine at noon, and in bursts many times that."""
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
        if name == "plans as they are":  # ladders of one rung each: nothing to step to
            still = tuple(replace(one, ladder=None) for one in controlled.matching.assignments)
            controlled = replace(controlled, matching=replace(controlled.matching, assignments=still))
        planner = drift = None
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
    kept: dict[str, list[tuple[float, float]]] = {
        "whole day": [],
        "bursts": [],
        "site lost": [],
        "drifted": [],
        "else": [],
    }
    in_burst = {query: [(b, e) for q, b, e in made.bursts if q == query] for query, _, _ in made.bursts}
    total = in_time = 0.0
    for query_name, query in made.controlled.queries.items():
        latency = query.slos.latency
        assert latency is not None, "all kinds have one"
        arrival_s, latency_s = engine.latency_s(query_name)
        good = latency_s <= latency.limit_s
        total, in_time = total + query.weight * len(good), in_time + query.weight * float(good.sum())
        bursts = in_burst.get(query_name, [])
        for begin_s in np.arange(0.0, made.until_s, _SPAN_S):
            span = (arrival_s >= begin_s) & (arrival_s < begin_s + _SPAN_S)
            if not span.any():
                continue
            held = query.weight * float(good[span].mean() >= latency.percentile / 100)
            where = "else"
            if begin_s + _SPAN_S > _LOST_S and begin_s < _BACK_S:
                where = "site lost"
            elif any(b < begin_s + _SPAN_S and begin_s < e for b, e in bursts):
                where = "bursts"
            elif begin_s >= _DRIFT_S:
                where = "drifted"
            for part in ("whole day", where):
                kept[part].append((query.weight, held))
    kinds = [event.kind for event in events]
    return {
        "part": "day",
        "way": name,
        "requests_in_time": in_time / total,
        "wall_s": wall_s,
        "requests": int(sum(len(one.arrival_s) for one in made.requests.values())),
        "steps": kinds.count("step"),
        "replans": kinds.count("replan"),
        "rollbacks": kinds.count("rollback"),
        "drifts": kinds.count("drift"),
        "noticed_after_s": [e.time_s - _DRIFT_S for e in events if e.kind == "drift"],
        **{
            f"goodput_{part.replace(' ', '_')}": sum(h for _, h in found) / sum(w for w, _ in found) if found else None
            for part, found in kept.items()
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
    controlled, _, still = rows
    what = (
        f"{options.hours:g} simulated hours, {options.queries} queries, {options.bursts} bursts, a site lost for two, "
        f"an operator that takes {_SLOWER:g} times as long from three in the afternoon on"
    )
    at_once = f"replicas start in {_STARTUP_S:g} s; planning and measuring again take no simulated time"
    still_kept = f"with plans as they are {100 * still['goodput_whole_day']:.1f} %"
    return [
        Figure("day: controlled, wall time", controlled["wall_s"], 60.0, "lower", "s", what),
        Figure(
            "day: goodput controlled",
            controlled["goodput_whole_day"],
            None,
            "higher",
            "of weight and time",
            f"objective kept in spans of half an hour; {still_kept}; {at_once}",
        ),
        Figure(
            "day: requests in time", controlled["requests_in_time"], None, "higher", "of requests by weight", at_once
        ),
    ]
