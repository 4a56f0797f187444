"""Tables of plans, deployments and shadow prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from circinus.estimation import Estimate
from circinus.matching import Assignment, Matching, Rejection, ShadowPrice, SizedDeployment, TenantShare
from circinus.planning import BestEffortPlan
from circinus.planning.near_misses import describe_violation
from circinus.reporting.tables import MetricNames, make_table
from circinus.specification import KnobValues, Query, QueryPlan
from circinus.specification.formatting import (
    ACCURACY,
    format_bytes,
    format_duration,
    format_latency_bound,
    format_percentage,
    format_score,
    format_usd_per_h,
    with_metric,
)

PLAN_LEGEND = (
    "plan: POOL: OPERATOR VALUES (REPLICA), ... → POOL: ...; VALUES: knob values in the order of the knob names (named"
    " if there are more than two); REPLICA: CPUs and batch size of a replica, unless both are 1"
)
"""Legend of `plan_text`, printed once below the plans."""

_MAX_UNNAMED = 2
"""Maximum number of knobs of an operator whose values are shown without names."""


def plan_text(plan: QueryPlan, estimate: Estimate) -> str:
    """Return the configuration, placement and replica sizes of a plan in topological order.

    `phone: denoise none, voice_activity webrtc → office: speech_to_text 5 whisper-tiny (2 CPUs, batch 4)`: consecutive
    operators in a pool are grouped. Knob values are in the order of the knob names, which are shown for more than two.

    Args:
        plan: the plan.
        estimate: estimate of the plan, with the order of the operators.
    """
    groups = groupby(estimate.stages, key=lambda stage: stage.pool)
    return " → ".join(
        f"{pool}: {', '.join(_operator_text(plan, stage.operator) for stage in stages)}" for pool, stages in groups
    )


def distinct_plan_texts(plans: Sequence[tuple[QueryPlan, Estimate]]) -> list[str]:
    """Return the text of each plan, with its utilization targets where another plan reads the same without."""
    texts = [plan_text(plan, estimate) for plan, estimate in plans]
    return [
        text if texts.count(text) == 1 else f"{text}; {_utilization_targets(plan, estimate)}"
        for text, (plan, estimate) in zip(texts, plans, strict=True)
    ]


def _utilization_targets(plan: QueryPlan, estimate: Estimate) -> str:
    operators = (stage.operator for stage in estimate.stages)
    targets = (f"{operator} {plan.allocation_of(operator).utilization_target:.0%}" for operator in operators)
    return f"utilized at most: {', '.join(targets)}"


def _operator_text(plan: QueryPlan, operator: str) -> str:
    knobs = plan.configuration[operator].values
    values = (str(value) if len(knobs) <= _MAX_UNNAMED else f"{name}={value}" for name, value in knobs)
    allocation = plan.allocation_of(operator)
    replica = []
    if allocation.cpus != 1:
        replica.append(format_cpus(allocation.cpus))
    if allocation.batch_size != 1:
        replica.append(f"batch {allocation.batch_size}")
    return " ".join((operator, *values, *((f"({', '.join(replica)})",) if replica else ())))


def operator_text(operator: str, knobs: KnobValues) -> str:
    """Return an operator with its knob values, if it has knobs: `denoise(strength=2)`."""
    return f"{operator}({knobs})" if knobs.values else operator


def format_cpus(cpus: float) -> str:
    """Return `1 CPU` for 1, and `0.5 CPUs` for 0.5."""
    return "1 CPU" if cpus == 1 else f"{cpus:g} CPUs"


def format_probability(value: float) -> str:
    """Return `0.83` for 0.834; never round to certainty: `> 0.99`."""
    if 0.995 <= value < 1:
        return "> 0.99"
    if 0 < value < 0.005:
        return "< 0.01"
    return f"{value:.2f}"


def best_effort_text(best: BestEffortPlan, query: Query, metric: str = ACCURACY) -> str:
    """Return the best plan without a guarantee, its SLO probability in isolation, and the bounds that miss SLOs."""
    estimate, slos = best.candidate.estimate, query.slos.by_kind
    missed = [describe_violation(estimate, slos[kind]) for kind in estimate.violations(query.slos)]
    text = (
        f"best plan so far: {plan_text(best.candidate.plan, estimate)}; in isolation, at its utilization targets, it "
        f"meets the SLOs with probability {format_probability(best.probability)}, estimated from {best.items} of "
        f"{best.population} items"
    )
    bounds = f"; its guaranteed bounds are wider: {' and '.join(missed)}"
    return with_metric(f"{text}{bounds}" if missed else text, metric)


def plan_table(
    matching: Matching, queries: Mapping[str, Query], metrics: Mapping[str, str] | None = None
) -> RenderableType:
    """Return a table with the plan and estimate, or rejection, of every query, with totals.

    Args:
        matching: plans and rejections.
        queries: queries by name.
        metrics: query -> name of its metric.
    """
    names = MetricNames(metrics or {}, queries)
    table = make_table("Plans", ("query", "SLOs", "plan"), ("latency", names.column, "cost"))
    for assignment in matching.assignments:
        table.add_row(*_assignment_row(assignment, queries[assignment.query], names))
    for rejection in matching.rejections:
        slos = names.text(rejection.query, queries[rejection.query].slos)
        table.add_row(rejection.query, escape(slos), "[red]rejected[/red] (see below)", "", "", "")
    served = len(matching.assignments)
    totals = Text(
        f"{served} of {served + len(matching.rejections)} queries served, weight {matching.satisfied_weight:g} of "
        f"{matching.total_weight:g} ({_optimality(matching)}), {format_usd_per_h(matching.cost_usd_per_h)} in total"
    )
    rejections = [
        _rejection_line(rejection, queries[rejection.query], names.of(rejection.query))
        for rejection in matching.rejections
    ]
    if any(rejection.relaxation is None for rejection in matching.rejections):
        rejections.append(Text("changes that would serve a rejected query: `circinus explain PLAN QUERY`", style="dim"))
    tenants = [_tenant_line(share) for share in matching.tenants]
    return Group(table, Text(PLAN_LEGEND, style="dim"), *rejections, totals, *_change_limit_line(matching), *tenants)


def _rejection_line(rejection: Rejection, query: Query, metric: str) -> Text:
    line = Text.assemble(f"{query.name}: ", ("rejected", "red"), f": {with_metric(rejection.reason, metric)}")
    if rejection.relaxation is not None:
        line.append(f"; it would be admitted with {with_metric(rejection.relaxation.change, metric)}")
    if rejection.best_so_far is not None:
        line.append(f"; {best_effort_text(rejection.best_so_far, query, metric)}")
    return line


def _tenant_line(share: TenantShare) -> Text:
    text = f"tenant {share.tenant}: weight {share.satisfied_weight:g} of {share.total_weight:g} ({share.share:.0%})"
    if share.guaranteed_share == 0:
        return Text(text)
    if share.is_met:
        return Text(f"{text}, guaranteed {share.guaranteed_share:.0%}")
    return Text(
        f"{text}, below the guaranteed {share.guaranteed_share:.0%}: no matching with more was found", style="yellow"
    )


def _optimality(matching: Matching) -> str:
    """Return the bounds on the weight and cost of all matchings of plans at utilization targets.

    Other plans may do better: a query without one is served by a second look at times (see `second_look`).
    """
    bound = f"bound {matching.weight_bound:g} over all plans at utilization targets"
    if matching.optimal:
        return f"{bound}, proved optimal among them"
    gap = matching.weight_bound - matching.satisfied_weight
    best = f"best found, gap {gap:.4g}" if gap > 0 else "no gap"
    return f"{bound}, {best}; cost gap at most {format_percentage(matching.cost_gap)}"


def _change_limit_line(matching: Matching) -> list[Text]:
    if matching.weight_with_more_changes is None:
        return []
    text = f"weight {matching.weight_with_more_changes:g} was found with more changes of running plans than are allowed"
    return [Text(text, style="yellow")]


def price_table(prices: tuple[ShadowPrice, ...]) -> RenderableType:
    """Return a table of the binding resources and their shadow prices, the most valuable first."""
    binding = [price for price in prices if price.weight > 0 or price.saving_usd_per_h > 0]
    if not binding:
        return Text("no resource is binding: as if queries and replicas were divisible, none has a shadow price")
    figures = ("used", "capacity", "weight per unit", "saving per unit")
    table = make_table("Binding resources", ("resource",), figures)
    for price in sorted(binding, key=lambda price: (-price.weight * price.capacity, -price.saving_usd_per_h)):
        table.add_row(
            price.resource,
            f"{price.used:.0%}",
            f"{price.capacity:.4g} {price.unit}",
            f"{price.weight:.3g}" if price.weight > 0 else "",
            format_usd_per_h(price.saving_usd_per_h) if price.saving_usd_per_h > 0 else "",
        )
    note = "Marginal values, as if queries and replicas were divisible; a whole replica may need several units."
    return Group(table, Text(note, style="dim"))


def _assignment_row(assignment: Assignment, query: Query, metrics: MetricNames) -> tuple[str, ...]:
    estimate = assignment.chosen.estimate
    return (
        assignment.query,
        escape(metrics.text(query.name, query.slos)),
        escape(plan_text(assignment.chosen.plan, estimate)),
        _latency(estimate),
        metrics.cell(query.name, f"{format_score(estimate.accuracy.value)}\n{_accuracy_bound(estimate, query)}"),
        format_usd_per_h(estimate.cost_usd_per_h.value),
    )


def _latency(estimate: Estimate) -> str:
    """Return the latency, and its origin if formulas may be inaccurate."""
    value, bound = format_duration(estimate.latency_s.value), format_latency_bound(estimate.latency_s.upper)
    text = f"p{estimate.percentile:g} {value}\n≤ {bound}"
    if not estimate.caveats:
        return text
    return f"{text}\n{'simulated' if estimate.simulated else 'rough'}"


def _accuracy_bound(estimate: Estimate, query: Query) -> str:
    slo = query.slos.accuracy
    if slo is not None and not slo.is_minimum:
        return f"≤ {format_score(estimate.accuracy.upper)}"
    return f"≥ {format_score(estimate.accuracy.lower)}"


def deployment_table(deployments: tuple[SizedDeployment, ...]) -> RenderableType:
    """Return a table of the sized deployments."""
    texts, figures = ("operator", "pool", "replicas"), ("utilization", "start-up", "cost")
    table = make_table("Deployments", texts, figures, no_wrap=True)
    for sized in sorted(deployments, key=lambda d: (d.deployment.pool, d.deployment.pipeline, d.deployment.operator)):
        deployment, demand = sized.deployment, sized.demand
        replica = (
            f"{format_cpus(demand.cpus)}, {format_bytes(demand.memory_bytes)}, batch {deployment.allocation.batch_size}"
        )
        table.add_row(
            escape(f"{deployment.pipeline}/{operator_text(deployment.operator, deployment.knobs)}"),
            deployment.pool,
            f"{sized.replicas} x ({replica})",
            f"{sized.utilization:.0%}",
            "" if sized.startup_s is None else format_duration(sized.startup_s),
            format_usd_per_h(demand.cost_usd_per_h * sized.replicas),
        )
    return table
