"""The plans of all queries, and the deployments they share, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate
from circinus.matching import Assignment, Matching, SizedDeployment
from circinus.reporting.odds_text import best_so_far_text
from circinus.reporting.plan_text import PLAN_LEGEND, plan_text
from circinus.spec import Query
from circinus.spec.spoken import duration, score, size, usd_per_h


def plan_table(matching: Matching, queries: Mapping[str, Query]) -> RenderableType:
    """All queries with their plans and estimates, and below it what was rejected and the sums."""
    table = Table(title="Plans", title_justify="left", expand=False)
    for column in ("query", "objectives", "plan"):
        table.add_column(column, overflow="fold")
    for column in ("latency", "accuracy", "cost"):
        table.add_column(column, justify="right")
    for assignment in matching.assignments:
        table.add_row(*_assignment_row(assignment, queries[assignment.query]))
    for rejection in matching.rejections:
        query = queries[rejection.query]
        wanted = f"[red]rejected[/red]: {escape(rejection.reason)}"
        if rejection.relaxation is not None:
            wanted += f"; beside the others it would be served with {rejection.relaxation.change}"
        if rejection.best_so_far is not None:
            wanted += f"; {escape(best_so_far_text(rejection.best_so_far, query))}"
        table.add_row(query.name, str(query.slos), wanted, "", "", "")
    served = len(matching.assignments)
    sums = Text(
        f"{served} of {served + len(matching.rejections)} queries served, weight {matching.satisfied_weight:g} of "
        f"{matching.total_weight:g} (bound {matching.weight_bound:g}"
        f"{', proved optimal over the candidates' if matching.optimal else ''}), "
        f"{usd_per_h(matching.cost_usd_per_h)} in total"
    )
    return Group(table, Text(PLAN_LEGEND, style="dim"), sums)


def _assignment_row(assignment: Assignment, query: Query) -> tuple[str, ...]:
    estimate = assignment.chosen.estimate
    return (
        assignment.query,
        str(query.slos),
        escape(plan_text(assignment.chosen.plan, estimate)),
        f"p{estimate.percentile:g} {duration(estimate.latency_s.value)}\n≤ {duration(estimate.latency_s.upper)}",
        f"{score(estimate.accuracy.value)}\n{_promised_accuracy(estimate, query)}",
        usd_per_h(estimate.cost_usd_per_h.value),
    )


def _promised_accuracy(estimate: Estimate, query: Query) -> str:
    slo = query.slos.accuracy
    if slo is not None and slo.comparison == "<=":
        return f"≤ {score(estimate.accuracy.upper)}"
    return f"≥ {score(estimate.accuracy.lower)}"


def deployment_table(deployments: tuple[SizedDeployment, ...]) -> RenderableType:
    """The deployments as sized."""
    table = Table(title="Deployments", title_justify="left")
    for column in ("operator", "knobs", "pool"):
        table.add_column(column, overflow="fold")
    for column in ("replicas", "CPUs each", "memory each", "batch", "busy", "cost"):
        table.add_column(column, justify="right")
    for sized in sorted(deployments, key=lambda d: (d.deployment.pool, d.deployment.pipeline, d.deployment.operator)):
        deployment = sized.deployment
        table.add_row(
            f"{deployment.pipeline}/{deployment.operator}",
            escape(str(deployment.knobs)),
            deployment.pool,
            str(sized.replicas),
            f"{sized.demand.cpus:g}",
            size(sized.demand.memory_bytes),
            str(deployment.allocation.batch_size),
            f"{sized.utilization:.0%}",
            usd_per_h(sized.demand.cost_usd_per_h * sized.replicas),
        )
    return table
