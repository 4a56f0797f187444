"""`circinus plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import (
    DEFAULT_PLAN,
    Json,
    Paths,
    Store,
    check_there,
    duration_option,
    price_option,
    store_path,
)
from circinus.cli.traces import Traces, trace_sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from circinus.cli.previous_plan import PreviousPlan
    from circinus.matching import Changes, PlanSet, Running
    from circinus.profiling import PipelineProfile, Source
    from circinus.spec import Specification


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
    fresh: Annotated[bool, typer.Option("--fresh", help="Plan as if nothing ran.")] = False,
    change_price: Annotated[
        float,
        typer.Option(
            parser=price_option,
            metavar="PRICE",
            help="What another plan for a query that runs must save.",
            show_default="$0/h",
        ),
    ] = 0.0,
    most_changes: Annotated[
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
    from circinus.cli.output import print_json
    from circinus.cli.planned import pipelines_in_use, plan_anew
    from circinus.cli.pools import measured_elsewhere
    from circinus.cli.profile import search
    from circinus.matching import Changes
    from circinus.spec.document import load_specification

    specification = load_specification(paths)
    before, running = _what_runs(previous, output, fresh, change_price, most_changes)
    if store is not None and budget is None and not trace:
        check_there(store, "a profile store; measure first (circinus profile), or plan with --budget")
    known = store_path(store, paths)
    sources = trace_sources(trace, specification)
    measured: Mapping[str, PipelineProfile] = {}
    if budget is not None:
        measured = _profile_first(specification, pipelines_in_use(specification), known, budget, seed, sources)
    found = plan_anew(
        specification,
        output,
        known,
        seed=seed,
        running=running,
        time_limit_s=time_limit,
        sources=sources,
        corrected=corrected,
    )
    plan_set, profiles, matching = found.plan_set, found.profiles, found.plan_set.matching
    changes = None if running is None else Changes.between(running.plans, matching)
    warnings = {
        f"pipeline {name}: {why}"
        for name, p in profiles.items()
        if (why := measured_elsewhere(p, specification)) is not None
    }
    warnings |= {before.warning} - {""}
    warnings |= {f"passed over: {what}" for what in specification.passed_over}
    if json:
        searches = {"searches": {name: search(profile) for name, profile in measured.items()}} if measured else {}
        again = {"from": before.file, "changes": changes}
        print_json("plan", {"file": output, "plan_set": plan_set, "warnings": sorted(warnings), **again, **searches})
    else:
        _print(specification, plan_set, output, sorted(warnings), measured, changes)
    if specification.queries and not matching.assignments:
        raise typer.Exit(1)  # nobody is served


def _what_runs(
    previous: Path | None, output: Path, fresh: bool, change_price: float, most_changes: int | None
) -> tuple[PreviousPlan, Running | None]:
    """The plan that is in force, and what it takes to change it; None: all is planned afresh.

    Raises:
        typer.BadParameter: options that exclude each other.
        PlanningError: a plan that cannot be read, where it was named or changes of it are limited.
    """
    from circinus.cli.previous_plan import previous_plan
    from circinus.errors import PlanningError
    from circinus.matching import Running

    limited = change_price > 0 or most_changes is not None
    if fresh and previous is not None:
        raise typer.BadParameter("found both --fresh and --from, expected one of them")
    if fresh and limited:
        raise typer.BadParameter("found --change-price or --most-changes with --fresh, by which nothing runs")
    before = previous_plan(previous, output, fresh=fresh)
    if before.warning and limited:
        raise PlanningError(
            f"{before.warning}; found --change-price or --most-changes, expected a plan of what runs that can be read"
        )
    if before.matching is None:
        return before, None
    return before, Running.of(before.matching, change_usd_per_h=change_price, most_changes=most_changes)


def _print(
    specification: Specification,
    plan_set: PlanSet,
    output: Path,
    warnings: Sequence[str],
    measured: Mapping[str, PipelineProfile],
    changes: Changes | None,
) -> None:
    from circinus.cli.output import console
    from circinus.reporting.correction_table import corrections_in_force
    from circinus.reporting.plan_table import deployment_table, plan_table
    from circinus.reporting.profile_table import searched
    from circinus.spec.spoken import duration

    queries = {query.name: query for query in specification.queries}
    console().print(plan_table(plan_set.matching, queries), deployment_table(plan_set.matching.deployments))
    for name, profile in measured.items():
        console().print(f"pipeline {name}: {searched(profile)}", markup=False, highlight=False)
    if plan_set.corrections.entries:
        console().print(corrections_in_force(plan_set.corrections), markup=False, highlight=False)
    for warning in warnings:
        console().print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    if changes is not None:
        console().print(f"changes: {changes}", markup=False, highlight=False)
    console().print(f"planned in {duration(plan_set.planning_s)}, written to {output}", highlight=False)


def _profile_first(
    specification: Specification,
    pipelines: Sequence[str],
    store: Path,
    budget_s: float,
    seed: int,
    sources: Mapping[str, Source],
) -> Mapping[str, PipelineProfile]:
    from circinus.cli.profile import measured_pipeline

    measured = {}
    for name in pipelines:
        measured[name] = measured_pipeline(specification, name, store, budget_s, seed, sources.get(name))
        if measured[name].interrupted:
            raise KeyboardInterrupt
    return measured
