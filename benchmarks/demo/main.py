"""The product on a real speech pipeline, a command at a time, and its plans beside two simple choices.

Called by `make demo`. The models really run while profiling and recording. Serving replays the recordings on held-out
items, so that one machine stands in for devices, an edge server and a cloud.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, time

from rich.console import Console

import circinus as c
from benchmarks.baselines.by_hand import BEST_IN_THE_CLOUD, CHEAPEST_ON_THE_DEVICE
from benchmarks.demo.figures import demo_figures
from benchmarks.demo.report import comparison, row
from benchmarks.demo.strategies import OURS, fixed_plan, load_test_side_by_side
from benchmarks.harness.benchmark import Rows
from benchmarks.harness.busy_processes import busy_processes
from benchmarks.harness.results import FOLDER, Figure, output_console, print_figures, write_results
from circinus.reporting.explanation import assignment_explanation, rejection_explanation
from circinus.reporting.plan_table import plan_table
from circinus.reporting.profile_table import profile_table, search_summary
from circinus.reporting.progress import load_bar, profile_bar
from circinus.reporting.resource_use import use_table
from circinus.specification.formatting import format_duration

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "meeting"
BUILD = ROOT / "build"
_RESUMED_BUDGET_S = 90.0
"""Budget of each further `circinus profile`."""
_BESIDE = ", beside "


@dataclass(frozen=True)
class DemoOptions:
    """Durations, seed and folders of a demo."""

    state: Path
    budget_s: float
    """Budget of profiling."""
    max_resumes: int
    """Maximum number of further calls of `circinus profile` while a query lacks measurements."""
    items: int
    duration_s: float
    warm_up_s: float
    seed: int
    load_factor: float
    results: Path
    busy: tuple[int, ...] = (0,)
    """Numbers of busy processes beside the demo."""
    runs: int = 1
    """Runs beside each number of them."""


class Demo:
    """The steps of the demo; each prints the command that it stands for."""

    def __init__(self, options: DemoOptions, console: Console) -> None:
        self.options = options
        self.console = console
        self.workspace = c.Workspace(EXAMPLE, store=options.state / "profiles.sqlite", seed=options.seed)
        self.plan_file = options.state / "plan.json"

    def validate(self) -> None:
        """Check the specification, its operators, metrics and data sets."""
        self._step("1. Validate")
        self._command("validate", EXAMPLE)
        for pipeline in self.workspace.validate().rows():
            self._print(
                f"pipeline {pipeline['pipeline']}: {pipeline['operators']} operators, "
                f"{pipeline['configurations']} configurations"
            )

    def profile(self, budget_s: float) -> c.ProfileReport:
        """Measure the configurations that could lower the cost of a query; resumes what an earlier call measured."""
        self._command("profile", EXAMPLE, *self._store, "--budget", f"{budget_s:g}s")
        report = self.workspace.profile(
            budget=budget_s, progress=lambda pipeline: profile_bar(self.console, f"profile {pipeline}")
        )
        if report.interrupted:
            raise KeyboardInterrupt
        for name, profile in report.items():
            self._print(f"pipeline {name}: {search_summary(profile)}")
        return report

    def plan(self) -> c.Plan:
        """Plan all queries together."""
        self._command("plan", EXAMPLE, *self._store, "-o", self.plan_file)
        with self.working("planning all queries"):
            plan = self.workspace.plan(output=self.plan_file)
        self._print(
            f"{len(plan)} of {len(plan) + len(plan.rejected)} queries served, "
            f"planned in {format_duration(plan.file.planning_s)}"
        )
        return plan

    def profile_and_plan(self) -> tuple[c.ProfileReport, c.Plan]:
        """Profile, plan, and resume profiling while a query lacks measurements, a few times at most."""
        self._step("2. Profile and plan: the models really run, and all queries are planned together")
        report, plan = self.profile(self.options.budget_s), self.plan()
        for _ in range(self.options.max_resumes):
            if not (lacking := unmeasured(plan)):
                break
            self._print(f"{len(lacking)} queries lack measurements on this machine: resume profiling")
            report, plan = self.profile(_RESUMED_BUDGET_S), self.plan()
        name, profile = next(iter(report.items()))
        specification = self.workspace.specification
        metric = specification.pipelines[name].metric
        self.console.print(profile_table(profile, metric.direction, metric=metric.name))
        queries = {query.name: query for query in specification.queries}
        self.console.print(plan_table(plan.matching, queries, specification.metric_names, plan.file.coverage))
        self.console.print(use_table(plan.matching, specification.required_infrastructure))
        return report, plan

    def explain(self, plan: c.Plan) -> None:
        """Explain one query: a rejected one, if there is any."""
        query = next(iter(plan.rejected), None) or next(iter(plan))
        self._step("3. Explain one query")
        self._command("explain", self.plan_file, query)
        with self.working("looking for the changes that would serve it" if plan.rejected else "explaining"):
            explained = self.workspace.explain(plan, [query]).decisions()
        for decision in explained.values():
            specified = next(q for q in self.workspace.specification.queries if q.name == query)
            metric = self.workspace.specification.metric_names[query]
            shown = (
                assignment_explanation(decision, specified, metric)
                if isinstance(decision, c.Assignment)
                else rejection_explanation(decision, specified, metric)
            )
            self.console.print(shown)

    def serve(self, plans: dict[str, c.Plan]) -> dict[str, c.LoadReport]:
        """Deploy each plan on an engine of its own and send all of them the same arrivals at the same time."""
        options = self.options
        items = ("--items", options.items)
        self._step("4. Apply and load: the plan and two simple choices side by side")
        self._command("apply", self.plan_file, "--mode replay", *items)
        self._command("load", self.plan_file, "--duration", f"{options.duration_s:g}s", *items)
        with (
            tempfile.TemporaryDirectory(prefix="circinus-demo-") as folder,
            load_bar(self.console) as bar,
        ):
            return load_test_side_by_side(
                plans,
                specification=self.workspace.specification,
                store=self.workspace.store,
                folder=Path(folder),
                seed=options.seed,
                duration_s=options.duration_s,
                warm_up_s=options.warm_up_s,
                load_factor=options.load_factor,
                items=options.items,
                progress=lambda pipeline: profile_bar(self.console, f"record {pipeline}"),
                on_progress=bar,
            )

    @contextmanager
    def working(self, task: str) -> Iterator[None]:
        """Say what takes a while, on a terminal as long as it does."""
        if not self.console.is_terminal:
            self._print(f"{task} ...")
        with self.console.status(task):
            yield

    @property
    def _store(self) -> tuple[object, ...]:
        return "--store", self.workspace.store, "--seed", self.options.seed

    def _step(self, title: str) -> None:
        self.console.rule(title, align="left")

    def _command(self, verb: str, *arguments: object) -> None:
        shown = (os.path.relpath(value) if isinstance(value, Path) else str(value) for value in arguments)
        self._print(f"$ circinus {verb} {' '.join(shown)}")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Run the demo, once or beside each number of busy processes."""
    options, from_scratch = read_options()
    started_s = perf_counter()
    console = output_console()
    figures, rows = earlier(options.results / "demo.json", options.busy) if options.results == FOLDER else ([], [])
    for busy in options.busy:
        results = []
        for _ in range(options.runs):
            if from_scratch:
                for file in options.state.glob("profiles.sqlite*"):
                    file.unlink()
                (options.state / "plan.json").unlink(missing_ok=True)
            with busy_processes(busy):
                results.append(run_demo(replace(options, busy=(busy,)), console))
        figures += medians([run_figures for run_figures, _ in results], busy)
        rows += [{"busy": busy, "run": run} | entry for run, (_, entries) in enumerate(results) for entry in entries]
    started = os.environ.get("DEMO_STARTED")
    if started and options.busy == (0,) and options.runs == 1:
        since_make_s = time() - float(started)
        figures.append(Figure("demo, including any installation", since_make_s, 360.0, "lower", "s", "`make demo`"))
    print_figures(figures, console)
    path = write_results(
        "demo",
        figures=figures,
        rows=rows,
        seeds=[options.seed],
        wall_s=perf_counter() - started_s,
        folder=options.results,
    )
    took = format_duration(perf_counter() - started_s)
    console.print(f"demo done in {took}; figures: {os.path.relpath(path)}", highlight=False)


