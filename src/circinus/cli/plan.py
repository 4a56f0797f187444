"""`circinus plan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import (
    DEFAULT_PLAN,
    Json,
    Paths,
    Store,
    duration_option,
    price_option,
    store_path,
)
from circinus.cli.trace_options import Traces, load_trace_backends

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from circinus.matching import Incumbent, Matching, PlanDiff, PlanFile
    from circinus.profiling import MeasurementBackend, PipelineProfile
    from circinus.specification import Specification


@dataclass(frozen=True)
class PreviousPlan:
    """What was matched before, as far as it is known."""

    file: Path | None = None
    matching: Matching | None = None
    """None: all is planned afresh."""
    warning: str = ""
    """Why a plan file that happened to be there was not used."""


def previous_plan(named: Path | None, output: Path, *, fresh: bool) -> PreviousPlan:
    """The plan file that was named, else the one that is about to be written over, else none.

    Raises:
        PlanningError: the plan file that was named cannot be read. One that merely is there is then not used.
    """
    from circinus.api.plan_context import require_file
    from circinus.errors import PlanningError
    from circinus.matching import load_plan_set

    if named is not None:
        require_file(named, "the plan file of what runs")
        return PreviousPlan(named, load_plan_set(named).matching)
    if fresh or not output.exists():
        return PreviousPlan()
    try:
        return PreviousPlan(output, load_plan_set(output).matching)
    except PlanningError as error:
        return PreviousPlan(warning=f"{error}. Planned as if nothing ran; name another plan with --from, or none with "
                            "--from-scratch")  # fmt: skip


def plan(
    paths: Paths = [Path()],  # noqa: B006  (typer wants the default as it is shown)
    output: Annotated[Path, typer.Option("--output", "-o", help="Plan file to write.")] = DEFAULT_PLAN,
    budget: Annotated[
        float | None,
        typer.Option(
            parser=duration_option, metavar="DURATION", help="Profile each pipeline for so long first; by default not."
        ),
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PLAN",
            help="Plan file of what runs: its plans stay where nothing is gained by others.",
            show_default="the file to write, if there is one",
        ),
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Plan as if nothing ran.")] = False,
    churn_price: Annotated[
        float,
        typer.Option(
            parser=price_option,
            metavar="PRICE",
            help="What another plan for a query that runs must save.",
            show_default="$0/h",
        ),
    ] = 0.0,
    max_changes: Annotated[
        int | None,
        typer.Option(min=0, help="Queries that run and may get another plan or none; by default any number."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            parser=duration_option,
            metavar="DURATION",
            help="Time for choosing among the plans of all queries.",
            show_default="5s, and 0.1s more for each query beyond 40",
        ),
    ] = None,
    trace: Traces = None,
    corrected: Annotated[
        bool,
        typer.Option(
            " /--no-corrections",
            show_default=False,
            help="Plan on service times as profiled, whatever traffic showed of them since.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the order in which items are measured.")] = 0,
    store: Store = None,
    json: Json = False,
) -> None:
    """Choose configuration, placement and allocation for all queries together, and write them to a file."""
    from circinus.api.plan_context import require_file
    from circinus.api.planning_service import make_plan, pipelines_in_use
    from circinus.api.profile_summary import search_summary_json
    from circinus.api.ray_profiling import machine_warning
    from circinus.cli.output import print_json
    from circinus.matching import PlanDiff, save_plan_set
    from circinus.specification.loader import load_specification

    specification = load_specification(paths)
    before, running = _what_runs(previous, output, from_scratch, churn_price, max_changes)
    if store is not None and budget is None and not trace:
        require_file(store, "a profile store; measure first (circinus profile), or plan with --budget")
    known = store_path(store, paths)
    sources = load_trace_backends(trace, specification)
    measured: Mapping[str, PipelineProfile] = {}
    if budget is not None:
        measured = _profile_first(specification, pipelines_in_use(specification), known, budget, seed, sources)
    found = make_plan(
        specification,
        output,
        known,
        seed=seed,
        running=running,
        time_limit_s=time_limit,
        sources=sources,
        corrected=corrected,
    )
    save_plan_set(found.plan_set, output)
    plan_set, profiles, matching = found.plan_set, found.profiles, found.plan_set.matching
    changes = None if running is None else PlanDiff.between(running.plans, matching)
    warnings = {
        f"pipeline {name}: {why}"
        for name, p in profiles.items()
        if (why := machine_warning(p, specification)) is not None
    }
    warnings |= {before.warning} - {""}
    warnings |= {f"passed over: {what}" for what in specification.skipped_documents}
    if json:
        searches = (
            {"searches": {name: search_summary_json(profile) for name, profile in measured.items()}} if measured else {}
        )
        again = {"from": before.file, "changes": changes}
        print_json("plan", {"file": output, "plan_set": plan_set, "warnings": sorted(warnings), **again, **searches})
    else:
        _print(specification, plan_set, output, sorted(warnings), measured, changes)
    if specification.queries and not matching.assignments:
        raise typer.Exit(1)  # nobody is served


def _what_runs(
    previous: Path | None, output: Path, from_scratch: bool, churn_price: float, max_changes: int | None
) -> tuple[PreviousPlan, Incumbent | None]:
    """The plan that is in force, and what it takes to change it; None: all is planned afresh.

    Raises:
        typer.BadParameter: options that exclude each other.
        PlanningError: a plan that cannot be read, where it was named or changes of it are limited.
    """
    from circinus.errors import PlanningError
    from circinus.matching import Incumbent

    limited = churn_price > 0 or max_changes is not None
    if from_scratch and previous is not None:
        raise typer.BadParameter("--from-scratch and --from are mutually exclusive")
    if from_scratch and limited:
        raise typer.BadParameter(
            "--churn-price and --max-changes have no effect with --from-scratch, which ignores running plans"
        )
    before = previous_plan(previous, output, fresh=from_scratch)
    if before.warning and limited:
        raise PlanningError(
            f"{before.warning}; found --churn-price or --max-changes, expected a plan of what runs that can be read",
            code="plan.incumbent_unreadable",
        )
    if before.matching is None:
        return before, None
    return before, Incumbent.of(before.matching, change_usd_per_h=churn_price, most_changes=max_changes)


def _print(
    specification: Specification,
    plan_set: PlanFile,
    output: Path,
    warnings: Sequence[str],
    measured: Mapping[str, PipelineProfile],
    changes: PlanDiff | None,
) -> None:
    from circinus.cli.output import console
    from circinus.reporting.plan_table import deployment_table, plan_table
    from circinus.reporting.profile_table import corrections_in_force, search_summary
    from circinus.specification.formatting import format_duration

    queries = {query.name: query for query in specification.queries}
    console().print(plan_table(plan_set.matching, queries), deployment_table(plan_set.matching.deployments))
    for name, profile in measured.items():
        console().print(f"pipeline {name}: {search_summary(profile)}", markup=False, highlight=False)
    if plan_set.corrections.entries:
        console().print(corrections_in_force(plan_set.corrections), markup=False, highlight=False)
    for warning in warnings:
        console().print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    if changes is not None:
        console().print(f"changes: {changes}", markup=False, highlight=False)
    console().print(f"planned in {format_duration(plan_set.planning_s)}, written to {output}", highlight=False)


def _profile_first(
    specification: Specification,
    pipelines: Sequence[str],
    store: Path,
    budget_s: float,
    seed: int,
    sources: Mapping[str, MeasurementBackend],
) -> Mapping[str, PipelineProfile]:
    from circinus.api.workspace import Workspace
    from circinus.cli.output import profile_progress

    workspace = Workspace(specification, store=store, seed=seed)
    report = workspace.profile(pipelines, budget=budget_s, sources=sources, progress=profile_progress)
    if report.interrupted:
        raise KeyboardInterrupt
    return report
