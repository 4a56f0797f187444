"""Overhead of engines, and their behaviour under plan changes, bursts, crashes, lost nodes and drift."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.control.bursts import bursts
from benchmarks.control.crash_recovery import kills
from benchmarks.control.drift import DriftOptions, drifts
from benchmarks.control.drift_false_alarms import QuietOptions, false_alarms
from benchmarks.control.simulated_day import DayOptions, day
from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult
from benchmarks.serving.engine_overhead import HopOptions, hops
from benchmarks.serving.node_loss import lost_nodes
from benchmarks.serving.overload import overload
from benchmarks.serving.plan_changes import changes
from benchmarks.workloads import burst_shop, drifting_till
from benchmarks.workloads.published.speech import traces_folder


def _bursts(options: Options, console: Console) -> PartResult:
    with tempfile.TemporaryDirectory(prefix="circinus-bursts-") as folder:
        return bursts(burst_shop.prepared(Path(folder)), options.repeats, console)


def _kills(options: Options, console: Console) -> PartResult:
    with tempfile.TemporaryDirectory(prefix="circinus-kills-") as folder:
        return kills(burst_shop.prepared(Path(folder)), options.kills, options.seed, console)


def _drift(options: Options, console: Console) -> PartResult:
    with tempfile.TemporaryDirectory(prefix="circinus-drift-") as folder:
        scene = drifting_till.prepared(Path(folder))
        return drifts(scene, DriftOptions(repeats=options.drifts, seed=options.seed), console)


def _quiet(options: Options, console: Console) -> PartResult:
    with tempfile.TemporaryDirectory(prefix="circinus-quiet-") as folder:
        quiet = QuietOptions(options.quiet_days, options.quiet_hours, options.seed)
        return false_alarms(drifting_till.prepared(Path(folder)).opened, quiet, console)


def _day(options: Options, console: Console) -> PartResult:
    return day(DayOptions(traces_folder(), hours=options.day_hours, seed=options.seed), console)


BENCHMARK = Benchmark(
    options=(
        Option("requests", 400, "sequential requests of each way to run the pipeline", quick=100),
        Option("repeats", 3, "repeats, of which medians are given", quick=1),
        Option("kills", 20, "number of killed controllers, and of killed replicas"),
        Option("seed", 0, "seed of kill times and of drift"),
        Option("drifts", 1, "repeats of drifting data and of slower operators, 3.5 minutes together"),
        Option("quiet_days", 100.0, "simulated days without drift", quick=2.0),
        Option("quiet_hours", 2.0, "simulated hours without drift with the whole controller", quick=0.25),
        Option("overload_s", 60.0, "seconds of traffic of each load beyond the capacity", quick=12.0),
        Option("day_hours", 24.0, "simulated hours of the day", quick=3.0),
    ),
    parts=(
        Part("hops", lambda o, console: hops(HopOptions(o.requests, o.repeats), console), ("requests", "repeats")),
        Part("changes", lambda o, console: changes(o.repeats, console), ("repeats",)),
        Part("overload", lambda o, console: overload(o.overload_s, o.seed, console), ("overload_s", "seed")),
        Part("bursts", _bursts, ("repeats",), quick=False),
        Part("kills", _kills, ("kills", "seed"), quick=False),
        Part("lost-node", lambda o, console: lost_nodes(o.repeats, console), ("repeats",), quick=False),
        Part("drift", _drift, ("drifts", "seed"), quick=False),
        Part("quiet", _quiet, ("quiet_days", "quiet_hours", "seed"), quick=False),
        Part("day", _day, ("day_hours", "seed"), quick=False),
    ),
)
