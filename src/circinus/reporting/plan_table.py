"""The plans of all queries, and the deployments they share, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate
from circinus.matching import Assignment, Matching, ShadowPrice, SizedDeployment, TenantShare
from circinus.planning import BestEffortPlan
from circinus.profiling import MIN_ITEMS
from circinus.specification import Query, QueryPlan
from circinus.specification.formatting import (
    ceil_significant,
    format_bytes,
    format_duration,
    format_latency_bound,
    format_percentage,
    format_score,
    format_usd_per_h,
)

PLAN_LEGEND = (
    "plan: POOL: OPERATOR VALUES (REPLICA), ... → POOL: ...; VALUES of the knobs in the order of their names, which"
    " are shown where there are more than two; REPLICA: what each replica is given and how many items it takes at once,"
    " where that is not 1 CPU and 1 item"
)
"""How to read a plan; printed once below the plans."""

_UNNAMED = 2
"""Knobs of an operator whose values can be told apart without their names."""


def plan_text(plan: QueryPlan, estimate: Estimate) -> str:
    """Configuration, placement and the size of replicas in the order of the flow.

    `phone: denoise none, voice_activity webrtc → office: speech_to_text 5 whisper-tiny (2 CPUs, batch 4)`: knobs show
    their values only, in the order of the knobs' names, up to two of an operator; operators next to each other on one
    pool stand together.

    Args:
        plan: what to show.
        estimate: of the plan; knows the order of the operators.
    """
    groups = groupby(estimate.stages, key=lambda stage: stage.pool)
    return " → ".join(
        f"{pool}: {', '.join(_operator_text(plan, stage.operator) for stage in stages)}" for pool, stages in groups
    )


def _operator_text(plan: QueryPlan, operator: str) -> str:
    knobs = plan.configuration[operator].values
    values = (str(value) if len(knobs) <= _UNNAMED else f"{name}={value}" for name, value in knobs)
    allocation = plan.allocation_of(operator)
    replica = []
    if allocation.cpus != 1:
        replica.append(f"{allocation.cpus:g} CPUs")
    if allocation.batch_size != 1:
        replica.append(f"batch {allocation.batch_size}")
    return " ".join((operator, *values, *((f"({', '.join(replica)})",) if replica else ())))


def format_probability(value: float) -> str:
    """`0.834` -> `0.83`; what is rounded to certainty without being it says so: `> 0.99`."""
    if 0.995 <= value < 1:
        return "> 0.99"
    if 0 < value < 0.005:
        return "< 0.01"
    return f"{value:.2f}"


def best_effort_text(best: BestEffortPlan, query: Query) -> str:
    """The plan, how likely it keeps the objectives, and what would help to have it promised.

    A higher risk helps with latency; accuracies are bounded for all configurations of a run together, which takes more
    items than any risk makes up for.
    """
    estimate = best.candidate.estimate
    words = (
        f"best plan so far: {plan_text(best.candidate.plan, estimate)}, keeps its objectives with probability "
        f"{format_probability(best.probability)} as far as {best.items} of {best.population} items tell"
    )
    advice = []
    if best.items < best.population:
        advice.append("measure for longer (circinus profile)")
    higher = 0.5 <= best.probability < 1 - query.risk
    if higher and best.items >= MIN_ITEMS and estimate.violations(query.slos) == ("latency",):
        advice.append(f"accept a risk above {ceil_significant(1 - best.probability, 2):g} (spec.risk)")
    return f"{words}; {', or '.join(advice)}" if advice else words


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
            wanted += f"; {escape(best_effort_text(rejection.best_so_far, query))}"
        table.add_row(query.name, str(query.slos), wanted, "", "", "")
    served = len(matching.assignments)
    sums = Text(
        f"{served} of {served + len(matching.rejections)} queries served, weight {matching.satisfied_weight:g} of "
        f"{matching.total_weight:g} ({_proof(matching)}), {format_usd_per_h(matching.cost_usd_per_h)} in total"
    )
    tenants = [_tenant_line(share) for share in matching.tenants]
    return Group(table, Text(PLAN_LEGEND, style="dim"), sums, *tenants)


def _tenant_line(share: TenantShare) -> Text:
    words = f"tenant {share.tenant}: weight {share.satisfied_weight:g} of {share.total_weight:g} ({share.share:.0%})"
    if share.promised == 0:
        return Text(words)
    if share.kept:
        return Text(f"{words}, promised {share.promised:.0%}")
    return Text(f"{words}, less than the {share.promised:.0%} promised: no more was found to fit", style="yellow")


def _proof(matching: Matching) -> str:
    """How much better any matching of the same candidates could be."""
    if matching.optimal:
        return f"bound {matching.weight_bound:g}, proved optimal over the candidates"
    missing = matching.weight_bound - matching.satisfied_weight
    return (
        f"bound {matching.weight_bound:g}, so at most {missing:.4g} more over the candidates; "
        f"this weight costs at most {format_percentage(matching.cost_gap)} too much"
    )


def price_table(prices: tuple[ShadowPrice, ...]) -> RenderableType:
    """What binds, the dearest first, and what one more unit of it would be worth."""
    binding = [price for price in prices if price.weight > 0 or price.saving_usd_per_h > 0]
    if not binding:
        return Text("no resource binds: more of any would serve no further query, nor lower the cost")
    table = Table(title="What binds", title_justify="left")
    table.add_column("resource", overflow="fold")
    for column in ("used", "of", "one more unit adds weight", "or saves"):
        table.add_column(column, justify="right")
    for price in sorted(binding, key=lambda price: (-price.weight * price.capacity, -price.saving_usd_per_h)):
        table.add_row(
            price.resource,
            f"{price.used:.0%}",
            f"{price.capacity:.4g} {price.unit}",
            f"{price.weight:.3g}" if price.weight > 0 else "",
            format_usd_per_h(price.saving_usd_per_h) if price.saving_usd_per_h > 0 else "",
        )
    note = "At the margin, and as if queries and replicas could be divided: whole ones may need several units at once."
    return Group(table, Text(note, style="dim"))


def _assignment_row(assignment: Assignment, query: Query) -> tuple[str, ...]:
    estimate = assignment.chosen.estimate
    return (
        assignment.query,
        str(query.slos),
        escape(plan_text(assignment.chosen.plan, estimate)),
        _latency(estimate),
        f"{format_score(estimate.accuracy.value)}\n{_promised_accuracy(estimate, query)}",
        format_usd_per_h(estimate.cost_usd_per_h.value),
    )


def _latency(estimate: Estimate) -> str:
    """Return the latency, and how it was computed where formulas are inaccurate."""
    value, bound = format_duration(estimate.latency_s.value), format_latency_bound(estimate.latency_s.upper)
    text = f"p{estimate.percentile:g} {value}\n≤ {bound}"
    if not estimate.caveats:
        return text
    return f"{text}\n{'simulated' if estimate.simulated else 'a guess'}"


def _promised_accuracy(estimate: Estimate, query: Query) -> str:
    slo = query.slos.accuracy
    if slo is not None and slo.comparison == "<=":
        return f"≤ {format_score(estimate.accuracy.upper)}"
    return f"≥ {format_score(estimate.accuracy.lower)}"


def deployment_table(deployments: tuple[SizedDeployment, ...]) -> RenderableType:
    """The deployments as sized."""
    table = Table(title="Deployments", title_justify="left")
    for column in ("operator", "knobs", "pool"):
        table.add_column(column, overflow="fold")
    for column in ("replicas", "CPUs each", "memory each", "batch", "busy", "start-up", "cost"):
        table.add_column(column, justify="right")
    for sized in sorted(deployments, key=lambda d: (d.deployment.pool, d.deployment.pipeline, d.deployment.operator)):
        deployment = sized.deployment
        table.add_row(
            f"{deployment.pipeline}/{deployment.operator}",
            escape(str(deployment.knobs)),
            deployment.pool,
            str(sized.replicas),
            f"{sized.demand.cpus:g}",
            format_bytes(sized.demand.memory_bytes),
            str(deployment.allocation.batch_size),
            f"{sized.utilization:.0%}",
            "" if sized.startup_s is None else format_duration(sized.startup_s),
            format_usd_per_h(sized.demand.cost_usd_per_h * sized.replicas),
        )
    return table
