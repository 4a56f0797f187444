"""Workloads of the evaluation: queries of five pipelines over devices, edge sites and a cloud, drawn from a seed.

`speech-voices`, `speech-libri` and `video-nuscenes` are published measurements: seconds and bytes of configurations,
and scores of single items for `speech-voices` only; those of the other two are simulated around the published means.
Memory of detectors is assumed, and loading takes no time. `meeting` and `documents` are recordings of the examples,
item by item. Four places have devices and an edge site each, and share a cloud. `all` mixes the five pipelines, `sites`
on twenty places. In `traffic` the queries of `sites` have windows of recorded traffic instead of Poisson arrivals, and
each place has a recorded uplink, with the median of all at the published bandwidth: planners see what it had for 90 %
of the first ten minutes, and requests come at ten moments after that. `speech` has both speech pipelines, which are one
on different data.

A query's accuracy objective is a quantile of the configurations that fit somewhere, its latency limit a multiple of the
tightest that any plan guarantees at that accuracy, and one query in three has a cost limit, a multiple of the cheapest
plan's cost; both by the formulas of Circinus. All hold on an empty infrastructure of all tiers. Load 1 is the number of
queries that the capacities serve if replicas could be divided.

The measurements are of the repository `weiyu0824/vulcan` (commit c953715), traffic is of Azure's public data set (LLM
inference 2023, CC-BY 4.0), uplinks of `tungngreen/PipelineScheduler` (MIT), and LLM deployments of
`ai-dynamo/aiconfigurator` (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil

import numpy as np

from benchmarks.evaluation.contest import Contest
from benchmarks.matching.goodput_over_load import queries_at_capacity
from benchmarks.workloads.load_traces import Uplink, read_arrivals, read_uplinks
from benchmarks.workloads.published.profiles import profiled, without_dead_knob
from benchmarks.workloads.published.queries import FluidWorkload, Kinds, Workload
from benchmarks.workloads.published.sites import PLACES, infrastructure
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder
from benchmarks.workloads.published.traces import read_arenas
from benchmarks.workloads.recorded import RECORDED, recorded
from circinus.planning import Frontier
from circinus.profiling import MeasurementTrace, PipelineProfile
from circinus.specification import Infrastructure, Query, RecordedArrivals, Specification

TIGHTNESS = {"tight": (1.05, 1.5), "medium": (1.5, 2.5), "loose": (2.5, 6.0), "mixed": (1.05, 6.0)}
"""Latency limits over the tightest that can be guaranteed."""
SINGLE = ("speech-voices", "speech-libri", "video-nuscenes", *RECORDED)
"""Pipelines, and workloads with one of them."""
MANY_PLACES = ("sites", "traffic")
PIPELINES = {**{name: (name,) for name in SINGLE}, "speech": SINGLE[:2], **dict.fromkeys(("all", *MANY_PLACES), SINGLE)}
"""Pipelines of each workload."""
KINDS = 12
"""Number of kinds of queries of each pipeline."""
WORK = 0.6
"""Reference CPUs that a query of the median rate keeps busy with the configuration of median work."""
_UPLINK_SHARE = 0.1
"""Share of the slowest uplink that its inputs take at most."""
_MANY, _WORK_OF_MANY = 20, 1.5
_WINDOW = 400
"""Number of consecutive recorded arrivals of a query, which are repeated."""
_SEEN_S, _STEP_S, _MOMENTS = 600.0, 120.0, 10
"""Time before plans are made, and times at which requests come after it: uplinks keep their bandwidth for 30 s."""
_CAUTION = 0.1


@dataclass(frozen=True)
class _Measured:
    """Measurements of a pipeline behind the truth, and those that queries are drawn from, without a dead knob."""

    trace: MeasurementTrace
    truth: PipelineProfile
    pruned_trace: MeasurementTrace
    pruned: PipelineProfile

    @property
    def without_dead_knob(self) -> _Measured:
        """The pruned measurements as the truth."""
        return _Measured(self.pruned_trace, self.pruned, self.pruned_trace, self.pruned)


def available() -> tuple[str, ...]:
    """Return the workloads whose measurements are on this machine: without published traces, those of the examples."""
    try:
        traces_folder()
    except TracesAbsentError:
        return RECORDED
    return tuple(PIPELINES)


def contests(name: str, loads: Sequence[float], seed: int, tightness: str = "mixed") -> Iterator[Contest]:
    """Yield a workload's contest at each load.

    Args:
        name: of `PIPELINES`.
        loads: multiples of load 1.
        seed: of everything that is drawn.
        tightness: of `TIGHTNESS`.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    places, moments = _places(_MANY if name in MANY_PLACES else PLACES), tuple[Infrastructure, ...]()
    measured = {pipeline: _measured(pipeline, seed) for pipeline in PIPELINES[name]}
    workload = _workload(name, measured, places, seed, tightness)
    capacity = queries_at_capacity(FluidWorkload.of(workload))
    if name == "traffic":
        places, *later = _moments(places, read_uplinks(traces_folder()))
        moments, workload = tuple(later), replace(workload, infrastructure=places)
    for load in loads:
        contest = _contest(f"{name}, load {load:g}, {tightness}", workload, measured, ceil(load * capacity), seed)
        if name == "traffic":
            contest = replace(contest, specification=_with_recorded_arrivals(contest.specification, seed))
        yield replace(contest, moments=moments)


