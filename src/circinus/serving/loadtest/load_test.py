"""Load test of an engine: sends traffic and measures each query."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from circinus.errors import ServingError
from circinus.matching import Matching
from circinus.operators import Item
from circinus.operators.pickling import pickled_bytes
from circinus.queueing.arrivals import arrival_process
from circinus.serving.engine import Engine, EngineStatus, Mode, Request
from circinus.serving.loadtest.load_report import GeneratorLag, LoadReport, QueryMeasurement, ServiceTimeReport
from circinus.serving.loadtest.machine_load import MachineLoad, MachineMonitor
from circinus.serving.loadtest.open_loop import (
    Arrival,
    EngineEnd,
    LoadProgress,
    OpenLoop,
    RequestOutcome,
    query_rng,
    read_trace,
    sample_arrivals,
)
from circinus.serving.loadtest.plan_replacements import watch_replacements
from circinus.serving.loadtest.scoring import measure_queries
from circinus.serving.loadtest.service_time_learning import LoadRun, PredictionsAtRun, observe_service_times
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.serving.settings import SERVING
from circinus.specification import Specification
from circinus.specification.formatting import format_duration

__all__ = ["LoadProgress", "LoadSpec", "run_load_test"]


@dataclass(frozen=True)
class LoadSpec:
    """Traffic and duration of a load test."""

    duration_s: float
    """Measured seconds. Arrivals of a file after warm-up + duration are not sent."""
    warm_up_s: float = 0.0
    """Seconds at the start that are excluded from measurements."""
    load_factor: float = 1.0
    """Factor of each query's rate; burst durations stay, a file is played faster."""
    seed: int = 0
    arrivals: Path | None = None
    """CSV file (`time_s,query`) that replaces the queries' arrival processes."""
    drain_timeout_s: float = 30.0
    """Waiting time for answers after the last request; later ones count as unanswered."""

    def __post_init__(self) -> None:
        if not (self.duration_s > 0 and self.warm_up_s >= 0 and self.load_factor > 0 and self.drain_timeout_s >= 0):
            raise ServingError(
                f"duration and load factor must be positive, warm-up and drain timeout not negative, got {self}",
                code="load.invalid_settings",
            )


async def run_load_test(
    engine: Engine,
    specification: Specification,
    matching: Matching,
    items: Mapping[str, Sequence[Item]],
    traffic: LoadSpec,
    on_progress: Callable[[LoadProgress], None] | None = None,
    expected: PredictionsAtRun | None = None,
    own_processes: Sequence[int] | None = None,
) -> LoadReport:
    """Send traffic to the queries that `matching` serves and measure each of them.

    The latency of a request counts from its scheduled arrival, so that late sending does not hide a stalled engine or
    generator. Answers are scored with the pipeline's metric after the last one, outside the measured time.

    Args:
        engine: has the routes of `matching` in force.
        specification: queries with arrivals and SLOs, pipelines with metrics.
        matching: the plans, with predictions and prices.
        items: pipeline -> items that its requests carry, in turns of one random order per query. A replaying engine
            needs recorded items, preferably ones held out from planning.
        traffic: traffic and duration.
        on_progress: called about four times a second.
        expected: predictions to compare service times with (`LoadReport.learning`); None: no comparison.
        own_processes: ids of the processes of the load test and of the engine, if all run on this machine, which is
            then monitored (`LoadReport.machine`); None: it is not.

    If a local engine ends during the test, the report is that of the time before (`LoadReport.engine_end_s`).

    Raises:
        ServingError: a served pipeline has no items, the engine lacks a route, or it ended before the warm-up did.
        SpecError: the file of arrivals is invalid.
    """
    before = await _check_routes(engine, matching)
    arrivals = _arrivals(specification, matching, traffic)
    requests = _requests(specification, arrivals, items, traffic.seed, with_values=before.mode is Mode.REAL)
    end = asyncio.Event()
    replacements = asyncio.create_task(watch_replacements(engine, before.state, end))
    try:
        sent = await _send(engine, arrivals, requests, traffic, on_progress, own_processes)
    finally:
        end.set()
    learning = None
    if sent.engine_end is not None:
        traffic = _until_end(traffic, sent.engine_end)
    elif expected is not None:
        learning = await _learn(engine, specification, matching, sent, before, traffic.warm_up_s, expected)
    queries = await _measure(specification, matching, sent, items, traffic)
    report = _report(specification, matching, before.mode, traffic, sent, queries, learning)
    return replace(report, replacements=await replacements)


