"""Matching of many queries by prices, compared with other planners."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Option, Part, PartResult
from benchmarks.harness.results import Figure
from benchmarks.matching.goodput_over_load import SEEDS, load_curve
from benchmarks.matching.online_admission import RUNNING, online
from benchmarks.matching.refined_search import solve_refined
from benchmarks.matching.scaling import SIZES, sizes
from benchmarks.workloads.random.small_matchings import best_of_all
from benchmarks.workloads.random.small_matchings import small as small_matching
from circinus.matching.solvers.highs import solve_milp

_SMALL_LIMIT_S = 60.0
_ROUNDING = 1e-6


def small(count: int) -> PartResult:
    """Compare small random matchings with brute force."""
    equal = 0
    for seed in range(count):
        problem = small_matching(np.random.default_rng(seed))
        answer = solve_refined(problem, minimise=solve_milp, time_limit_s=_SMALL_LIMIT_S)
        weight, cost = best_of_all(problem)
        equal += abs(answer.weight - weight) <= _ROUNDING and abs(answer.cost_usd_per_h - cost) <= _ROUNDING
    share = equal / count
    note = f"of {count:,} random ones, in weight and in cost"
    return [Figure("small matchings equal to the best of all answers", share, 1.0, "higher", "share", note)], []


BENCHMARK = Benchmark(
    options=(
        Option("seeds", 5, "matchings of each size", quick=1),
        Option("largest", SIZES[-1], "number of queries of the largest matching", quick=100),
        Option("small", 3_000, "number of small matchings compared with brute force", quick=300),
        Option("load_seeds", SEEDS, "seeds of goodput over load"),
    ),
    parts=(
        Part("small", lambda o, _: small(o.small), ("small",)),
        Part("sizes", lambda o, console: sizes(range(o.seeds), o.largest, console), ("seeds", "largest")),
        Part("online", lambda o, console: online(min(RUNNING, o.largest), console), ("largest",)),
        Part("load", lambda o, console: load_curve(range(o.load_seeds), console), ("load_seeds",), quick=False),
    ),
)
