"""The main job on a real speech pipeline: profile, plan, apply, send traffic, and compare with two simple choices.

Called by `make demo`. The models really run while profiling and recording; serving replays what was recorded, on
held-out items, so that one machine stands in for devices, an edge server and a cloud.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, time

from rich.console import Console

from benchmarks.baselines.by_hand import BEST_IN_THE_CLOUD, CHEAPEST_ON_THE_DEVICE, fixed_matching
from benchmarks.demo.report import comparison, row
from benchmarks.harness.results import FOLDER, Figure, print_figures, write_results
from circinus.api.traffic_items import count_profiled_items, select_traffic_items
from circinus.matching import Matching, plan_all_queries
from circinus.profiling import PipelineProfile, load_profile, profile_pipeline, record_for_replay
from circinus.reporting.plan_table import plan_table
from circinus.reporting.profile_table import profile_table
from circinus.reporting.progress import load_bar, profile_bar
from circinus.serving import Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.loadtest.load_report import LoadReport
from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from circinus.serving.local.client import start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.specification import Specification
from circinus.specification.formatting import format_duration
from circinus.specification.loader import load_specification

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "meeting"
BUILD = ROOT / "build"
OURS = "Circinus"
_SLICE_S = 40.0
"""Of measuring on, before planning again."""


@dataclass(frozen=True)
class DemoOptions:
    """How long each part may take."""

    state: Path
    budget_s: float
    more_s: float
    items: int
    duration_s: float
    warm_up_s: float
    seed: int
    rate_factor: float
    results: Path


def main() -> None:
    """Run the demo."""
    options, fresh = read_options()
    started = perf_counter()
    console = Console() if sys.stdout.isatty() else Console(width=120)  # as wide as logs are shown
    if fresh and options.state.exists():
        shutil.rmtree(options.state)
    options.state.mkdir(parents=True, exist_ok=True)
    specification = load_specification([EXAMPLE])
    store = options.state / "profiles.sqlite"

    console.rule("1. Profile: the models really run")
    measured = _profile(specification, store, options, console)
    console.rule("2. Plan: all queries together")
    profiles, matching, planning_s = _planned(specification, store)
    more_s = options.more_s
    while (short := unmeasured(matching)) and more_s > 0:  # how much is measured in the budget is up to the machine
        console.print(f"{len(short)} queries lack measurements on this machine: measuring on", highlight=False)
        slice_s = min(_SLICE_S, more_s)
        lacking = {query.pipeline for query in specification.queries if query.name in short}
        for name in sorted(lacking):
            measured.append(_profile_one(specification, name, store, slice_s / len(lacking), console))
        more_s -= slice_s
        profiles, matching, planning_s = _planned(specification, store)
    console.print(plan_table(matching, {query.name: query for query in specification.queries}))
    console.print(f"planned {len(specification.queries)} queries in {format_duration(planning_s)}", highlight=False)
    strategies = {
        OURS: matching,
        **{
            choice.name: fixed_matching(specification, profiles, choice)
            for choice in (BEST_IN_THE_CLOUD, CHEAPEST_ON_THE_DEVICE)
        },
    }
    console.rule("3. Record the chosen configurations on held-out items")
    _record(specification, strategies, store, options, console)
    console.rule("4. Apply, send traffic, measure: the plans and two simple choices side by side")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        reports = runner.run(_serve(specification, strategies, store, options, console))

    console.print(comparison(strategies, reports))
    if short:
        console.print(
            f"{OURS} rejected {len(short)} queries of which too little was measured to promise anything: this machine "
            f"is slow or busy. Call make demo again, and it measures on from here.",
            style="yellow",
        )
    figures = _figures(specification, measured, strategies, reports, planning_s, store, options.items)
    since_make_s = time() - float(os.environ.get("DEMO_STARTED", time() - (perf_counter() - started)))
    figures.append(
        Figure(
            "demo, installation included where it was needed", since_make_s, 360.0, "lower", "s", "whole `make demo`"
        )
    )
    print_figures(figures, console)
    path = write_results(
        "demo",
        figures=figures,
        rows=[row(name, strategies[name], q) for name, report in reports.items() for q in report.queries],
        seeds=[options.seed],
        wall_s=perf_counter() - started,
        folder=options.results,
    )
    console.print(f"written to {os.path.relpath(path)}", highlight=False)


def read_options(arguments: Sequence[str] | None = None) -> tuple[DemoOptions, bool]:
    """What was asked for, by default on the command line, and whether to begin from nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo.main", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget what earlier calls measured")
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "demo", help="folder of the profile store")
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of profiling")
    parser.add_argument("--more", type=float, default=120.0, help="more seconds at most, where they do not do")
    parser.add_argument("--items", type=int, default=14, help="held-out items to record and to send")
    parser.add_argument("--duration", type=float, default=45.0, help="measured seconds of traffic")
    parser.add_argument("--warm-up", type=float, default=4.0, help="seconds of traffic before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate-factor", type=float, default=1.0, help="multiplies every query's rate when measuring")
    # A trial must leave the checkout as it was; only who measures for others keeps the figures in it.
    parser.add_argument("--keep", action="store_true", help="write the figures into benchmarks/results, not into build")
    chosen = parser.parse_args(arguments)
    options = DemoOptions(
        chosen.state,
        chosen.budget,
        chosen.more,
        chosen.items,
        chosen.duration,
        chosen.warm_up,
        chosen.seed,
        chosen.rate_factor,
        FOLDER if chosen.keep else BUILD,
    )
    return options, chosen.fresh