def run_demo(options: DemoOptions, console: Console) -> tuple[list[Figure], Rows]:
    """Run all steps once, and return figures and a row for each query and strategy."""
    started_s = perf_counter()
    options.state.mkdir(parents=True, exist_ok=True)
    demo = Demo(options, console)
    demo.validate()
    report, plan = demo.profile_and_plan()
    if not plan:
        sys.exit("No query is served: too little was measured. Call make demo again to resume profiling.")
    demo.explain(plan)
    plans = {OURS: plan} | {
        choice.name: fixed_plan(demo.workspace, report, choice)
        for choice in (BEST_IN_THE_CLOUD, CHEAPEST_ON_THE_DEVICE)
    }
    reports = demo.serve(plans)

    matchings = {name: plan.matching for name, plan in plans.items()}
    measured = {name: load.measured for name, load in reports.items()}
    console.print(comparison(matchings, measured))
    if lacking := unmeasured(plan):
        console.print(
            f"{OURS} rejected {len(lacking)} queries for lack of measurements: this machine is slow or busy. "
            "Call make demo again to resume profiling.",
            style="yellow",
        )
    with demo.working("writing the report, with simulations at other loads"):
        page = demo.workspace.report(plan, options.state / "report.html", load=reports[OURS], what_if="10s")
    console.print(f"report of the plan: {os.path.relpath(page)}", highlight=False)
    wall_s = perf_counter() - started_s
    figures = [Figure("demo, installed", wall_s, 540.0 if any(options.busy) else 360.0, "lower", "s")]
    with demo.working("timing `circinus --help` and `circinus plan`, some runs each"):
        figures += demo_figures(EXAMPLE, demo.workspace.store, report, plans, reports)
    return figures, [row(name, matchings[name], query) for name, load in measured.items() for query in load.queries]


