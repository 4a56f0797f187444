"""`circinus admit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import DEFAULT_PLAN, Json
from circinus.cli.trace_options import Traces, load_trace_backends

if TYPE_CHECKING:
    from circinus.api.plan_context import LoadedPlan
    from circinus.specification import Query


def admit(
    query: Annotated[str, typer.Argument(help="A query of the specification that the plan does not serve.")],
    plan_file: Annotated[Path, typer.Option("--plan", help="Plan file of what runs.")] = DEFAULT_PLAN,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Answer, and leave the plan file as it is.")] = False,
    trace: Traces = None,
    json: Json = False,
) -> None:
    """Let one more query in beside what runs; all other plans stay as they are. Ends with 1 where it is refused."""
    from datetime import UTC, datetime
    from time import perf_counter

    from circinus.api.plan_context import load_plan
    from circinus.cli.output import console, print_json
    from circinus.matching import add_query, admit_query, save_plan_set
    from circinus.reporting.explanation import admission_text
    from circinus.specification.formatting import format_duration, format_usd_per_h

    opened = load_plan(plan_file, one_more=query)
    asked = _asked(opened, plan_file, query)
    matching = opened.plan_set.matching
    served = [assignment for assignment in matching.assignments if assignment.query == query]
    if served:
        if json:
            nothing = {"written": None, "rejection": None, "binding": (), "more_usd_per_h": 0.0, "answered_s": 0.0}
            print_json("admit", {"query": query, "admitted": True, "assignment": served[0], **nothing})
        else:
            console().print(f"{plan_file} serves {query} already", markup=False, highlight=False)
        return
    profiles = opened.profiles({asked.pipeline}, load_trace_backends(trace, opened.specification))
    started = perf_counter()
    admission, after = admit_query(opened.specification, profiles, matching, query)
    answered_s = perf_counter() - started
    admitted = admission.assignment is not None
    if admitted and not dry_run:
        plan_set = add_query(
            opened.plan_set,
            opened.specification,
            profiles[asked.pipeline],
            after,
            query,
            created_at=datetime.now(UTC),
            planning_s=answered_s,
        )
        save_plan_set(plan_set, plan_file)
    more_usd_per_h = after.cost_usd_per_h - matching.cost_usd_per_h
    if json:
        print_json(
            "admit",
            {
                "query": query,
                "admitted": admitted,
                "written": plan_file if admitted and not dry_run else None,
                "assignment": admission.assignment,
                "rejection": admission.rejection,
                "binding": admission.binding,
                "more_usd_per_h": more_usd_per_h if admitted else None,
                "answered_s": answered_s,
            },
        )
    else:
        console().print(admission_text(admission))
        end = f"{plan_file} is as it was"
        if admitted:
            end = f"admitted, {format_usd_per_h(more_usd_per_h)} more in total; "
            end += f"{plan_file} is as it was (--dry-run)" if dry_run else f"written to {plan_file}"
        console().print(f"answered in {format_duration(answered_s)}: {end}", markup=False, highlight=False)
    if not admitted:
        raise typer.Exit(1)


def _asked(opened: LoadedPlan, plan_file: Path, name: str) -> Query:
    queries = {query.name: query for query in opened.specification.queries}
    if name not in queries:
        raise typer.BadParameter(
            f"found no query {name} in the specification of {plan_file}, expected one of {', '.join(queries)}"
        )
    return queries[name]
