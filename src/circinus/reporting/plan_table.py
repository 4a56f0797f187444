"""The plans of all queries, and the deployments they share, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circinus.matching import Assignment, Matching, SizedDeployment
from circinus.reporting.quantities import duration, score, size, usd_per_h
from circinus.spec import Plan, Query, Slos


def slos_text(slos: Slos) -> str:
    """All objectives in one line."""
    parts = []
    if slos.latency is not None:
        parts.append(f"p{slos.latency.percentile:g} ≤ {duration(slos.latency.limit_s)}")
    if slos.accuracy is not None:
        sign = "≥" if slos.accuracy.comparison == ">=" else "≤"
        parts.append(f"accuracy {sign} {slos.accuracy.threshold:g}")
    if slos.cost is not None:
        parts.append(f"cost ≤ {usd_per_h(slos.cost.limit_usd_per_h)}")
    return ", ".join(parts) or "none"


def plan_text(plan: Plan) -> str:
    """Configuration and placement in one line: only operators with knobs show their values."""
    return f"{plan.configuration} · {placement_text(plan)}"


def placement_text(plan: Plan) -> str:
    """Which pools are used by which operators, neighbours on one pool together."""
    by_pool: dict[str, list[str]] = {}
    for operator, pool in plan.placement:
        by_pool.setdefault(pool, []).append(operator)
    if len(by_pool) == 1:
        return f"all on {next(iter(by_pool))}"
    return "; ".join(f"{', '.join(operators)} on {pool}" for pool, operators in by_pool.items())


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
        wanted = f"[red]rejected[/red]: {rejection.reason}"
        if rejection.relaxation is not None:
            wanted += f"; would be served with {rejection.relaxation.change}"
        table.add_row(query.name, slos_text(query.slos), wanted, "", "", "")
    served = len(matching.assignments)
    sums = Text(
        f"{served} of {served + len(matching.rejections)} queries served, weight {matching.satisfied_weight:g} of "
        f"{matching.total_weight:g} (bound {matching.weight_bound:g}"
        f"{', proved optimal over the candidates' if matching.optimal else ''}), "
        f"{usd_per_h(matching.cost_usd_per_h)} in total"
    )
    return Group(table, sums)


def _assignment_row(assignment: Assignment, query: Query) -> tuple[str, ...]:
    estimate = assignment.chosen.estimate
    return (
        assignment.query,
        slos_text(query.slos),
        plan_text(assignment.chosen.plan),
        f"p{estimate.percentile:g} {duration(estimate.latency_s.value)}\n≤ {duration(estimate.latency_s.upper)}",
        f"{score(estimate.accuracy.value)}\n≥ {score(estimate.accuracy.lower)}",
        usd_per_h(estimate.cost_usd_per_h.value),
    )


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
            str(deployment.knobs),
            deployment.pool,
            str(sized.replicas),
            f"{sized.demand.cpus:g}",
            size(sized.demand.memory_bytes),
            str(deployment.allocation.batch_size),
            f"{sized.utilization:.0%}",
            usd_per_h(sized.demand.cost_usd_per_h * sized.replicas),
        )
    return table
