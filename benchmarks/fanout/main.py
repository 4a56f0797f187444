"""Pipelines with lists and branches: waits, plans and the driving example."""

from __future__ import annotations

from benchmarks.fanout.batch_queues import batch_queues
from benchmarks.fanout.driving import cascade, ignored
from benchmarks.fanout.engine import engine
from benchmarks.fanout.frontier_plot import draw_frontiers
from benchmarks.fanout.frontiers import frontiers
from benchmarks.fanout.random_plans import fan_out_plans
from benchmarks.harness.benchmark import Benchmark, Option, Part

BENCHMARK = Benchmark(
    options=(
        Option("items", 30_000, "items of each queue with batch arrivals", quick=4_000),
        Option("pipelines", 1_000, "small pipelines whose plans are all listed", quick=60),
        Option("random_plans", 100, "random plans with lists and branches", quick=6),
        Option("random_requests", 200_000, "simulated requests of each random plan", quick=20_000),
        Option("seconds", 150.0, "measured seconds of each load on the local engine"),
        Option("clips", 40, "clips of the driving example that each configuration is measured on"),
    ),
    parts=(
        Part("closed", lambda o, console: batch_queues(o.items, console), ("items",)),
        Part("frontiers", lambda o, console: frontiers(o.pipelines, console), ("pipelines",)),
        Part(
            "plans",
            lambda o, console: fan_out_plans(o.random_plans, o.random_requests, console),
            ("random_plans", "random_requests"),
        ),
        Part(
            "cascade",
            lambda o, console: cascade(o.state, o.clips, console),
            ("clips",),
            quick=False,
            report=draw_frontiers,
        ),
        Part("ignored", lambda o, console: ignored(o.state, o.clips, console), ("clips",), quick=False),
        Part("engine", lambda o, console: engine(o.state, o.seconds, console), ("seconds",), quick=False),
    ),
)
