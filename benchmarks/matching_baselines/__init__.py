"""What else chooses plans for many queries, each by its description; none is told the prices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.matching_baselines.bipartite import query_plan_bipartite
from benchmarks.matching_baselines.first_come import first_come_first_served, first_come_next_best
from benchmarks.matching_baselines.greedy import weight_per_dominant_resource
from benchmarks.matching_baselines.hill_climbing import utility_hill_climbing
from circinus.matching.prices.answer import ExpandedQueries
from circinus.matching.prices.fluid import IntArray

Baseline = Callable[[ExpandedQueries], IntArray]
"""(N,) plan of each query, -1 for none."""

BASELINES: Mapping[str, Baseline] = {
    "first come first served": first_come_first_served,
    "first come, next best plan": first_come_next_best,
    "greedy by weight": weight_per_dominant_resource,
    "VideoStorm-style": utility_hill_climbing,
    "paper-style bipartite": query_plan_bipartite,
}
