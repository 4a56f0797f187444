"""Many queries on the published traces, planned by the product: speech, video, and both on shared machines.

Plans are not made by hand. A *kind* of query has a pipeline, a source, a rate, SLOs, and the frontier that the planner
computes for them from complete measurements. Queries are drawn from the kinds, each with a weight. A larger load
contains the queries of a smaller one.

SLOs are drawn from achievable values. The accuracy is a quantile over the configurations that fit on some pool. The
latency limit is 1.05 to 4 times the tightest limit that the planner can guarantee at that accuracy. One kind in three
has a cost limit of 1.1 to 4 times its cheapest plan. So each query can be served on an empty infrastructure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads.published.profiles import profiled, without_dead_knob
from benchmarks.workloads.published.sites import infrastructure
from benchmarks.workloads.published.traces import read_arenas
from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.lagrangian import RelaxedProblem
from circinus.matching.lagrangian.relaxation import RelaxedView
from circinus.matching.problem_builder import build_problem
from circinus.planning import Frontier, plan_query
from circinus.planning.settings import SearchSettings
from circinus.profiling import MeasurementTrace, PipelineProfile
from circinus.specification import Infrastructure, Network, Pipeline, Query, SloKind, Specification

MIXED = "mixed"
KINDS = 90
"""Number of kinds of each data set; the mixed workload has a third of them."""
WEIGHTS = 1.0, 2.0, 3.0, 5.0
RATE_PER_S = 0.1
"""Median rate; its logarithm has the standard deviation `RATE_SPREAD`."""
RATE_SPREAD = 0.8
PERCENTILES = 90.0, 95.0, 99.0
LEVELS = 0.1, 0.3, 0.5, 0.7, 0.9, 1.0
"""Quantiles of the accuracy over configurations."""
LATENCY_FACTORS = 1.05, 4.0
COST_FACTORS = 1.1, 4.0
COST_LIMITED = 1 / 3
SEARCH = SearchSettings(near_misses=0, max_margin_plans=0)
_NO_TIME_S = 1e-6


@dataclass(frozen=True)
class Workload:
    """Kinds of queries with their frontiers, and the infrastructure."""

    name: str
    pipelines: Mapping[str, Pipeline]
    traces: Mapping[str, MeasurementTrace]
    profiles: Mapping[str, PipelineProfile]
    infrastructure: Infrastructure
    frontiers: tuple[Frontier, ...]
    """Frontier of each kind; none is empty."""

    def drawn(self, count: int, seed: int) -> tuple[IntArray, IntArray]:
        """Draw queries: ((count,) kind, (count,) index of the weight). A smaller count gives a prefix."""
        shares = np.random.default_rng(seed).random((count, 2))
        indices = (shares * (len(self.frontiers), len(WEIGHTS))).astype(np.int64)
        return indices[:, 0], indices[:, 1]

    def queries(self, count: int, seed: int) -> tuple[Specification, dict[str, Frontier]]:
        """Return a specification of individual queries, and their frontiers by name."""
        frontiers = {}
        for index, (kind, weight) in enumerate(zip(*self.drawn(count, seed), strict=True)):
            frontier_of_kind, name = self.frontiers[kind], f"query-{index}"
            query = frontier_of_kind.query.model_copy(update={"name": name, "weight": WEIGHTS[weight]})
            candidates = tuple(replace(candidate, query=name) for candidate in frontier_of_kind.candidates)
            frontiers[name] = replace(frontier_of_kind, query=query, candidates=candidates)
        queries = tuple(frontier.query for frontier in frontiers.values())
        return Specification(dict(self.pipelines), self.infrastructure, queries), frontiers


@dataclass(frozen=True, eq=False)
class FluidWorkload:
    """All kinds with all weights, as classes of a fluid matching."""

    problem: RelaxedProblem
    class_of: IntArray
    """(kinds, weights)"""

    @classmethod
    def of(cls, workload: Workload) -> FluidWorkload:
        """Compile a workload with the product."""
        queries = [frontier.query for frontier in workload.frontiers]
        candidates: dict[str, Sequence[PlanCandidate]] = {f.query.name: f.candidates for f in workload.frontiers}
        problem = build_problem(queries, candidates, workload.infrastructure)
        view = RelaxedView.of(problem, problem.priority_levels.weight, np.ones(len(problem.candidates), dtype=bool))
        single = view.scaled(np.ones(len(problem.deployments)))
        weights = len(WEIGHTS)
        class_of = np.empty(len(queries), dtype=np.int64)
        for number, members in enumerate(view.queries):
            class_of[members] = number
        repeated = single.part(np.repeat(np.arange(single.classes), weights))
        weighted = replace(repeated, weight=np.tile(WEIGHTS, single.classes))
        return cls(weighted, class_of[:, None] * weights + np.arange(weights))

    def with_queries(self, kinds: IntArray, weights: IntArray) -> RelaxedProblem:
        """Return the problem of drawn queries."""
        counts = np.bincount(self.class_of[kinds, weights], minlength=self.problem.classes)
        present = np.flatnonzero(counts)
        return replace(self.problem.part(present), multiplicity=counts[present].astype(np.float64))

    def on_average(self, queries: float) -> RelaxedProblem:
        """Return the problem with the expected, fractional number of queries of each class."""
        counts = np.bincount(self.class_of.reshape(-1), minlength=self.problem.classes)
        return replace(self.problem, multiplicity=np.asarray(counts * (queries / self.class_of.size)))


def workloads(
    folder: Path,
    seed: int,
    *,
    kinds: int = KINDS,
    busier: float = 1.0,
    latency_factors: tuple[float, float] = LATENCY_FACTORS,
) -> Iterator[Workload]:
    """Yield the workload of each data set, and the mixed one with kinds of all.

    Args:
        folder: folder of the published traces.
        seed: seed of the measured population and of the kinds.
        kinds: number of kinds of each data set.
        busier: factor of the rates.
        latency_factors: bounds of latency limits over the tightest that can be guaranteed.

    Raises:
        TracesAbsentError: see `read_arenas`.
    """
    places = infrastructure()
    single = []
    for number, arena in enumerate(read_arenas(folder)):
        rng = np.random.default_rng([seed, number])
        name = arena.space.name
        trace, profile = profiled(without_dead_knob(arena).drawn(rng), name)
        planned = Kinds(trace.pipeline, profile, places, rng, RATE_PER_S * busier, latency_factors).drawn(kinds)
        single.append(Workload(name, {name: trace.pipeline}, {name: trace}, {name: profile}, places, planned))
        yield single[-1]
    yield Workload(
        MIXED,
        {name: pipeline for workload in single for name, pipeline in workload.pipelines.items()},
        {name: trace for workload in single for name, trace in workload.traces.items()},
        {name: profile for workload in single for name, profile in workload.profiles.items()},
        places,
        tuple(frontier for workload in single for frontier in workload.frontiers[:: len(single)]),
    )


class Kinds:
    """Sampler of kinds of one pipeline, with their plans."""

    def __init__(
        self,
        pipeline: Pipeline,
        profile: PipelineProfile,
        places: Infrastructure,
        rng: np.random.Generator,
        rate_per_s: float,
        latency_factors: tuple[float, float],
    ) -> None:
        self._pipeline, self._profile, self._network, self._rng = pipeline, profile, Network(places), rng
        self._sources = [site.name for site in places.sites if site.name.startswith("place-")]
        self._rate_per_s = rate_per_s
        self._latency_factors = latency_factors
        self._comparison = ">=" if pipeline.metric.direction == "maximize" else "<="
        self._thresholds = self._achievable()
        self._tightest_s: dict[tuple[float, float], float] = {}

    def drawn(self, count: int) -> tuple[Frontier, ...]:
        """Draw kinds with at least one plan."""
        frontiers: list[Frontier] = []
        while len(frontiers) < count:
            frontier = self._kind(f"{self._pipeline.name}-{len(frontiers)}")
            if frontier.candidates:
                frontiers.append(frontier)
        return tuple(frontiers)

    def _kind(self, name: str) -> Frontier:
        rng = self._rng
        percentile, threshold = float(rng.choice(PERCENTILES)), float(rng.choice(self._thresholds))
        source = self._sources[rng.integers(len(self._sources))]
        rate_per_s = self._rate_per_s * float(rng.lognormal(0.0, RATE_SPREAD))
        limit_s = self._tightest(percentile, threshold) * _factor(rng, self._latency_factors)
        slos = self._slos(percentile, limit_s, threshold)
        frontier = self._planned(name, source, rate_per_s, slos)
        if rng.random() >= COST_LIMITED or not frontier.candidates:
            return frontier
        cheapest = min(candidate.estimate.cost_usd_per_h.lower for candidate in frontier.candidates)
        limited = self._slos(percentile, limit_s, threshold, cheapest * _factor(rng, COST_FACTORS))
        return self._planned(name, source, rate_per_s, limited)

    def _tightest(self, percentile: float, threshold: float) -> float:
        """Return the tightest latency in seconds that the planner can guarantee at the median rate."""
        key = percentile, threshold
        if key not in self._tightest_s:
            slos = self._slos(percentile, _NO_TIME_S, threshold)
            impossible = self._planned("impossible", self._sources[0], self._rate_per_s, slos)
            self._tightest_s[key] = next(r.limit for r in impossible.relaxations if r.slo is SloKind.LATENCY)
        return self._tightest_s[key]

    def _achievable(self) -> tuple[float, ...]:
        """Return accuracies of configurations that fit on some pool, from loose to tight."""
        sign = 1.0 if self._comparison == ">=" else -1.0
        max_bytes = max(pool.memory_bytes for pool in self._network.pools_for(self._sources[0]))
        scores = [
            sign * (configuration.accuracy.lower if sign > 0 else configuration.accuracy.upper)
            for configuration in self._profile.configurations
            if max(operator.peak_memory_bytes for operator in configuration.operators.values()) <= max_bytes
        ]
        return tuple(sign * float(np.quantile(scores, level, method="lower")) for level in LEVELS)

    def _slos(self, percentile: float, limit_s: float, threshold: float, cost: float | None = None) -> dict[str, Any]:
        slos: dict[str, Any] = {
            "latency": {"percentile": percentile, "limit": limit_s},
            "accuracy": {"threshold": threshold, "comparison": self._comparison},
        }
        return slos if cost is None else {**slos, "cost": {"limit": cost}}

    def _planned(self, name: str, source: str, rate_per_s: float, slos: Mapping[str, Any]) -> Frontier:
        query = Query.model_validate(
            {"name": name, "pipeline": self._pipeline.name, "source": source, "rate": rate_per_s, "slos": slos}
        )
        return plan_query(query, self._pipeline, self._profile, self._network, SEARCH)


def _factor(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Draw a log-uniform factor between bounds."""
    return float(np.exp(rng.uniform(*np.log(bounds))))
