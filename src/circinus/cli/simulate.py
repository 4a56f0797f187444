"""`circinus simulate`."""

from __future__ import annotations

from typing import Annotated

import typer

from circinus.cli.options import (
    DEFAULT_PLAN,
    Json,
    LoadFactor,
    PlanFile,
    duration_option,
    positive_duration_option,
    quantity,
)


def simulate(
    plan_file: PlanFile = DEFAULT_PLAN,
    load_factor: LoadFactor = 1.0,
    duration: Annotated[
        float | None, quantity(positive_duration_option, "Simulated time.", "1h, or less at high rates")
    ] = None,
    warm_up: Annotated[
        float | None,
        quantity(duration_option, "Simulated warm-up time, excluded from the figures.", "a tenth of the time"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for arrivals and items.")] = 0,
    json: Json = False,
) -> None:
    """Simulate a plan request by request, through queues, batches and links, and check every SLO."""
    from circinus.cli.output import console, open_plan, print_json, progress_console
    from circinus.reporting.progress import simulation_bar
    from circinus.reporting.simulation_table import simulation_table

    workspace, plan = open_plan(plan_file, shows_rejected=True, needs_store=True)
    if warm_up is not None and duration is not None and not 0 <= warm_up < duration:
        raise typer.BadParameter(f"the warm-up must be shorter than the simulated {duration:g} s, got {warm_up:g} s")
    with simulation_bar(progress_console()) as bar:
        report = workspace.simulate(
            plan, load=load_factor, duration=duration, warm_up=warm_up, seed=seed, on_progress=bar
        )
    if json:
        print_json("simulate", report.to_dict())
        return
    queries = {query.name: query for query in workspace.specification.queries}
    estimates = {name: assignment.chosen.estimate for name, assignment in plan.items()}
    rejected = [queries[name] for name in plan.rejected if name in queries]
    console().print(simulation_table(report.outcome, estimates, rejected, workspace.specification.metric_names))
