"""Plans of all queries against what is possible."""

from __future__ import annotations

from benchmarks.harness.benchmark import Benchmark, Option, Part
from benchmarks.possible.ablation import ablation, ablation_on_meeting, ablation_on_traces
from benchmarks.possible.as_deployed import as_deployed
from benchmarks.possible.at_scale import MANY, at_scale
from benchmarks.possible.divided_requests import published_settings, random_instances
from benchmarks.possible.fitted_plans import lone_queries
from benchmarks.possible.sizes import random_sizes
from benchmarks.possible.split_routes import split_routes
from benchmarks.possible.three_tiers import three_tiers
from benchmarks.possible.whole_problem import with_latency_slos, without_latency_slos

BENCHMARK = Benchmark(
    options=(
        Option("random", 1_000, "number of random instances with divided requests", quick=50),
        Option("programs", 700, "number of random instances without latency SLOs", quick=20),
        Option("enumerated", 300, "number of random instances with latency SLOs", quick=30),
        Option("lone", 200, "number of applications with a lone query", quick=20),
        Option("split_seconds", 20.0, "measured seconds of each split plan under load"),
        Option("deployed", 1, "number of populations of each trace workload, as deployed", quick=1),
        Option("sizes", 200, "number of random instances of machines that are sized", quick=20),
        Option("applications", 80, "number of random applications of the ablation", quick=10),
        Option("profile_s", 50.0, "seconds of profiling each pipeline of the meeting example"),
        Option("draws", 8, "number of draws of five queries over three tiers", quick=2),
        Option("largest", MANY, "number of queries of the largest matching", quick=100),
    ),
    parts=(
        Part("random", lambda o, console: random_instances(o.random, console), ("random",)),
        Part("programs", lambda o, console: without_latency_slos(o.programs, console), ("programs",)),
        Part("enumerated", lambda o, console: with_latency_slos(o.enumerated, console), ("enumerated",)),
        Part("published", lambda _, console: published_settings(console)),
        Part("lone", lambda o, console: lone_queries(o.lone, console), ("lone",)),
        Part("tiers", lambda o, console: three_tiers(o.draws, console), ("draws",)),
        Part(
            "routes", lambda o, console: split_routes(o.split_seconds, True, console), ("split_seconds",), quick=False
        ),
        Part("deployed", lambda o, console: as_deployed(range(o.deployed), console), ("deployed",)),
        Part("sizes", lambda o, console: random_sizes(o.sizes, console), ("sizes",)),
        Part("scale", lambda o, console: at_scale(o.largest, console), ("largest",)),
        Part("ablation", lambda o, console: ablation(o.applications, console), ("applications",)),
        Part("traces", lambda _, console: ablation_on_traces(console), quick=False),
        Part(
            "meeting",
            lambda o, console: ablation_on_meeting(o.state, o.profile_s, console),
            ("profile_s",),
            quick=False,
        ),
    ),
)
