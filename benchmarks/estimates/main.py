"""Accuracy of estimates: against closed forms, simulated random plans and the local engine."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from benchmarks.estimates.closed_forms import closed_forms
from benchmarks.estimates.computing import COMPUTED, ComputingOptions
from benchmarks.estimates.local_engine import RealOptions, real_part, rows_table
from benchmarks.estimates.random_plans import grid
from benchmarks.estimates.real_plans import CHOICES
from benchmarks.estimates.replay import ReplayOptions
from benchmarks.estimates.scatter_plot import draw_scatter
from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult, Rows


def real(options: Options, console: Console) -> PartResult:
    """Compare predictions with the local engine, for the number of plans that the options name."""
    replay = ReplayOptions(options.replay_seconds, options.warm_up, options.engines, seed=0)
    computing = ComputingOptions(options.computing_seconds, options.warm_up, seed=0)
    return real_part(RealOptions(replay, computing, options.plans, options.computed_plans), options.state, console)


def report(rows: Rows, file: Path, console: Console) -> None:
    """Print the plans and draw the scatter plot beside the result file."""
    console.print(rows_table(rows))
    draw_scatter(rows, file.with_suffix(".svg"))


_REAL = (
    Option("replay_seconds", 360.0, "measured seconds at the highest load"),
    Option("computing_seconds", 150.0, "measured seconds of each load"),
    Option("warm_up", 10.0, "seconds of traffic before measuring"),
    Option("engines", 6, "number of plans replayed concurrently"),
    Option("plans", len(CHOICES), "number of plans that are replayed"),
    Option("computed_plans", len(COMPUTED), "number of plans with replicas that compute"),
)

BENCHMARK = Benchmark(
    options=(
        Option("requests", 1_000_000, "requests of each queue with a closed form", quick=100_000),
        Option("random_plans", 80, "random plans of each kind of arrivals", quick=4),
        Option("random_requests", 400_000, "simulated requests of each random plan", quick=40_000),
        *_REAL,
    ),
    parts=(
        Part("closed", lambda o, console: closed_forms(o.requests, console), ("requests",)),
        Part(
            "grid",
            lambda o, console: grid(o.random_plans, o.random_requests, console),
            ("random_plans", "random_requests"),
        ),
        Part("real", real, tuple(option.name for option in _REAL), quick=False, report=report),
    ),
)
