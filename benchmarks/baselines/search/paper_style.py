"""The way of the Circinus paper itself (Liu et al., arXiv 2504.16397), as we understand it.

Plans of one configuration are alike: it is profiled once, and all its placements are computed from that; what shares a
prefix is not run twice. Configurations are chosen by Bayesian optimisation of how well their best plan keeps the SLOs,
warm-started from plans that were good for similar queries. Profiling goes in increments over a sample that is
stratified by K-means clusters of the items, and stops early where the imprecise estimate is clear enough.

What is ours, as we know no details of it: the clusters are of the items' recorded conditions; "clear" is three standard
errors (of a simple random sample) from the threshold; the utility is 2 less the cost over its limit where the SLOs are
kept, else less the violations; the search ends when no improvement of 0.1 % of the cost limit is expected any more.
Of a handful of settings these found most, on other seeds than those of the race: looser ones cost half as much and
find a tenth less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.search.gaussian_process import GridProcess, expected_improvement
from benchmarks.baselines.search.item_clusters import clustered_order
from benchmarks.baselines.search.knob_encoding import knob_positions
from benchmarks.baselines.search.measured_plans import cheapest_plan, mean_scores, placeable
from benchmarks.search.arena import Arena
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case
from circinus.arrays import FloatArray, IntArray
from circinus.profiling.confidence_sequences import one_hot_strata

_KEPT = 2.0
"""Utility of keeping the SLOs for nothing; violations begin at 0, keeping them at the cost limit is worth 1."""


@dataclass(frozen=True, eq=False)
class Earlier:
    """The same pipeline on other data."""

    scores: FloatArray
    """(k,) mean of each configuration."""
    cost_usd_per_h: FloatArray
    """(k,) of its cheapest plan."""
    sign: float
    """1 where greater scores are better, else -1."""

    @classmethod
    def of(cls, arena: Arena) -> Earlier:
        """What measuring all of an arena shows."""
        return cls(arena.means, arena.cost_usd_per_h.min(axis=1), arena.space.sign)

    def frontier(self, candidates: IntArray) -> IntArray:
        """Those candidates that no other beats in score and cost, cheapest first."""
        score, cost = self.sign * self.scores[candidates], self.cost_usd_per_h[candidates]
        order: IntArray = candidates[np.lexsort((-score, cost))]
        best = np.maximum.accumulate(self.sign * self.scores[order])
        return np.asarray(order[np.concatenate([[True], best[1:] > best[:-1]])])


@dataclass(frozen=True, eq=False)
class PaperStyle:
    """Charged: the items that it measures, prefixes once an item.

    The answer is the cheapest plan whose estimate keeps the SLOs when the search ends; none: it is called infeasible.
    """

    earlier: Earlier | None = None
    """What a similar query has shown; None: there was none."""
    first_configurations: int = 8
    most_configurations: int = 40
    clusters: int = 8
    increment: int = 30
    standard_errors: float = 3.0
    least_improvement: float = 0.001
    reuse_prefixes: bool = True

    @property
    def name(self) -> str:
        """What tables call it."""
        return "paper-style" if self.earlier is None else "paper-style, warm"

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        meter.arrange(clustered_order(one_hot_strata(meter.space.strata), self.clusters, rng))
        process = GridProcess(knob_positions(meter.space))
        candidates = placeable(meter)
        seen = self._first(candidates, rng)
        values = [self._profiled(case, meter, k) for k in seen]
        while len(seen) < min(self.most_configurations, len(candidates)):
            left = np.setdiff1d(candidates, seen)
            mean, std = process.posterior(np.array(seen), np.array(values))
            improvement = expected_improvement(mean[left], std[left], max(values))
            if improvement.max() < self.least_improvement:
                break
            chosen = int(left[improvement.argmax()])
            seen.append(chosen)
            values.append(self._profiled(case, meter, chosen))
        return cheapest_plan(case, meter, case.accurate(mean_scores(meter)))

    def _first(self, candidates: IntArray, rng: np.random.Generator) -> list[int]:
        """At random; after a similar query half of them from its frontier, evenly."""
        chosen: list[int] = []
        if self.earlier is not None:
            frontier = self.earlier.frontier(candidates)
            count = min(self.first_configurations // 2, len(frontier))
            chosen = [int(k) for k in frontier[np.linspace(0, len(frontier) - 1, count).round().astype(int)]]
        others = rng.permutation(np.setdiff1d(candidates, chosen))
        return chosen + [int(k) for k in others[: self.first_configurations - len(chosen)]]

    def _profiled(self, case: Case, meter: Meter, configuration: int) -> float:
        """Measure in increments until it is clear on which side of the threshold it is, and value it."""
        while meter.items[configuration] < meter.space.items:
            meter.measure(configuration, self.increment)
            within = case.affordable(meter.latency_s[configuration], meter.cost_usd_per_h[configuration])
            scores = meter.scores(configuration)
            left = 1.0 - len(scores) / meter.space.items
            error = float(scores.std(ddof=1)) * np.sqrt(left / len(scores)) if len(scores) > 1 else np.inf
            if not within.any() or abs(scores.mean() - case.threshold) > self.standard_errors * error:
                break
        return self._utility(case, meter, configuration)

    def _utility(self, case: Case, meter: Meter, configuration: int) -> float:
        latency_s, cost = meter.latency_s[configuration], meter.cost_usd_per_h[configuration]
        short = case.sign * (case.threshold - float(meter.scores(configuration).mean()))
        fits = np.isfinite(latency_s)
        late = np.maximum(latency_s[fits] / max(case.latency_s, 1e-12) - 1.0, 0.0)
        dear = np.maximum(cost[fits] / max(case.cost_usd_per_h, 1e-12) - 1.0, 0.0)
        violations = np.minimum(late, 1.0) + np.minimum(dear, 1.0) + max(short, 0.0)
        kept = _KEPT - cost[fits] / max(case.cost_usd_per_h, 1e-12)
        return float(np.where(violations > 0, -violations, kept).max())
