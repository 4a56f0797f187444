"""Simulation of plans."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from circinus.arrays import BoolArray, IntArray
from circinus.errors import PlanningError
from circinus.queueing.event_arrays import offsets
from circinus.queueing.fcfs import Station
from circinus.simulation.engine import QueryRun, Simulation, StationRun
from circinus.simulation.model_builder import PlannedQuery, SimulationModel, build_model
from circinus.simulation.report import QueryOutcome, SimulationReport, StageOutcome, StationOutcome, percentile_interval
from circinus.specification import Deployment, Network

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
MAX_EXECUTIONS = 20_000_000
"""Maximum number of executions, at some 200 bytes each: these take 4 GB, and minutes where queues are long."""
_DEFAULT_DURATION_S, _DEFAULT_EXECUTIONS = 3600.0, 3_000_000
"""Simulated time by default, and the number of executions that shortens it."""


@dataclass(frozen=True)
class Progress:
    """Progress of a simulation, in simulated seconds."""

    done_s: float
    total_s: float


def simulate(
    planned: Sequence[PlannedQuery],
    replicas: Mapping[Deployment, int],
    network: Network,
    *,
    duration_s: float | None = None,
    warm_up_s: float | None = 0.0,
    load_factor: float = 1.0,
    seed: int = 0,
    unserved_weight: float = 0.0,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> SimulationReport:
    """Simulate the requests of all planned queries that arrive within `warm_up_s + duration_s`, until they end.

    Args:
        planned: queries with their plans, at least one.
        replicas: number of replicas of every deployment of the plans.
        network: network of the infrastructure.
        duration_s: simulated duration of arrivals; None: one hour, or less at rates at which that would take long.
        warm_up_s: warm-up time before it, whose requests are excluded from the outcomes of queries. None: a tenth of
            the duration.
        load_factor: factor of the queries' rates.
        seed: random seed of arrivals and items.
        unserved_weight: weight of queries without a plan, for the total weight.
        on_progress: progress callback, called after each window of simulated time.
        clock: clock in seconds.

    Raises:
        PlanningError: the plans cannot be simulated, or there would be too many executions.
    """
    _require_planned(planned)
    started_s = clock()
    loaded = [replace(query, arrivals=query.arrivals.scaled(load_factor)) for query in planned]
    model = build_model(loaded, replicas, network)
    executions_per_s = sum(
        query.arrivals.rate_per_s * visits for query, visits in zip(loaded, model.visits_per_request, strict=True)
    )
    is_shortened = duration_s is None and executions_per_s * _DEFAULT_DURATION_S > _DEFAULT_EXECUTIONS
    if duration_s is None:
        duration_s = _DEFAULT_EXECUTIONS / executions_per_s if is_shortened else _DEFAULT_DURATION_S
    warm_up_s = duration_s / 10 if warm_up_s is None else warm_up_s
    total_s = warm_up_s + duration_s
    _check_size(total_s, executions_per_s)
    simulation = Simulation(model.stations, model.queries, duration_s=total_s, seed=seed, warm_up_s=warm_up_s)
    simulation.run(None if on_progress is None else lambda done_s: on_progress(Progress(done_s, total_s)))
    queries = tuple(
        _outcome(query, simulation.merged_run(parts), _stages(simulation, model, parts), warm_up_s, duration_s)
        for query, parts in zip(planned, model.parts, strict=True)
    )
    stations = _stations(model, simulation)
    return SimulationReport(
        seed=seed,
        load_factor=load_factor,
        duration_s=duration_s,
        warm_up_s=warm_up_s,
        queries=queries,
        deployments=tuple(stations[station] for station in model.deployments.values()),
        links=tuple(stations[station] for station in model.links.values()),
        goodput=sum(query.weight for query in queries if query.satisfied),
        total_weight=sum(query.weight for query in queries) + unserved_weight,
        is_shortened=is_shortened,
        executions=sum(sums.requests for sums in simulation.station_stats),
        computed_s=clock() - started_s,
    )


def _require_planned(planned: Sequence[PlannedQuery]) -> None:
    if not planned:
        raise PlanningError(
            "no query has a plan to simulate",
            code="plan.no_served_query",
            hint="Run `circinus explain` to see why each query was rejected.",
        )


def _check_size(total_s: float, executions_per_s: float) -> None:
    if total_s * executions_per_s > MAX_EXECUTIONS:
        raise PlanningError(
            f"the simulation has {total_s * executions_per_s:.3g} executions of operators and links, but at most "
            f"{MAX_EXECUTIONS:.3g} are possible",
            code="simulation.too_large",
            hint=f"Simulate at most {_rounded_down(MAX_EXECUTIONS / executions_per_s)} s with the warm-up, "
            "or a lower load.",
        )


def _rounded_down(seconds: float) -> str:
    """Return seconds with two digits, rounded down."""
    unit = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return f"{math.floor(seconds / unit) * unit:g}"


def _outcome(
    planned: PlannedQuery, run: QueryRun, stages: tuple[StageOutcome, ...], warm_up_s: float, duration_s: float
) -> QueryOutcome:
    query, measured = planned.query, slice(int(np.searchsorted(run.arrival_s, warm_up_s)), None)
    latency_s, slos = run.latency_s[measured], query.slos
    completed = np.isfinite(latency_s)
    requested = dict.fromkeys((*PERCENTILES, slos.percentile))
    percentiles_s = {f"p{p:g}": percentile_interval(latency_s, p) for p in requested} if len(latency_s) else {}
    score = _score(planned, run.items[measured], completed)
    bounds = percentiles_s.get(f"p{slos.percentile:g}")
    return QueryOutcome(
        query=query.name,
        weight=query.weight,
        slos=slos,
        requests=len(latency_s),
        dropped=int((~completed).sum()),
        rate_per_s=len(latency_s) / duration_s,
        latency_s=percentiles_s,
        percentile=slos.percentile,
        score=score,
        cost_usd_per_h=planned.cost_usd_per_h,
        stages=stages,
        slos_met=slos.attained(None if bounds is None else bounds.value, score, planned.cost_usd_per_h),
        is_significant=bounds is not None
        and (slos.latency is None or slos.latency.is_met_by(bounds.lower) == slos.latency.is_met_by(bounds.upper)),
    )


def _score(planned: PlannedQuery, items: IntArray, completed: BoolArray) -> float:
    """Return the plan's accuracy, changed by as much as dropped requests change the mean score; NaN without others.

    The mean score alone would have the strata of the measured items, and not those of the data set. With
    `accuracy_of: each` it is the accuracy of the worst part of a split plan.
    """
    if not completed.any():
        return math.nan
    if planned.query.accuracy_of == "each" and planned.plan.is_split:
        first = offsets([len(profile.items) for profile in planned.profiles])
        rows = [(items >= begin) & (items < end) for begin, end in pairwise(first.tolist())]
        of_parts = [
            _score(part, items[own] - begin, completed[own])
            for part, own, begin in zip(planned.parts, rows, first.tolist(), strict=False)
            if completed[own].any()
        ]
        return min(of_parts) if planned.pipeline.metric.direction == "maximize" else max(of_parts)
    scores = planned.scores[items]
    change = float(scores[completed].mean() - scores.mean())
    return float(np.clip(planned.accuracy + change, *planned.pipeline.metric.range))


def _stages(simulation: Simulation, model: SimulationModel, parts: range) -> tuple[StageOutcome, ...]:
    """Return the mean times of each operator over the requests of all parts of a query."""
    stages = []
    for name in model.operators[parts[0]]:
        sums = [simulation.visit(part, model.operators[part][name]) for part in parts]
        count = sum(run.requests for run in sums) or math.nan
        wait_s, service_s = sum(run.wait_s for run in sums), sum(run.service_s for run in sums)
        stages.append(StageOutcome(name, wait_s / count, service_s / count))
    return tuple(stages)


def _stations(model: SimulationModel, simulation: Simulation) -> list[StationOutcome]:
    unbatched_s = np.zeros(len(model.stations))
    for run in simulation.runs:
        counts = np.bincount(run.items, minlength=run.query.items)
        for visit in run.query.visits:
            unbatched_s[visit.station] += float(counts @ visit.service_s)
    return [
        _station(station, sums, its_unbatched_s, simulation.duration_s)
        for station, sums, its_unbatched_s in zip(
            model.stations, simulation.station_stats, unbatched_s.tolist(), strict=True
        )
    ]


def _station(station: Station, sums: StationRun, unbatched_s: float, duration_s: float) -> StationOutcome:
    requested_s = unbatched_s * station.batch_time_ratios[-1] / station.batch_size
    return StationOutcome(
        name=station.name,
        servers=station.servers,
        requests=sums.requests,
        utilization=sums.busy_s / (station.servers * duration_s),
        offered_utilization=requested_s / (station.servers * duration_s),
        mean_wait_s=sums.wait_s / sums.requests if sums.requests else 0.0,
        mean_fill=sums.requests / sums.batches if sums.batches else 0.0,
    )
