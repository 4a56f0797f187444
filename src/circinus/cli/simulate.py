"""`circinus simulate`."""

from __future__ import annotations

from typing import Annotated

import typer

from circinus.cli.options import DEFAULT_PLAN, Json, PlanFile, duration_option, factor_option, hours_option

_SECONDS_PER_H = 3600.0


def simulate(
    plan_file: PlanFile = DEFAULT_PLAN,
    load: Annotated[
        float, typer.Option(parser=factor_option, metavar="TIMES", help="Times every query's rate.", show_default="1x")
    ] = 1.0,
    hours: Annotated[
        float,
        typer.Option(
            parser=hours_option, metavar="HOURS", help="Simulated time, in hours; or as in 10min.", show_default="1h"
        ),
    ] = 1.0,
    warm_up: Annotated[
        float | None,
        typer.Option(
            parser=duration_option,
            metavar="DURATION",
            help="Simulated time before figures are taken.",
            show_default="a tenth of the time",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and items.")] = 0,
    json: Json = False,
) -> None:
    """Run the plans request by request in simulated time: queues, batches, links, every objective."""
    from circinus.api.plan_context import load_plan
    from circinus.api.results import SimulationReport
    from circinus.api.simulation import simulate_plan
    from circinus.cli.output import console, print_json, progress_console
    from circinus.reporting.progress import simulation_bar
    from circinus.reporting.simulation_table import simulation_table

    opened = load_plan(plan_file, needs_store=True)
    duration_s = hours * _SECONDS_PER_H
    if warm_up is not None and not 0 <= warm_up < duration_s:
        raise typer.BadParameter(f"found a warm-up of {warm_up:g} s, expected less than the {duration_s:g} s simulated")
    with simulation_bar(progress_console()) as bar:
        outcome = simulate_plan(
            opened,
            load=load,
            duration_s=duration_s,
            warm_up_s=duration_s / 10 if warm_up is None else warm_up,
            seed=seed,
            on_progress=bar,
        )
    if json:
        print_json("simulate", SimulationReport(outcome).to_dict())
        return
    matching = opened.plan_set.matching
    predicted = {assignment.query: assignment.chosen.estimate for assignment in matching.assignments}
    known = {query.name: query for query in opened.specification.queries}
    rejected = [known[rejection.query] for rejection in matching.rejections if rejection.query in known]
    console().print(simulation_table(outcome, predicted, rejected))
