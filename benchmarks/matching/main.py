"""Matching of many queries by prices, compared with other planners."""

from __future__ import annotations

from benchmarks.harness.benchmark import Benchmark, Option, Part, PartResult
from benchmarks.harness.results import Figure
from benchmarks.matching.goodput_over_load import SEEDS, load_curve
from benchmarks.matching.online_admission import RUNNING, online
from benchmarks.matching.scaling import SIZES, sizes
from benchmarks.workloads.random.small_matchings import equal_share


def small(count: int) -> PartResult:
    """Compare small random matchings with brute force."""
    share = equal_share(range(count))
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