@dataclass(frozen=True, eq=False)
class _SentTraffic:
    """Traffic that was sent, with what may have disturbed it."""

    answers: Sequence[RequestOutcome]
    lag: GeneratorLag
    machine: MachineLoad | None
    """None: the machine was not monitored, or the engine ended."""
    engine_end: EngineEnd | None
    """End of the engine during the test."""


async def _send(
    engine: Engine,
    arrivals: Sequence[Arrival],
    requests: Sequence[Request],
    traffic: LoadSpec,
    on_progress: Callable[[LoadProgress], None] | None,
    own_processes: Sequence[int] | None,
) -> _SentTraffic:
    """Send the requests on time and wait for their answers; the machine is monitored meanwhile."""
    sender = OpenLoop(engine, traffic.drain_timeout_s)
    # A full garbage collection would pause the generator for tens of milliseconds; current objects stay alive anyway.
    gc.collect()
    gc.freeze()
    monitor = None if own_processes is None else MachineMonitor(own_processes)
    try:
        answers = await sender.send(arrivals, requests, on_progress)
    finally:
        gc.unfreeze()
    machine = None if monitor is None or sender.engine_end is not None else monitor.load()
    return _SentTraffic(answers, _generator_lag(sender.lateness_s), machine, sender.engine_end)


async def _learn(
    engine: Engine,
    specification: Specification,
    matching: Matching,
    sent: _SentTraffic,
    before: EngineStatus,
    warm_up_s: float,
    expected: PredictionsAtRun,
) -> ServiceTimeReport | None:
    """Compare service times with the predicted ones; None if the engine ended after its last answer."""
    try:
        after = await engine.status()
    except ServingError:
        return None
    run = LoadRun(sent.answers, warm_up_s, sent.lag.late, before, after)
    return observe_service_times(specification, matching, run, expected)


async def _measure(
    specification: Specification,
    matching: Matching,
    sent: _SentTraffic,
    items: Mapping[str, Sequence[Item]],
    traffic: LoadSpec,
) -> tuple[QueryMeasurement, ...]:
    """Score the answers after the warm-up, in a thread: metrics compute, and the loop may run other load tests."""
    return await asyncio.to_thread(
        measure_queries,
        specification,
        matching,
        [answer for answer in sent.answers if answer.scheduled_s >= traffic.warm_up_s],
        items,
        traffic.duration_s,
        traffic.warm_up_s,
        lag_s=sent.lag.max_s,
        busy=sent.machine is not None and sent.machine.busy,
        items_of_test=partial(_items_of_test, specification, matching, items, traffic),
    )


def _report(
    specification: Specification,
    matching: Matching,
    mode: Mode,
    traffic: LoadSpec,
    sent: _SentTraffic,
    queries: tuple[QueryMeasurement, ...],
    learning: ServiceTimeReport | None,
) -> LoadReport:
    return LoadReport(
        mode=str(mode),
        arrivals=_kinds(specification, matching) if traffic.arrivals is None else traffic.arrivals.name,
        seed=traffic.seed,
        load_factor=traffic.load_factor,
        warm_up_s=traffic.warm_up_s,
        duration_s=traffic.duration_s,
        queries=queries,
        lateness=sent.lag,
        deployments_cost_usd_per_h=sum(d.cost_usd_per_h for d in matching.deployments),
        goodput=sum(query.weight for query in queries if query.satisfied),
        total_weight=sum(query.weight for query in queries),
        promises_kept=sum(query.verdict is SloVerdict.YES for query in queries),
        promises=sum(query.served for query in queries),
        verdicts={verdict: sum(query.verdict == verdict for query in queries) for verdict in SloVerdict},
        learning=learning,
        machine=sent.machine,
        engine_end_s=None if sent.engine_end is None else sent.engine_end.time_s,
        overloaded={} if traffic.arrivals is not None else _overloaded(matching, traffic.load_factor),
    )


def _overloaded(matching: Matching, load_factor: float) -> dict[str, float]:
    """Return the overloaded deployments; see `LoadReport`."""
    demand_ratios = {sized.deployment.name: sized.utilization * load_factor for sized in matching.deployments}
    return {name: ratio for name, ratio in demand_ratios.items() if ratio >= 1}


