"""`circinus simulate`."""

from __future__ import annotations

from typing import Annotated

from circinus.cli.options import (
    DEFAULT_PLAN,
    TRAFFIC,
    WARM_UP,
    Json,
    LoadFactor,
    PlanFile,
    TrafficSeed,
    duration_option,
    positive_duration_option,
    quantity,
)


def simulate(
    plan_file: PlanFile = DEFAULT_PLAN,
    duration: Annotated[
        float | None, quantity(positive_duration_option, "Simulated time.", "1h, or less at high rates", TRAFFIC)
    ] = None,
    warm_up: Annotated[float | None, quantity(duration_option, WARM_UP, "a tenth of the duration", TRAFFIC)] = None,
    load_factor: LoadFactor = 1.0,
    seed: TrafficSeed = 0,
    json: Json = False,
) -> None:
    """Simulate a plan request by request, through queues, batches and links, and check every SLO."""
    from circinus.cli.output import console, open_plan, print_json, progress_console
    from circinus.reporting.progress import simulation_bar
    from circinus.reporting.simulation_table import simulation_table

    workspace, plan = open_plan(plan_file, shows_rejected=True, needs_store=True)
    with simulation_bar(progress_console()) as bar:
        report = workspace.simulate(
            plan, load_factor=load_factor, duration=duration, warm_up=warm_up, seed=seed, on_progress=bar
        )
    if json:
        print_json("simulate", report.to_dict())
        return
    queries = {query.name: query for query in workspace.specification.queries}
    estimates = {name: assignment.chosen.estimate for name, assignment in plan.items()}
    rejected = [queries[name] for name in plan.rejected if name in queries]
    console().print(simulation_table(report.outcome, estimates, rejected, workspace.specification.metric_names))