def _profile(
    specification: Specification, store: Path, options: DemoOptions, console: Console
) -> list[PipelineProfile]:
    """Both pipelines of the example have the same operators and data: what is measured for one serves the other."""
    measured = []
    deadline_s = perf_counter() + options.budget_s
    waiting = len(specification.queries)
    for name in specification.pipelines:
        queries = sum(query.pipeline == name for query in specification.queries)
        left_s = max((deadline_s - perf_counter()) * queries / max(waiting, 1), 1.0)
        waiting -= queries
        measured.append(_profile_one(specification, name, store, left_s, console))
    metric = next(iter(specification.pipelines.values())).metric
    console.print(profile_table(measured[0], metric.direction))
    return measured


def _profile_one(
    specification: Specification, name: str, store: Path, budget_s: float, console: Console
) -> PipelineProfile:
    with profile_bar(console, name) as bar:
        profile = profile_pipeline(specification, name, store, budget_s=budget_s, observer=bar)
    if profile.interrupted:
        raise KeyboardInterrupt
    return profile


def _planned(specification: Specification, store: Path) -> tuple[dict[str, PipelineProfile], Matching, float]:
    """What is measured, the plans, and the seconds it took to read the one and make the others."""
    began = perf_counter()
    profiles = {name: load_profile(specification, name, store) for name in specification.pipelines}
    matching, _ = plan_all_queries(specification, profiles)
    return profiles, matching, perf_counter() - began


def unmeasured(matching: Matching) -> list[str]:
    """Queries that were rejected for want of measurements: there is a best plan so far, or nothing could be said."""
    return [
        rejection.query
        for rejection in matching.rejections
        if "measurements" in rejection.binding
        or ((best := rejection.best_so_far) is not None and best.items < best.population)
    ]


def _record(
    specification: Specification,
    strategies: Mapping[str, Matching],
    store: Path,
    options: DemoOptions,
    console: Console,
) -> None:
    plans = [assignment.chosen.plan for matching in strategies.values() for assignment in matching.assignments]
    for name in specification.pipelines:
        chosen = list(dict.fromkeys(plan.configuration for plan in plans if plan.pipeline == name))
        if chosen:
            with profile_bar(console, name) as bar:
                record_for_replay(
                    specification, name, store, configurations=chosen, items_count=options.items, observer=bar
                )
        console.print(f"{name}: {len(chosen)} configurations recorded on {options.items} items each", highlight=False)


