"""`circinus explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.command import names_as_arguments
from circinus.cli.options import DEFAULT_PLAN, Json, PlanFile


def explain(
    plan_file: PlanFile = DEFAULT_PLAN,
    queries: Annotated[list[str] | None, typer.Argument(help="Queries to explain.", show_default="all")] = None,
    json: Json = False,
) -> None:
    """Explain each query's plan or rejection, its alternatives, and the change that would admit it.

    A first argument that names no file is a query, of the plan in `plan.json`.
    """
    from circinus.cli.output import console, elapsed_time, open_plan, print_json

    if plan_file.parent == Path() and not plan_file.suffix and not plan_file.exists():
        plan_file, queries = DEFAULT_PLAN, [plan_file.name, *(queries or [])]
    workspace, plan = open_plan(plan_file, shows_rejected=True, shown=queries or ())
    with names_as_arguments(), elapsed_time("explaining the plan"):
        explanation = workspace.explain(plan, queries or None)
    if json:
        print_json("explain", explanation.to_dict())
    else:
        explanation.print(console())