def _until_end(traffic: LoadSpec, end: EngineEnd) -> LoadSpec:
    """Return the traffic up to the end of the engine, which may come after the last request.

    Raises:
        ServingError: the engine ended before the warm-up did.
    """
    if end.time_s <= traffic.warm_up_s:
        raise ServingError(
            f"the engine ended {format_duration(end.time_s)} after the start of the test, in its warm-up: "
            f"{end.reason.message}",
            code="load.engine_ended",
            location=end.reason.location,
            hint="Run `circinus apply`, and repeat the test.",
        ) from end.reason
    return replace(traffic, duration_s=min(traffic.duration_s, end.time_s - traffic.warm_up_s))


async def _check_routes(engine: Engine, matching: Matching) -> EngineStatus:
    status = await engine.status()
    missing = sorted(matching.served - set(status.routes))
    if missing:
        raise ServingError(
            f"the engine has no route for {', '.join(missing)}; "
            f"queries with a route: {', '.join(status.routes) or 'none'}",
            code="load.no_route",
            hint="Apply the plan with `circinus apply`.",
        )
    return status


def _kinds(specification: Specification, matching: Matching) -> str:
    """Return the kinds of arrivals of the served queries, most frequent first."""
    served = matching.served
    kinds = Counter(query.arrivals.kind for query in specification.queries if query.name in served)
    return " and ".join(kind for kind, _ in kinds.most_common()) or "no"


def _arrivals(specification: Specification, matching: Matching, traffic: LoadSpec) -> tuple[Arrival, ...]:
    served = matching.served
    total_s = traffic.warm_up_s + traffic.duration_s
    if traffic.arrivals is None:
        processes = {query.name: arrival_process(query) for query in specification.queries if query.name in served}
        scaled = {query: process.scaled(traffic.load_factor) for query, process in processes.items()}
        return sample_arrivals(scaled, total_s, traffic.seed)
    trace = read_trace(traffic.arrivals, {query.name for query in specification.queries})
    played = (Arrival(arrival.time_s / traffic.load_factor, arrival.query) for arrival in trace)
    return tuple(arrival for arrival in played if arrival.time_s < total_s and arrival.query in served)


def _requests(
    specification: Specification,
    arrivals: Sequence[Arrival],
    items: Mapping[str, Sequence[Item]],
    seed: int,
    with_values: bool,
) -> list[Request]:
    pipelines = {query.name: query.pipeline for query in specification.queries}
    sizes: dict[tuple[str, str], float] = {}
    turns: dict[str, Iterator[Item]] = {}
    requests = []
    for arrival in arrivals:
        pipeline = pipelines[arrival.query]
        if arrival.query not in turns:
            if not items.get(pipeline):
                raise ServingError(
                    f"pipeline {pipeline} has no items to send",
                    code="load.no_items",
                    location=f"query {arrival.query}",
                    hint="Pass items of this pipeline.",
                )
            turns[arrival.query] = _shuffled_rounds(items[pipeline], query_rng(seed, arrival.query, "items"))
        item = next(turns[arrival.query])
        if (pipeline, item.key) not in sizes:
            sizes[pipeline, item.key] = float(pickled_bytes(item.value))
        value = item.value if with_values else None
        requests.append(Request(arrival.query, item.key, value, sizes[pipeline, item.key]))
    return requests


def _items_of_test(
    specification: Specification,
    matching: Matching,
    items: Mapping[str, Sequence[Item]],
    traffic: LoadSpec,
    query: str,
    duration_s: float,
) -> list[str]:
    """Return the item of each measured request of a query in a test of another duration; of a trace none."""
    if traffic.arrivals is not None:
        return []
    (spec,) = (spec for spec in specification.queries if spec.name == query)
    arrivals = _arrivals(replace(specification, queries=(spec,)), matching, replace(traffic, duration_s=duration_s))
    turns = _shuffled_rounds(items[spec.pipeline], query_rng(traffic.seed, query, "items"))
    sent = [(arrival.time_s, next(turns).key) for arrival in arrivals if arrival.query == query]
    return [key for time_s, key in sent if time_s >= traffic.warm_up_s]


def _shuffled_rounds(items: Sequence[Item], rng: np.random.Generator) -> Iterator[Item]:
    """Yield items in turns of random order, so that means vary less than with independent draws."""
    while True:
        for index in rng.permutation(len(items)):
            yield items[index]


def _generator_lag(lateness_s: Sequence[float]) -> GeneratorLag:
    if not lateness_s:
        return GeneratorLag(0.0, 0.0, 0.0, late=False)
    p99_s = float(np.percentile(lateness_s, 99))
    return GeneratorLag(
        float(np.mean(lateness_s)), p99_s, float(np.max(lateness_s)), late=p99_s > SERVING.max_lag_p99_s
    )
