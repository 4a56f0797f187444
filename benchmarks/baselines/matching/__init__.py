"""Alternative matchings of many queries, by their published descriptions; none uses prices of resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.baselines.matching.bipartite import query_plan_bipartite
from benchmarks.baselines.matching.first_come import first_come_first_served, first_come_next_best
from benchmarks.baselines.matching.greedy import weight_per_dominant_resource
from benchmarks.baselines.matching.hill_climbing import utility_hill_climbing
from circinus.arrays import IntArray
from circinus.matching.lagrangian import RelaxedProblem

Baseline = Callable[[RelaxedProblem], IntArray]
"""(N,) plan of each query, -1 for none."""

BASELINES: Mapping[str, Baseline] = {
    "first come first served": first_come_first_served,
    "first come, next best plan": first_come_next_best,
    "greedy by weight": weight_per_dominant_resource,
    "VideoStorm-style": utility_hill_climbing,
    "paper-style bipartite": query_plan_bipartite,
}
