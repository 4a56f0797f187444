"""Many queries on the published traces, planned by the product: speech, video, and all of them on the same machines.

Nothing that a plan takes is made by hand. A *kind* of query has a pipeline, a source, a rate and objectives, and the
frontier that the planner finds for just these from everything measured. Queries are drawn from the kinds and have a
weight each; the more there are, the higher is the load, and the queries of a load are among those of a higher one.

Objectives are drawn by what can be promised at all: the accuracy is a quantile of what configurations reach that fit
somewhere, the latency limit is the tightest that the planner can promise at that accuracy, times 1.05 to 4, and one
kind in three has a cost limit of 1.1 to 4 times its cheapest plan. So each is servable with the machines to itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads.published.profiles import profiled, without_dead_knob
from benchmarks.workloads.published.sites import PLACES, infrastructure
from benchmarks.workloads.published.traces import read_arenas
from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.lagrangian import RelaxedProblem
from circinus.matching.lagrangian.relaxation import RelaxedView
from circinus.matching.problem_builder import build_problem
from circinus.planning import Frontier, plan_query
from circinus.planning.settings import SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Infrastructure, Network, Pipeline, Query, Specification

MIXED = "mixed"
KINDS = 90
"""Of each data set; the mixed workload has a third of them."""
WEIGHTS = 1.0, 2.0, 3.0, 5.0
RATE_PER_S = 0.1
"""Median; the logarithm of a rate deviates by `RATE_SPREAD`."""
RATE_SPREAD = 0.8
PERCENTILES = 90.0, 95.0, 99.0
LEVELS = 0.1, 0.3, 0.5, 0.7, 0.9, 1.0
"""Quantiles of the accuracy that configurations reach."""
LATENCY_FACTORS = 1.05, 4.0
COST_FACTORS = 1.1, 4.0
COST_LIMITED = 1 / 3
SEARCH = SearchSettings(near_misses=0, max_margin_plans=0)
_NO_TIME_S = 1e-6


@dataclass(frozen=True)
class Workload:
    """Kinds of queries with their frontiers, and where they run."""

    name: str
    pipelines: Mapping[str, Pipeline]
    profiles: Mapping[str, PipelineProfile]
    infrastructure: Infrastructure
    frontiers: tuple[Frontier, ...]
    """Of each kind; none is empty."""

    def drawn(self, count: int, seed: int) -> tuple[IntArray, IntArray]:
        """((count,) kind, (count,) number of the weight) of queries as they come; the first are those of fewer."""
        shares = np.random.default_rng(seed).random((count, 2))
        found = (shares * (len(self.frontiers), len(WEIGHTS))).astype(np.int64)
        return found[:, 0], found[:, 1]

    def queries(self, count: int, seed: int) -> tuple[Specification, dict[str, Frontier]]:
        """A specification of single queries, and their frontiers by name."""
        frontiers = {}
        for number, (kind, weight) in enumerate(zip(*self.drawn(count, seed), strict=True)):
            known, name = self.frontiers[kind], f"query-{number}"
            query = known.query.model_copy(update={"name": name, "weight": WEIGHTS[weight]})
            candidates = tuple(replace(candidate, query=name) for candidate in known.candidates)
            frontiers[name] = replace(known, query=query, candidates=candidates)
        queries = tuple(frontier.query for frontier in frontiers.values())
        return Specification(dict(self.pipelines), self.infrastructure, queries), frontiers


@dataclass(frozen=True, eq=False)
class FluidWorkload:
    """All kinds with all weights as classes of a fluid matching."""

    problem: RelaxedProblem
    class_of: IntArray
    """(kinds, weights)"""

    @classmethod
    def of(cls, workload: Workload) -> FluidWorkload:
        """Compiled by the product."""
        queries = [frontier.query for frontier in workload.frontiers]
        candidates: dict[str, Sequence[PlanCandidate]] = {f.query.name: f.candidates for f in workload.frontiers}
        problem = build_problem(
            queries, candidates, workload.infrastructure, usable_link_share=SEARCH.usable_link_share
        )
        view = RelaxedView.of(problem, np.ones(len(problem.candidates), dtype=bool))
        single = view.scaled(np.ones(len(problem.deployments)))
        weights = len(WEIGHTS)
        class_of = np.empty(len(queries), dtype=np.int64)
        for number, members in enumerate(view.queries):
            class_of[members] = number
        every = single.part(np.repeat(np.arange(single.classes), weights))
        whole = replace(every, weight=np.tile(WEIGHTS, single.classes))
        return cls(whole, class_of[:, None] * weights + np.arange(weights))

    def with_queries(self, kinds: IntArray, weights: IntArray) -> RelaxedProblem:
        """Where so many queries of each class are drawn."""
        times = np.bincount(self.class_of[kinds, weights], minlength=self.problem.classes)
        kept = np.flatnonzero(times)
        return replace(self.problem.part(kept), multiplicity=times[kept].astype(np.float64))

    def on_average(self, queries: float) -> RelaxedProblem:
        """Where as many queries of each class come as do on average; these are fractions."""
        times = np.bincount(self.class_of.reshape(-1), minlength=self.problem.classes)
        return replace(self.problem, multiplicity=np.asarray(times * (queries / self.class_of.size)))


def workloads(folder: Path, seed: int, *, kinds: int = KINDS, busier: float = 1.0) -> Iterator[Workload]:
    """Of each data set, and the mixed one, whose kinds are among theirs.

    Args:
        folder: of the published traces.
        seed: of the population that is measured, and of the kinds.
        kinds: of each data set.
        busier: times the usual rates.

    Raises:
        TracesAbsentError: see `read_arenas`.
    """
    where = infrastructure()
    found = []
    for number, arena in enumerate(read_arenas(folder)):
        rng = np.random.default_rng([seed, number])
        name = arena.space.name
        pipeline, profile = profiled(without_dead_knob(arena).drawn(rng), name)
        planned = _Kinds(pipeline, profile, Network(where), rng, busier).drawn(kinds)
        found.append(Workload(name, {name: pipeline}, {name: profile}, where, planned))
        yield found[-1]
    yield Workload(
        MIXED,
        {name: pipeline for one in found for name, pipeline in one.pipelines.items()},
        {name: profile for one in found for name, profile in one.profiles.items()},
        where,
        tuple(frontier for one in found for frontier in one.frontiers[:: len(found)]),
    )


class _Kinds:
    """Draws kinds of one pipeline and plans them."""

    def __init__(
        self,
        pipeline: Pipeline,
        profile: PipelineProfile,
        network: Network,
        rng: np.random.Generator,
        busier: float,
    ) -> None:
        self._pipeline, self._profile, self._network, self._rng = pipeline, profile, network, rng
        self._rate_per_s = RATE_PER_S * busier
        self._comparison = ">=" if pipeline.metric.direction == "maximize" else "<="
        self._thresholds = self._achievable()
        self._least_s: dict[tuple[float, float], float] = {}

    def drawn(self, count: int) -> tuple[Frontier, ...]:
        """That many that have a plan."""
        found: list[Frontier] = []
        while len(found) < count:
            frontier = self._kind(f"{self._pipeline.name}-{len(found)}")
            if frontier.candidates:
                found.append(frontier)
        return tuple(found)

    def _kind(self, name: str) -> Frontier:
        rng = self._rng
        percentile, threshold = float(rng.choice(PERCENTILES)), float(rng.choice(self._thresholds))
        source = f"place-{rng.integers(PLACES)}"
        rate_per_s = self._rate_per_s * float(rng.lognormal(0.0, RATE_SPREAD))
        limit_s = self._least(percentile, threshold) * _factor(rng, LATENCY_FACTORS)
        slos = self._slos(percentile, limit_s, threshold)
        frontier = self._planned(name, source, rate_per_s, slos)
        if rng.random() >= COST_LIMITED or not frontier.candidates:
            return frontier
        least = min(candidate.estimate.cost_usd_per_h.lower for candidate in frontier.candidates)
        limited = self._slos(percentile, limit_s, threshold, least * _factor(rng, COST_FACTORS))
        return self._planned(name, source, rate_per_s, limited)

    def _least(self, percentile: float, threshold: float) -> float:
        """Seconds: the tightest latency that the planner can promise at a usual rate."""
        key = percentile, threshold
        if key not in self._least_s:
            slos = self._slos(percentile, _NO_TIME_S, threshold)
            impossible = self._planned("impossible", "place-0", self._rate_per_s, slos)
            self._least_s[key] = next(r.limit for r in impossible.relaxations if r.slo == "latency")
        return self._least_s[key]

    def _achievable(self) -> tuple[float, ...]:
        """Accuracies that configurations reach which fit somewhere, from loose to tight."""
        sign = 1.0 if self._comparison == ">=" else -1.0
        most = max(pool.memory_bytes for pool in self._network.pools_for("place-0"))
        scores = [
            sign * (configuration.accuracy.lower if sign > 0 else configuration.accuracy.upper)
            for configuration in self._profile.configurations
            if max(operator.peak_memory_bytes for operator in configuration.operators.values()) <= most
        ]
        return tuple(sign * float(np.quantile(scores, level, method="lower")) for level in LEVELS)

    def _slos(self, percentile: float, limit_s: float, threshold: float, cost: float | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "latency": {"percentile": percentile, "limit": limit_s},
            "accuracy": {"threshold": threshold, "comparison": self._comparison},
        }
        return found if cost is None else {**found, "cost": {"limit": cost}}

    def _planned(self, name: str, source: str, rate_per_s: float, slos: Mapping[str, Any]) -> Frontier:
        query = Query.model_validate(
            {"name": name, "pipeline": self._pipeline.name, "source": source, "rate": rate_per_s, "slos": slos}
        )
        return plan_query(query, self._pipeline, self._profile, self._network, SEARCH)


def _factor(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Between bounds; its logarithm is uniform."""
    return float(np.exp(rng.uniform(*np.log(bounds))))
