"""Plans of all queries against what is possible."""

from __future__ import annotations

from benchmarks.harness.benchmark import Benchmark, Option, Part
from benchmarks.possible.ablation import ablation
from benchmarks.possible.divided_requests import published_settings, random_instances
from benchmarks.possible.fitted_plans import lone_queries

BENCHMARK = Benchmark(
    options=(
        Option("random", 1_000, "number of random instances with divided requests", quick=50),
        Option("lone", 200, "number of applications with a lone query", quick=20),
        Option("applications", 80, "number of random applications of the ablation", quick=10),
    ),
    parts=(
        Part("random", lambda o, console: random_instances(o.random, console), ("random",)),
        Part("published", lambda _, console: published_settings(console)),
        Part("lone", lambda o, console: lone_queries(o.lone, console), ("lone",)),
        Part("ablation", lambda o, console: ablation(o.applications, console), ("applications",)),
    ),
)
