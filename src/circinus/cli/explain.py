"""`circinus explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import DEFAULT_PLAN, Json, PlanFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from circinus.api.plan_context import LoadedPlan
    from circinus.estimation import Correction
    from circinus.profiling import PipelineProfile


def explain(
    plan_file: PlanFile = DEFAULT_PLAN,
    queries: Annotated[list[str] | None, typer.Argument(help="Only these queries.", show_default="all")] = None,
    json: Json = False,
) -> None:
    """Say why each query got its plan, what else there was or may be, and what would let a rejected one in."""
    from circinus.api.plan_context import load_plan
    from circinus.api.profile_summary import search_summary_json
    from circinus.cli.output import console, print_json
    from circinus.reporting.explanation import assignment_explanation, rejection_explanation
    from circinus.reporting.plan_table import PLAN_LEGEND, deployment_table, price_table
    from circinus.reporting.profile_table import correction_table, search_summary

    opened = load_plan(plan_file)
    matching = opened.plan_set.matching
    decisions = {a.query: a for a in matching.assignments} | {r.query: r for r in matching.rejections}
    for name in queries or ():
        if name not in decisions:
            raise typer.BadParameter(f"found no query {name} in {plan_file}, expected one of {', '.join(decisions)}")
    chosen = queries or list(decisions)
    known = {query.name: query for query in opened.specification.queries}
    profiles = _profiles(opened, {known[name].pipeline for name in chosen})
    if json:
        further = {
            name: {
                "search": search_summary_json(profiles.get(known[name].pipeline)),
                "corrections": _corrections(opened, {known[name].pipeline}),
            }
            for name in chosen
        }
        print_json("explain", {name: {**vars(decisions[name]), **further[name]} for name in chosen})
        return
    for assignment in matching.assignments:
        if assignment.query in chosen:
            console().print(assignment_explanation(assignment, known[assignment.query]))
    for rejection in matching.rejections:
        if rejection.query in chosen:
            console().print(rejection_explanation(rejection, known[rejection.query]))
    for name, profile in profiles.items():
        console().print(f"pipeline {name}: {search_summary(profile)}", markup=False, highlight=False)
    corrections = _corrections(opened, {known[name].pipeline for name in chosen})
    if corrections:
        console().print(correction_table(corrections))
    console().print(PLAN_LEGEND, style="dim", markup=False, highlight=False)
    if not queries:
        console().print(deployment_table(matching.deployments))
        console().print(price_table(matching.prices))


def _corrections(opened: LoadedPlan, pipelines: Collection[str]) -> tuple[Correction, ...]:
    """Those that the plan was made with, of the operators of some pipelines."""
    specified = opened.specification.pipelines
    used = {operator.uses for name in pipelines for operator in specified[name].operators}
    return tuple(entry for entry in opened.plan_set.corrections.entries if entry.uses in used)


def _profiles(opened: LoadedPlan, pipelines: Iterable[str]) -> Mapping[str, PipelineProfile]:
    """What is known of pipelines by now, with what is said of the configurations that were not measured.

    Left out where the store is gone, and where it was filled from a trace.
    """
    from circinus.errors import OperatorError, ProfileError
    from circinus.planning.sampler import make_sampler
    from circinus.profiling import load_profile

    found = {}
    for name in sorted(pipelines):
        explorer, seed = make_sampler(opened.specification, name), opened.plan_set.seed
        try:
            found[name] = load_profile(
                opened.specification, name, opened.store, seed=seed, judged=True, explorer=explorer
            )
        except (OperatorError, ProfileError):
            continue
    return found
