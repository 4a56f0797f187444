"""Circinus and other planners on the same queries."""

from __future__ import annotations

from benchmarks.evaluation.goodput import goodput
from benchmarks.evaluation.published import TIGHTNESS
from benchmarks.harness.benchmark import Benchmark, Option, Part

BENCHMARK = Benchmark(
    options=(
        Option("loads", (0.5, 1.0, 2.0, 4.0), "multiples of the load that all tiers serve", quick=(2.0,)),
        Option("seeds", 2, "number of seeds", quick=1),
        Option("tightness", tuple(TIGHTNESS), "levels of objectives", quick=("mixed",), choices=tuple(TIGHTNESS)),
    ),
    parts=(
        Part(
            "goodput",
            lambda o, console: goodput(o.loads, range(o.seeds), o.tightness, console),
            ("loads", "seeds", "tightness"),
        ),
    ),
)
