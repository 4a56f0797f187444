"""Running plans in simulated time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.errors import PlanningError
from circinus.estimation.estimator import DEFAULT_PERCENTILE
from circinus.queueing.station import Station
from circinus.simulation.engine import QueryRun, Simulation, StationRun
from circinus.simulation.model_builder import PlannedQuery, SimulationModel, build_model
from circinus.simulation.report import QueryOutcome, SimulationReport, StageOutcome, StationOutcome, percentile_interval
from circinus.specification import Deployment, Network, Slos

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
MOST_EXECUTIONS = 200_000_000
"""Beyond it memory runs out on small machines, where each is a request of its own, and patience anywhere."""


@dataclass(frozen=True)
class Progress:
    """How far a simulation is, in simulated seconds."""

    done_s: float
    total_s: float


def simulate(
    planned: Sequence[PlannedQuery],
    replicas: Mapping[Deployment, int],
    network: Network,
    *,
    duration_s: float,
    warm_up_s: float = 0.0,
    load: float = 1.0,
    seed: int = 0,
    unserved_weight: float = 0.0,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> SimulationReport:
    """Let requests of all planned queries come for `duration_s`, and follow each to its end.

    Args:
        planned: queries with their plans, at least one.
        replicas: of every deployment that the plans use.
        network: where they run.
        duration_s: simulated seconds in which requests come.
        warm_up_s: less than `duration_s`; requests before it count in no figure of a query.
        load: times the queries' rates.
        seed: of arrivals and items.
        unserved_weight: of queries without a plan, for the goodput.
        on_progress: called now and then.
        clock: counts seconds.

    Raises:
        PlanningError: the plans cannot be run, or so many requests would come that memory may run out.
    """
    _check(planned, duration_s, warm_up_s, load)
    begun_s = clock()
    loaded = [replace(one, arrivals=one.arrivals.scaled(load)) for one in planned]
    model = build_model(loaded, replicas, network)
    expected = sum(
        one.arrivals.rate_per_s * duration_s * len(query.visits)
        for one, query in zip(loaded, model.queries, strict=True)
    )
    if expected > MOST_EXECUTIONS:
        raise PlanningError(
            f"found {expected:.3g} executions of operators and links to simulate, expected at most "
            f"{MOST_EXECUTIONS:.3g}; simulate less time",
            code="simulation.too_large",
        )
    simulation = Simulation(model.stations, model.queries, duration_s=duration_s, seed=seed, warm_up_s=warm_up_s)
    simulation.run(None if on_progress is None else lambda done_s: on_progress(Progress(done_s, duration_s)))
    queries = tuple(
        _outcome(one, run, _stages(simulation, number, operators), warm_up_s, duration_s)
        for number, (one, run, operators) in enumerate(zip(planned, simulation.runs, model.operators, strict=True))
    )
    stations = _stations(model, simulation)
    return SimulationReport(
        seed=seed,
        load=load,
        duration_s=duration_s,
        warm_up_s=warm_up_s,
        queries=queries,
        deployments=tuple(stations[station] for station in model.deployments.values()),
        links=tuple(stations[station] for station in model.links.values()),
        goodput=sum(query.weight for query in queries if query.satisfied),
        total_weight=sum(query.weight for query in queries) + unserved_weight,
        executions=sum(did.requests for did in simulation.station_stats),
        computed_s=clock() - begun_s,
    )


def _check(planned: Sequence[PlannedQuery], duration_s: float, warm_up_s: float, load: float) -> None:
    if not planned:
        raise PlanningError(
            "found no query with a plan to simulate, expected at least one; see circinus explain",
            code="plan.no_served_query",
        )
    if not (duration_s > warm_up_s >= 0 and load > 0):
        raise PlanningError(
            f"found {duration_s:g} s with {warm_up_s:g} s of warm-up at {load:g} times the load, expected a duration "
            f"longer than the warm-up and a load above 0",
            code="simulation.invalid_duration",
        )


def _outcome(
    planned: PlannedQuery, run: QueryRun, stages: tuple[StageOutcome, ...], warm_up_s: float, duration_s: float
) -> QueryOutcome:
    query, kept = planned.query, slice(int(np.searchsorted(run.arrival_s, warm_up_s)), None)
    latency_s, slos = run.latency_s[kept], query.slos
    percentile = DEFAULT_PERCENTILE if slos.latency is None else slos.latency.percentile
    wanted = dict.fromkeys((*PERCENTILES, percentile))
    found = {f"p{p:g}": percentile_interval(latency_s, p) for p in wanted} if len(latency_s) else {}
    score = float(planned.profile.scores[run.items[kept]].mean()) if len(latency_s) else math.nan
    reached = found.get(f"p{percentile:g}")
    limit_s = math.inf if slos.latency is None else slos.latency.limit_s
    held = _held(slos, None if reached is None else reached.value, score, planned.cost_usd_per_h)
    return QueryOutcome(
        query=query.name,
        weight=query.weight,
        slos=slos,
        requests=len(latency_s),
        rate_per_s=len(latency_s) / (duration_s - warm_up_s),
        latency_s=found,
        percentile=percentile,
        score=score,
        cost_usd_per_h=planned.cost_usd_per_h,
        stages=stages,
        slos_met=held,
        is_significant=reached is not None and (reached.upper <= limit_s or reached.lower > limit_s),
    )


def _stages(simulation: Simulation, query: int, operators: Mapping[str, int]) -> tuple[StageOutcome, ...]:
    found = []
    for name, visit in operators.items():
        met = simulation.visit(query, visit)
        count = met.requests or math.nan
        found.append(StageOutcome(name, met.wait_s / count, met.service_s / count))
    return tuple(found)


def _held(slos: Slos, reached_s: float | None, score: float, cost_usd_per_h: float) -> dict[str, bool]:
    held = {}
    if slos.latency is not None:
        held["latency"] = reached_s is not None and reached_s <= slos.latency.limit_s
    if slos.accuracy is not None:
        held["accuracy"] = not math.isnan(score) and slos.accuracy.is_met_by(score)
    if slos.cost is not None:
        held["cost"] = cost_usd_per_h <= slos.cost.limit_usd_per_h * (1 + 1e-9)
    return held


def _stations(model: SimulationModel, simulation: Simulation) -> list[StationOutcome]:
    asked_s = np.zeros(len(model.stations))
    for run in simulation.runs:
        often = np.bincount(run.items, minlength=run.query.items)
        for visit in run.query.visits:
            asked_s[visit.station] += float(often @ visit.service_s)
    return [
        _station(station, did, asked, simulation.duration_s)
        for station, did, asked in zip(model.stations, simulation.station_stats, asked_s.tolist(), strict=True)
    ]


def _station(station: Station, did: StationRun, asked_s: float, duration_s: float) -> StationOutcome:
    full_s = asked_s * station.batch_time_ratios[-1] / station.batch_size
    return StationOutcome(
        name=station.name,
        servers=station.servers,
        requests=did.requests,
        utilization=did.busy_s / (station.servers * duration_s),
        offered_utilization=full_s / (station.servers * duration_s),
        mean_wait_s=did.wait_s / did.requests if did.requests else 0.0,
        mean_fill=did.requests / did.batches if did.batches else 0.0,
    )
