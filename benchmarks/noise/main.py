"""Service times and latencies measured beside other programs, against those on the quiet machine."""

from __future__ import annotations

from rich.console import Console

from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult
from benchmarks.noise.loads import loads_part
from benchmarks.noise.profiles import profiles_part


def profiles(options: Options, console: Console) -> PartResult:
    """Profile operators of several kinds beside busy processes."""
    return profiles_part(options.busy, options.repeats, options.items, console)


def loads(options: Options, console: Console) -> PartResult:
    """Compare predicted latencies of plans of the examples with those under load on this machine."""
    return loads_part(options.plans, options.load_seconds, console)


BENCHMARK = Benchmark(
    options=(
        Option("busy", (0, 1, 2, 4), "numbers of busy processes"),
        Option("repeats", 3, "profiles beside each number of busy processes", quick=1),
        Option("items", 80, "items of a profile", quick=40),
        Option("plans", 4, "plans of the examples under three loads each"),
        Option("load_seconds", 60.0, "measured seconds of each load"),
    ),
    parts=(
        Part("profiles", profiles, ("busy", "repeats", "items")),
        Part("loads", loads, ("plans", "load_seconds"), quick=False),
    ),
)
