"""`circinus simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import DEFAULT_PLAN, Json, PlanFile, duration_option, factor_option, hours_option

if TYPE_CHECKING:
    from circinus.api.plan_context import LoadedPlan
    from circinus.simulation import PlannedQuery, SimulationReport

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
    from circinus.cli.output import console, print_json
    from circinus.reporting.simulation_table import simulation_table

    opened = load_plan(plan_file, needs_store=True)
    duration_s = hours * _SECONDS_PER_H
    if warm_up is not None and not 0 <= warm_up < duration_s:
        raise typer.BadParameter(f"found a warm-up of {warm_up:g} s, expected less than the {duration_s:g} s simulated")
    report = _run(opened, load, duration_s, duration_s / 10 if warm_up is None else warm_up, seed)
    if json:
        queries = [vars(query) | {"satisfied": query.satisfied} for query in report.queries]
        print_json("simulate", vars(report) | {"queries": queries})
        return
    matching = opened.plan_set.matching
    predicted = {assignment.query: assignment.chosen.estimate for assignment in matching.assignments}
    known = {query.name: query for query in opened.specification.queries}
    rejected = [known[rejection.query] for rejection in matching.rejections if rejection.query in known]
    console().print(simulation_table(report, predicted, rejected))


def _run(opened: LoadedPlan, load: float, duration_s: float, warm_up_s: float, seed: int) -> SimulationReport:
    from circinus.cli.output import progress_console
    from circinus.reporting.progress import simulation_bar
    from circinus.simulation import simulate as run
    from circinus.specification import Network

    matching, infrastructure = opened.plan_set.matching, opened.specification.infrastructure
    assert infrastructure is not None, "a plan names pools"
    served = {assignment.query for assignment in matching.assignments}
    with simulation_bar(progress_console()) as bar:
        return run(
            _planned(opened),
            {sized.deployment: sized.replicas for sized in matching.deployments},
            Network(infrastructure),
            duration_s=duration_s,
            warm_up_s=warm_up_s,
            load=load,
            seed=seed,
            unserved_weight=sum(q.weight for q in opened.specification.queries if q.name not in served),
            on_progress=bar,
        )


def _planned(opened: LoadedPlan) -> list[PlannedQuery]:
    """Every query that has a plan, with the measurements it was made from."""
    from circinus.matching.simulation_check import simulation_inputs

    return simulation_inputs(opened.specification, opened.profiles(), opened.plan_set.matching)
