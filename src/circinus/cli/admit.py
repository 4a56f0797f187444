"""`circinus admit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.command import names_as_arguments
from circinus.cli.options import DEFAULT_PLAN, OUTPUT, Json, Traces, Trust, load_trace_backends


def admit(
    query: Annotated[str, typer.Argument(help="Query of the specification that the plan does not serve.")],
    plan_file: Annotated[Path, typer.Option("--plan", help="Plan file of the running plan.")] = DEFAULT_PLAN,
    trace: Traces = None,
    trust: Trust = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Answer without writing the plan file.", rich_help_panel=OUTPUT)
    ] = False,
    json: Json = False,
) -> None:
    """Admit one more query to a running plan, or reject it (exit code 1).

    All other queries keep their plans. The plan file has the decision, which `circinus explain QUERY` shows.
    """
    from circinus.api.workspace import Workspace
    from circinus.cli.output import console, elapsed_time, print_json
    from circinus.reporting.explanation import admission_text
    from circinus.reporting.wrapping import print_wrapped
    from circinus.specification.formatting import format_duration, format_usd_per_h

    workspace, plan = Workspace.open_plan(plan_file, check_fresh=False, trust=trust)
    sources = load_trace_backends(trace, workspace.specification)
    with names_as_arguments(), elapsed_time(f"planning query {query}"):
        result = workspace.admit(query, plan, output=None if dry_run else plan_file, sources=sources)
    if json:
        print_json("admit", result.to_dict())
    elif result.already_served:
        console().print(f"{plan_file} serves {query} already", markup=False, highlight=False, soft_wrap=True)
    else:
        console().print(admission_text(result.admission, workspace.specification.metric_names[query]))
        outcome = "rejected"
        written = f"written to {plan_file}, which serves the others as before"
        if result.admitted:
            outcome = f"admitted, {format_usd_per_h(result.added_usd_per_h)} more in total"
            written = f"written to {plan_file}; deploy it with `circinus apply`"
        outcome += f"; {plan_file} is unchanged (--dry-run)" if dry_run else f"; {written}"
        answered = format_duration(result.answered_s)
        print_wrapped(console(), f"answered in {answered}: {outcome}")
    if not result.admitted:
        raise typer.Exit(1)
