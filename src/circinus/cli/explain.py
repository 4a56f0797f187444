"""`circinus explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from circinus.cli.options import DEFAULT_PLAN, Json, PlanFile


def explain(
    plan_file: PlanFile = DEFAULT_PLAN,
    queries: Annotated[list[str] | None, typer.Argument(help="Only these queries.", show_default="all")] = None,
    json: Json = False,
) -> None:
    """Say why each query got its plan, what else there was, and what would let a rejected one in."""
    from circinus.cli.opened_plan import open_plan
    from circinus.cli.output import console, print_json
    from circinus.reporting.explanation import assignment_explanation, rejection_explanation
    from circinus.reporting.plan_table import deployment_table
    from circinus.reporting.plan_text import PLAN_LEGEND

    opened = open_plan(plan_file)
    matching = opened.plan_set.matching
    decisions = {a.query: a for a in matching.assignments} | {r.query: r for r in matching.rejections}
    for name in queries or ():
        if name not in decisions:
            raise typer.BadParameter(f"found no query {name} in {plan_file}, expected one of {', '.join(decisions)}")
    chosen = queries or list(decisions)
    if json:
        print_json("explain", {name: decisions[name] for name in chosen})
        return
    known = {query.name: query for query in opened.specification.queries}
    for assignment in matching.assignments:
        if assignment.query in chosen:
            console().print(assignment_explanation(assignment, known[assignment.query]))
    for rejection in matching.rejections:
        if rejection.query in chosen:
            console().print(rejection_explanation(rejection, known[rejection.query]))
    console().print(PLAN_LEGEND, style="dim", markup=False, highlight=False)
    if not queries:
        console().print(deployment_table(matching.deployments))
