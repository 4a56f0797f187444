"""Queries without a plan because of a few slow runs, on the published speech trace with simulated run times.

The recorded mean seconds of an operator are multiplied by independent factors for each prefix and item. A query is
feasible if it has a plan when every configuration is measured on all items. It is given up if profiling with a sampler
ends without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.search.arena import TIERS
from benchmarks.workloads.published.speech import SpeechTrace, read_speech_trace, traces_folder
from benchmarks.workloads.synthetic.ground_truth import cheapest_of
from benchmarks.workloads.trace_items import on_items
from circinus.arrays import FloatArray
from circinus.estimation import Estimator, PlanCandidate
from circinus.planning import plan_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import (
    ConfigurationProfile,
    MeasurementTrace,
    OperatorProfile,
    PipelineProfile,
    SimulatedClock,
    TraceBackend,
    profile_pipeline,
)
from circinus.specification import (
    AccuracySlo,
    HardwareClass,
    Infrastructure,
    LatencySlo,
    Link,
    Network,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
    Specification,
    prefix_configuration,
)
from circinus.statistics.interval import Interval

ITEMS = 400
RISK = 0.05
_MASK_WIDTH = 500
"""The only choice of this knob that is read, as it has no effect."""
_RANKS, _MARGIN = (2, 8), 0.03
"""Ranks of the configurations whose mean scores, worse by the margin, are the accuracy SLOs."""
_HEADROOMS = (1.05, 1.3, 2.0)
"""Latency limits relative to the lowest latency at the accuracy."""
_MIB = 2**20

Factors = Callable[[np.random.Generator, tuple[int, int]], FloatArray]


def _log_normal(deviation: float) -> Factors:
    return lambda rng, shape: np.exp(deviation * rng.standard_normal(shape))


def _pareto(index: float) -> Factors:
    return lambda rng, shape: np.asarray((1.0 - rng.random(shape)) ** (-1.0 / index))


def _outliers(share: float, factor: float) -> Factors:
    return lambda rng, shape: _log_normal(0.1)(rng, shape) * np.where(rng.random(shape) < share, factor, 1.0)


TIMES: Mapping[str, Factors] = {
    "as recorded": lambda _, shape: np.ones(shape),
    "log-normal 0.25": _log_normal(0.25),
    "log-normal 0.5": _log_normal(0.5),
    "log-normal 1": _log_normal(1.0),
    "Pareto 2.5": _pareto(2.5),
    "Pareto 1.5": _pareto(1.5),
    "1 % of runs 10 times as long": _outliers(0.01, 10.0),
    "0.5 % of runs 100 times as long": _outliers(0.005, 100.0),
}
"""Factors of run times, the slow ones in excess of what the percentile of latency allows or not."""


@dataclass(frozen=True)
class SlowRun:
    """Profiling for one query."""

    times: str
    seed: int
    query: str
    feasible: bool
    served: bool
    kept: bool
    """Whether the cheapest plan meets its SLOs by all measurements; true without a plan."""
    cost_over_best: float
    """Cost over that of the cheapest plan from complete measurement; NaN without a plan."""
    items: int
    """Number of measured scores."""
    seconds: float
    """Recorded seconds of profiling."""


def slow_runs(seeds: Sequence[int], jobs: int, console: Console) -> PartResult:
    """Profile for every query, seed and kind of times; return figures and rows."""
    keys = [(times, seed) for times in TIMES for seed in seeds]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        runs = list(track(pool.map(_runs, keys), "slow runs", total=len(keys), console=console))
    rows = [row for of_key in runs for row in of_key]
    return [_figure(times, [row for row in rows if row.times == times]) for times in TIMES], [*map(asdict, rows)]


def _figure(times: str, rows: Sequence[SlowRun]) -> Figure:
    feasible = [row for row in rows if row.feasible]
    given_up = float(np.mean([not row.served for row in feasible]))
    costs = [row.cost_over_best for row in feasible if row.served]
    seconds = float(np.mean([row.seconds for row in rows]))
    served = [row for row in rows if row.served]
    note = (
        f"of {len(feasible)}; cost over that of complete measurement {np.mean(costs):.3f}, {seconds:.0f} s on average; "
        f"{sum(not row.kept for row in served)} of {len(served)} promises broken"
    )
    return Figure(f"{times}: feasible queries given up", given_up, RISK, "lower", "share", note)


def _runs(key: tuple[str, int]) -> list[SlowRun]:
    times, seed = key
    speech = read_speech_trace(traces_folder(), mask_widths=(_MASK_WIDTH,))
    trace = _with_times(speech, times, seed)
    complete, runs = _complete(speech, trace), []
    for query in _queries(speech, complete):
        specification = _specification(speech, [query])
        profile, seconds = _profiled(specification, trace, seed)
        best, plan = (cheapest_of(_plans(specification, p)[query.name]) for p in (complete, profile))
        runs.append(
            SlowRun(
                times=times,
                seed=seed,
                query=query.name,
                feasible=best is not None,
                served=plan is not None,
                kept=plan is None or _is_kept(specification, query, complete, plan.plan),
                cost_over_best=_cost(plan) / _cost(best) if plan and best else np.nan,
                items=sum(len(measured.items) for measured in profile.configurations),
                seconds=seconds,
            )
        )
    return runs


def _with_times(speech: SpeechTrace, times: str, seed: int) -> MeasurementTrace:
    """Return the trace on some of the items, with factors of run times."""
    rng, trace = np.random.default_rng([seed, list(TIMES).index(times)]), speech.trace
    keep = np.sort(rng.permutation(trace.scores.shape[1])[:ITEMS])
    kept = on_items(trace, keep)
    return replace(
        kept,
        service_s=kept.service_s * TIMES[times](rng, (len(trace.service_s), ITEMS)),
        dataset_fingerprint=f"voices, {times}, seed {seed}",
    )


def _queries(speech: SpeechTrace, complete: PipelineProfile) -> list[Query]:
    """Return a query for each accuracy and headroom; some are infeasible."""
    queries, means = list[Query](), sorted(measured.accuracy.value for measured in complete.configurations)
    for rank in _RANKS:
        threshold = round(means[rank] + _MARGIN, 4)
        free = _query("free", threshold, None)
        plans = _plans(_specification(speech, [free]), complete)[free.name]
        lowest_s = min((plan.estimate.latency_s.upper for plan in plans), default=0.0)
        queries += [
            _query(f"rank-{rank}-limit-{headroom}", threshold, float(f"{headroom * lowest_s:.4g}"))
            for headroom in (_HEADROOMS if plans else ())
        ]
    return queries


def _query(name: str, threshold: float, limit_s: float | None) -> Query:
    latency = None if limit_s is None else LatencySlo(percentile=95, limit_s=limit_s)
    accuracy = AccuracySlo(threshold=threshold, comparison="<=")
    slos = Slos(accuracy=accuracy, latency=latency)
    return Query(name=name, pipeline="speech", source="device", rate_per_s=0.05, slos=slos)


def _specification(speech: SpeechTrace, queries: Sequence[Query]) -> Specification:
    """Return the queries on the tiers of the published data; an hour of work costs what it costs there."""
    sites = [tier.name for tier in TIERS]
    cpus = 16
    pools = tuple(
        Pool(
            name=tier.name,
            site=tier.name,
            tier=tier.name,
            nodes=16,
            cpus=cpus,
            memory_bytes=cpus * tier.memory_mib * _MIB,
            hardware=HardwareClass(name="local" if tier.speed == 1.0 else tier.name, relative_speed=tier.speed),
            price_usd_per_h=cpus * tier.usd_per_busy_h,
        )
        for tier in TIERS
    )
    links = tuple(
        Link(source=tier.name, target=above, bandwidth_bytes_per_s=tier.uplink_bytes_per_s, round_trip_s=0.01)
        for tier, above in zip(TIERS[:-1], sites[1:], strict=True)
    )
    infrastructure = Infrastructure(
        name="tiers", sites=tuple(Site(name=site) for site in sites), pools=pools, links=links
    )
    return Specification({speech.pipeline.name: speech.pipeline}, infrastructure, tuple(queries))


def _complete(speech: SpeechTrace, trace: MeasurementTrace) -> PipelineProfile:
    """Return the profile of every configuration on every item."""
    operators = speech.pipeline.operators
    columns = [operator.name for operator in speech.pipeline.topological_order()]
    profiles: dict[int, OperatorProfile] = {}
    for configuration, rows in zip(trace.configurations, trace.rows, strict=True):
        for operator in operators:
            row = int(rows[columns.index(operator.name)])
            times = trace.service_s[row], trace.output_bytes[row]
            prefix = prefix_configuration(speech.pipeline, configuration, operator.name)
            profiles[row] = OperatorProfile(operator.name, prefix, *times, np.nan, np.nan, {}).with_replica(
                operator, trace.replicas[operator.name, configuration[operator.name]]
            )
    return PipelineProfile(
        pipeline=speech.pipeline.name,
        dataset_fingerprint=trace.dataset_fingerprint,
        dataset_items=ITEMS,
        held_out_items=0,
        hardware_class="local",
        risk=RISK,
        configurations=tuple(
            ConfigurationProfile(
                configuration=configuration,
                items=np.arange(ITEMS),
                scores=scores,
                accuracy=Interval(*[float(scores.mean())] * 3),
                input_bytes=trace.input_bytes,
                operators={profiles[row].operator: profiles[row] for row in rows.tolist()},
            )
            for configuration, rows, scores in zip(trace.configurations, trace.rows, trace.scores, strict=True)
        ),
        unmeasured=0,
        profiled_s=0.0,
        saved_s=0.0,
    )


def _profiled(specification: Specification, trace: MeasurementTrace, seed: int) -> tuple[PipelineProfile, float]:
    """Profile with a sampler from an empty store; return the profile and recorded seconds."""
    clock, (name,) = SimulatedClock(), specification.pipelines
    with TemporaryDirectory(prefix="circinus-slow-") as folder:
        profile = profile_pipeline(
            specification,
            name,
            Path(folder) / "store.sqlite",
            seed=seed,
            source=TraceBackend(trace, clock),
            explorer=make_sampler(specification, name),
        )
    return profile, clock()


def _plans(specification: Specification, profile: PipelineProfile) -> Mapping[str, Sequence[PlanCandidate]]:
    frontiers = plan_queries(specification, {profile.pipeline: profile})
    return {name: frontier.candidates for name, frontier in frontiers.items()}


def _cost(plan: PlanCandidate) -> float:
    return plan.estimate.cost_usd_per_h.lower


def _is_kept(specification: Specification, query: Query, complete: PipelineProfile, plan: QueryPlan) -> bool:
    measured = next(c for c in complete.configurations if c.configuration == plan.configuration)
    pipeline, network = specification.pipelines[query.pipeline], Network(specification.required_infrastructure)
    candidate = Estimator(query, pipeline, measured, network).candidate(plan)
    latency_s, accuracy = candidate.estimate.latency_s.value, candidate.estimate.accuracy.value
    return all(query.slos.attained(latency_s, accuracy, _cost(candidate)).values())