async def _serve(
    specification: Specification,
    strategies: Mapping[str, Matching],
    store: Path,
    options: DemoOptions,
    console: Console,
) -> dict[str, LoadReport]:
    """All strategies at the same time, each on an engine of its own, under the same arrivals."""
    traffic = LoadSpec(
        duration_s=options.duration_s,
        warm_up_s=options.warm_up_s,
        rate_factor=options.rate_factor,
        seed=options.seed,
        drain_timeout_s=10.0,
    )
    with tempfile.TemporaryDirectory(prefix="circinus-demo-") as folder:
        clients = {}
        try:
            for index, (name, matching) in enumerate(strategies.items()):
                clients[name] = start_daemon(Path(folder) / str(index))
                await clients[name].apply(build_desired_state(matching, specification, Mode.REPLAY, store.resolve()))
            with load_bar(console) as bar:
                reports = await asyncio.gather(
                    *(
                        run_load_test(
                            clients[name],
                            specification,
                            matching,
                            select_traffic_items(specification, matching, store, options.items, Mode.REPLAY, seed=0),
                            traffic,
                            bar if name == OURS else None,
                        )
                        for name, matching in strategies.items()
                    )
                )
        finally:
            for client in clients.values():
                with contextlib.suppress(Exception):  # the next one is to be ended too
                    await client.close()
    return dict(zip(strategies, reports, strict=True))


def _figures(
    specification: Specification,
    measured: list[PipelineProfile],
    strategies: Mapping[str, Matching],
    reports: Mapping[str, LoadReport],
    planning_s: float,
    store: Path,
    items: int,
) -> list[Figure]:
    ours = reports[OURS]
    ours_matching = strategies[OURS]
    sent = select_traffic_items(specification, ours_matching, store, items, Mode.REPLAY, seed=0)
    seen = count_profiled_items(specification, ours_matching, store, sent, seed=0)
    figures = [
        Figure(
            "items sent that planning had seen",
            seen / max(sum(len(found) for found in sent.values()), 1),
            0.0,
            "lower",
            "of items",
            "held-out items are never profiled",
        ),
        Figure("queries planned", len(specification.queries), 12, "higher", "queries"),
        Figure(
            "promises kept when measured",
            ours.promises_kept / max(ours.promises, 1),
            0.8,
            "higher",
            "of plans",
            f"{ours.promises_kept} of {ours.promises}",
        ),
    ]
    for name, report in reports.items():
        figures.append(Figure(f"goodput, {name}", report.goodput, None, "higher", "weight"))
        figures.append(
            Figure(f"cost, {name}", strategies[name].cost_usd_per_h, None, "lower", "$/h", "deployments and transfers")
        )
    help_s = _median_s([sys.executable, "-m", "circinus", "--help"], 5)
    plan_file = store.parent / "plan.json"
    plan_s = _median_s(
        [sys.executable, "-m", "circinus", "plan", str(EXAMPLE), "--store", str(store), "-o", str(plan_file), "--json"],
        3,
    )
    figures += [
        Figure("profiling", measured[-1].profiled_s, None, "lower", "s", "of processing, both pipelines"),
        Figure("saved by the prefix cache", measured[-1].saved_s, None, "higher", "s", "of processing"),
        Figure("planning inside the process", planning_s, None, "lower", "s", "with reading the profile"),
        Figure("`circinus --help`", help_s, 0.3, "lower", "s", "whole process, median of 5"),
        Figure("`circinus plan` on stored profiles", plan_s, 1.0, "lower", "s", "whole process, median of 3"),
    ]
    return figures


def _median_s(command: list[str], runs: int) -> float:
    seconds = []
    for _ in range(runs):
        began = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
