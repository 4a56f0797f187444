"""`circinus plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import (
    DEFAULT_PLAN,
    OUTPUT,
    PROFILES,
    FailOnRejection,
    Json,
    NoCorrections,
    Paths,
    Seed,
    Store,
    Traces,
    duration_option,
    load_trace_backends,
    price_option,
    quantity,
)

if TYPE_CHECKING:
    from circinus.api.plans import Plan
    from circinus.specification import Specification

_INCUMBENT = "Running plan"
_WOULD_CHANGE = 4
"""Exit code of `--diff` where a query would get another plan, or a deployment another number of replicas."""


def plan(
    paths: Paths = [Path()],  # noqa: B006  (typer shows this default)
    budget: Annotated[
        float | None,
        quantity(duration_option, "Time to profile the pipelines in use before planning.", "no profiling", PROFILES),
    ] = None,
    incumbent: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Plan file of the running plan, which changes only where something is gained.",
            show_default="the file to write, if it exists",
            rich_help_panel=_INCUMBENT,
        ),
    ] = None,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff",
            help="Print what would change in the running plan, and write nothing (exit code 4 if anything would).",
            rich_help_panel=_INCUMBENT,
        ),
    ] = False,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="Ignore any running plan; with --diff, only compare with it.",
            rich_help_panel=_INCUMBENT,
        ),
    ] = False,
    churn_price: Annotated[
        float,
        quantity(price_option, "Minimum saving that justifies changing a running query's plan.", "$0/h", _INCUMBENT),
    ] = 0.0,
    max_changes: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Maximum number of running queries whose plan may change.",
            show_default="no limit",
            rich_help_panel=_INCUMBENT,
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        quantity(
            duration_option,
            "Time limit of all matchings together.",
            "20s, and 0.1s more for each query beyond 40, at most 60s",
            "Solver",
        ),
    ] = None,
    max_plans: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of plans on each query's frontier, among which the matching chooses first.",
            show_default="60",
            rich_help_panel="Solver",
        ),
    ] = None,
    trace: Traces = None,
    no_corrections: NoCorrections = False,
    seed: Seed = 0,
    store: Store = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Plan file to write.", rich_help_panel=OUTPUT)
    ] = DEFAULT_PLAN,
    fail_on_rejection: FailOnRejection = False,
    json: Json = False,
) -> None:
    """Choose configuration, placement and allocation for all queries together, and write a plan file."""
    from circinus.api.plan_context import require_file
    from circinus.api.workspace import Workspace
    from circinus.cli.output import elapsed_time, print_json
    from circinus.matching import PlanDiff

    workspace = Workspace(paths, store=store, seed=seed)
    specification = workspace.specification
    is_limited = churn_price > 0 or max_changes is not None
    running, warning = _running_plan(incumbent, output, diff=diff, from_scratch=from_scratch, limited=is_limited)
    if store is not None and budget is None and not trace:
        require_file(store, "a profile store; run `circinus profile` first, or plan with --budget")
    with elapsed_time(f"planning {len(specification.queries)} queries") as line:
        result = workspace.plan(
            output=None if diff else output,
            budget=budget,
            incumbent=None if from_scratch else running,
            churn_price_usd_per_h=churn_price,
            max_changes=max_changes,
            time_limit=time_limit,
            max_plans=max_plans,
            sources=load_trace_backends(trace, specification),
            corrections=not no_corrections,
            progress=line.progress_bar,
        )
    if from_scratch and running is not None:
        changes = PlanDiff.between(running.matching, result.matching)
        result = replace(result, changes=changes, incumbent_path=running.path)
    if warning:
        result = replace(result, warnings=tuple(sorted({*result.warnings, warning})))
    if json:
        print_json("plan", result.to_dict())
    else:
        _print(result, specification)
    if specification.queries and (not result or (fail_on_rejection and result.matching.rejections)):
        raise typer.Exit(1)
    if diff and result.changes is not None and not result.changes.empty:
        raise typer.Exit(_WOULD_CHANGE)


def _running_plan(
    named: Path | None, output: Path, *, diff: bool, from_scratch: bool, limited: bool
) -> tuple[Plan | None, str]:
    """Return the running plan, if any is needed, and a warning if the plan file to write cannot be read.

    Args:
        named: plan file of the running plan.
        output: plan file to write, which is read if none is named.
        diff: whether the running plan is compared with.
        from_scratch: whether planning ignores any running plan.
        limited: whether changes of the running plan are limited.

    Raises:
        typer.BadParameter: the options exclude each other.
        PlanningError: a plan file cannot be read that was named, is compared with, or whose changes are limited.
    """
    from circinus.api.plan_context import require_file
    from circinus.api.plans import Plan
    from circinus.errors import PlanningError

    if from_scratch and named is not None and not diff:
        raise typer.BadParameter("--from-scratch and --from are mutually exclusive without --diff")
    if from_scratch and limited:
        raise typer.BadParameter(
            "--churn-price and --max-changes have no effect with --from-scratch, which ignores running plans"
        )
    if named is not None:
        require_file(named, "the plan file of the running plan")
        return Plan.load(named), ""
    if diff and not output.exists():
        raise PlanningError(
            "no such file, so there is no plan to compare with",
            code="plan.no_incumbent",
            location=str(output),
            hint="Name a plan file with --from, or write one with `circinus plan`.",
        )
    if not output.exists() or (from_scratch and not diff):
        return None, ""
    try:
        return Plan.load(output), ""
    except PlanningError as error:
        if diff:
            raise
        if limited:
            raise PlanningError(
                f"--churn-price and --max-changes need the running plan: {error.message}",
                code="plan.incumbent_unreadable",
                location=str(output),
                hint="Name another plan file with --from.",
            ) from error
        warning = f"{error} Planned without a running plan; name one with --from, or use --from-scratch"
        return None, warning


def _print(plan: Plan, specification: Specification) -> None:
    from circinus.cli.output import console
    from circinus.reporting.plan_table import plan_table
    from circinus.reporting.profile_table import corrections_in_force, search_summary
    from circinus.reporting.resource_use import use_table
    from circinus.reporting.wrapping import print_wrapped
    from circinus.specification.formatting import format_duration

    queries = {query.name: query for query in specification.queries}
    console().print(plan_table(plan.matching, queries, specification.metric_names, plan.file.coverage))
    console().print()
    console().print(use_table(plan.matching, specification.required_infrastructure))
    console().print()
    for name, profile in plan.measured.items():
        console().print(f"pipeline {name}: {search_summary(profile)}", markup=False, highlight=False)
    if plan.file.corrections.entries:
        console().print(corrections_in_force(plan.file.corrections), markup=False, highlight=False)
    for warning in plan.warnings:
        print_wrapped(console(), f"warning: {warning}", style="yellow")
    if plan.changes is not None:
        print_wrapped(console(), f"changes: {plan.changes}")
    outcome = f"planned in {format_duration(plan.file.planning_s)}, "
    compared = f"compared with {plan.incumbent_path}, not written (--diff)"
    outcome += compared if plan.path is None else f"written to {plan.path}"
    console().print(outcome, markup=False, highlight=False, soft_wrap=True)