def earlier(results: Path, busy: Collection[int]) -> tuple[list[Figure], Rows]:
    """Return the figures and rows of a result file that were measured beside other numbers of busy processes."""
    if not results.is_file():
        return [], []
    document = json.loads(results.read_text(encoding="utf-8"))
    again, at = [_condition(count) for count in busy], f"; at {document['commit']}"
    figures = [
        Figure(**entry | {"note": entry["note"] if "; at " in entry["note"] else entry["note"] + at})
        for entry in document["figures"]
        if "".join(entry["name"].partition(_BESIDE)[1:]) not in again
    ]
    return figures, [row for row in document["rows"] if row["busy"] not in busy]


def _condition(busy: int) -> str:
    return f"{_BESIDE}{busy} busy processes" if busy else ""


def medians(runs: Sequence[Sequence[Figure]], busy: int) -> list[Figure]:
    """Return each figure's median over runs, with its range and the number of busy processes, if there are several."""
    condition = _condition(busy)
    figures = []
    for same in zip(*runs, strict=True):
        first, values = same[0], [figure.value for figure in same]
        note = f"{min(values):.4g} to {max(values):.4g} in {len(values)} runs" if len(values) > 1 else first.note
        figures.append(replace(first, name=first.name + condition, value=statistics.median(values), note=note))
    return figures


def read_options(arguments: Sequence[str] | None = None) -> tuple[DemoOptions, bool]:
    """Return the options, by default of the command line, and whether to forget earlier measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks demo", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "demo", help="folder of the profile store")
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of profiling")
    parser.add_argument("--resumes", type=int, default=2, help="maximum number of further calls of circinus profile")
    parser.add_argument("--items", type=int, default=14, help="held-out items to record and send")
    parser.add_argument("--duration", type=float, default=45.0, help="seconds of measured traffic")
    parser.add_argument("--warm-up", type=float, default=4.0, help="seconds of traffic before the measurement")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of items and of arrivals")
    parser.add_argument("--busy", type=int, nargs="+", default=[0], help="numbers of processes that keep the CPUs busy")
    parser.add_argument("--runs", type=int, default=1, help="runs beside each number of busy processes")
    parser.add_argument("--load-factor", type=float, default=1.0, help="factor on the rate of each query")
    # A trial must leave the checkout clean.
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results instead of build")
    chosen = parser.parse_args(arguments)
    options = DemoOptions(
        state=chosen.state,
        budget_s=chosen.budget,
        max_resumes=chosen.resumes,
        items=chosen.items,
        duration_s=chosen.duration,
        warm_up_s=chosen.warm_up,
        seed=chosen.seed,
        load_factor=chosen.load_factor,
        results=FOLDER if chosen.keep else BUILD,
        busy=tuple(chosen.busy),
        runs=chosen.runs,
    )
    return options, chosen.fresh


def unmeasured(plan: c.Plan) -> list[str]:
    """Return the queries that were rejected for lack of measurements."""
    return [
        query
        for query, rejection in plan.rejected.items()
        if "measurements" in rejection.binding
        or ((best := rejection.best_so_far) is not None and best.items is not None and best.items < best.population)
    ]


if __name__ == "__main__":
    main()