def contests_of(counts: Sequence[int], load: float, seed: int) -> Iterator[Contest]:
    """Yield contests of the workload `all` with some numbers of queries, on pools and links that grow with them.

    Pipelines have no dead knob, so that complete profiles have no equal configurations.
    """
    measured = {pipeline: _measured(pipeline, seed).without_dead_knob for pipeline in SINGLE}
    workload = _workload("all", measured, _places(PLACES), seed, "mixed")
    capacity = queries_at_capacity(FluidWorkload.of(workload))
    for count in counts:
        contest = _contest(f"all, {count} queries, load {load:g}", workload, measured, count, seed)
        grown = _grown(workload.infrastructure, max(count / (load * capacity), 1.0))
        yield replace(contest, specification=replace(contest.specification, infrastructure=grown))


def _contest(title: str, workload: Workload, measured: Mapping[str, _Measured], count: int, seed: int) -> Contest:
    drawn, _ = workload.queries(count, seed)
    pipelines = {pipeline: one.trace.pipeline for pipeline, one in measured.items()}
    return Contest(
        title,
        Specification(pipelines, workload.infrastructure, drawn.queries),
        {pipeline: one.truth for pipeline, one in measured.items()},
        {pipeline: one.trace for pipeline, one in measured.items()},
    )


def _grown(places: Infrastructure, times: float) -> Infrastructure:
    """Return places with more nodes and faster links."""
    pools = tuple(pool.model_copy(update={"nodes": ceil(pool.nodes * times)}) for pool in places.pools)
    links = tuple(
        link.model_copy(update={"bandwidth_bytes_per_s": link.bandwidth_bytes_per_s * times}) for link in places.links
    )
    return places.model_copy(update={"pools": pools, "links": links})


@cache
def _measured(pipeline: str, seed: int) -> _Measured:
    if pipeline in RECORDED:
        trace, truth = recorded(pipeline)
        return _Measured(trace, truth, trace, truth)
    rng = np.random.default_rng([seed, SINGLE.index(pipeline)])
    arena = next(a for a in read_arenas(traces_folder()) if a.space.name == pipeline).drawn(rng)
    return _Measured(*profiled(arena, pipeline), *profiled(without_dead_knob(arena), pipeline))


def _workload(
    name: str, measured: Mapping[str, _Measured], places: Infrastructure, seed: int, tightness: str
) -> Workload:
    """Return kinds of queries, from measurements without a dead knob."""
    return Workload(
        name,
        {pipeline: one.pruned_trace.pipeline for pipeline, one in measured.items()},
        {pipeline: one.pruned_trace for pipeline, one in measured.items()},
        {pipeline: one.pruned for pipeline, one in measured.items()},
        places,
        tuple(kind for pipeline in measured for kind in _kinds(pipeline, name in MANY_PLACES, seed, tightness)),
    )


@cache
def _kinds(pipeline: str, has_many_places: bool, seed: int, tightness: str) -> tuple[Frontier, ...]:
    one, work = _measured(pipeline, seed), _WORK_OF_MANY if has_many_places else WORK
    median_s = float(np.median([measured.mean_service_s for measured in one.pruned.configurations]))
    input_bytes = float(one.pruned.configurations[0].input_bytes.mean())
    places = _places(_MANY if has_many_places else PLACES)
    slowest_bytes_per_s = min(link.bandwidth_bytes_per_s for link in places.links)
    rate_per_s = min(work / median_s, _UPLINK_SHARE * slowest_bytes_per_s / input_bytes)
    rng = np.random.default_rng([seed, SINGLE.index(pipeline), 1])
    return Kinds(one.pruned_trace.pipeline, one.pruned, places, rng, rate_per_s, TIGHTNESS[tightness]).drawn(KINDS)


def _with_recorded_arrivals(specification: Specification, seed: int) -> Specification:
    """Return queries with random windows of recorded traffic, half of conversations and half of code."""
    rng, traffic = np.random.default_rng([seed, 2]), read_arrivals(traces_folder())

    def recorded_query(query: Query) -> Query:
        name = list(traffic)[rng.integers(len(traffic))]
        begin = rng.integers(len(traffic[name]) - _WINDOW)
        window_s = traffic[name][begin : begin + _WINDOW]
        times_s = tuple((window_s - window_s[0]).tolist())
        return query.model_copy(update={"arrivals": RecordedArrivals(file=f"{name}.csv", times_s=times_s)})

    return replace(specification, queries=tuple(map(recorded_query, specification.queries)))


def _places(count: int) -> Infrastructure:
    """Return places of which each has its own devices and edge site, and the cloud for all."""
    whole = infrastructure(count)
    results_down = {"reverse_allowed_traffic": "results"}
    links = [link.model_copy(update=results_down) if link.target == "cloud" else link for link in whole.links]
    return whole.model_copy(update={"links": tuple(links)})


def _moments(places: Infrastructure, uplinks: Sequence[Uplink]) -> tuple[Infrastructure, ...]:
    """Return places with recorded uplinks as planners see them, then as they are at each moment."""
    begin_s = float(uplinks[0].time_s[0])
    median = float(np.median([value for uplink in uplinks for value in uplink.mbit_per_s]))

    def at(mbit_per_s: Sequence[float]) -> Infrastructure:
        times = {f"place-{number}": value / median for number, value in enumerate(mbit_per_s)}
        links = tuple(
            link.model_copy(update={"bandwidth_bytes_per_s": times.get(link.source, 1.0) * link.bandwidth_bytes_per_s})
            for link in places.links
        )
        return places.model_copy(update={"links": links})

    seen = at([uplink.exceeded_for(1 - _CAUTION, begin_s, _SEEN_S) for uplink in uplinks])
    times_s = begin_s + _SEEN_S + _STEP_S * np.arange(_MOMENTS)
    return seen, *(at([uplink.at(time_s) for uplink in uplinks]) for time_s in times_s.tolist())
