"""Times of commands from the shell (planning against `--help`, profiling within budgets), and of the simulator."""

from __future__ import annotations

from rich.console import Console

from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult
from benchmarks.speed.budgets import budgets_part
from benchmarks.speed.commands import commands_part
from benchmarks.speed.profiling import profiling_part
from benchmarks.speed.simulator import simulator_part


def commands(options: Options, console: Console) -> PartResult:
    """Time plan and explain on the meeting example, as it is and with a hundred queries."""
    return commands_part(options.state, options.profile_seconds, options.repeats, console)


def profiling(options: Options, console: Console) -> PartResult:
    """Profile cheap operators until settled, exhaustively, and within budgets."""
    return profiling_part(options.budgets, options.profile_repeats, console)


def kept_budgets(options: Options, console: Console) -> PartResult:
    """Profile the starter, the examples and a published trace within a budget."""
    return budgets_part(options.application_budget, console)


BENCHMARK = Benchmark(
    options=(
        Option("profile_seconds", 100.0, "budget of profiling the meeting example", quick=20.0),
        Option("repeats", 5, "runs of each command", quick=2),
        Option("budgets", (5.0, 30.0, 240.0), "budgets of profiling in seconds", quick=(5.0,)),
        Option("application_budget", 30.0, "budget of profiling each application in seconds", quick=5.0),
        Option("profile_repeats", 3, "runs of each way of profiling", quick=1),
        Option("requests", 1_000_000, "simulated requests of each case", quick=100_000),
    ),
    parts=(
        Part("commands", commands, ("profile_seconds", "repeats")),
        Part("profiling", profiling, ("budgets", "profile_repeats")),
        Part("budgets", kept_budgets, ("application_budget",)),
        Part("simulator", lambda o, console: simulator_part(o.requests, console), ("requests",)),
    ),
)
