"""Explanations of plans and rejections."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate
from circinus.matching import Admission, Alternative, Assignment, Rejection, ShadowPrice
from circinus.planning import Ladder, Rung
from circinus.reporting.plan_table import best_effort_text, distinct_plan_texts, format_probability, plan_text
from circinus.reporting.tables import make_table
from circinus.specification import PoissonArrivals, Query, SloKind
from circinus.specification.formatting import (
    ACCURACY,
    format_duration,
    format_interval,
    format_latency_bound,
    format_score,
    format_usd_per_h,
    with_metric,
)

_SMALLEST = "smallest relaxation found that admits the query alongside the other queries"


def ladder_table(ladder: Ladder, metric: str = ACCURACY) -> Table:
    """Return a table with a row for each rung, the largest margin first; the selected plan is marked."""
    title = "ladder: plans to degrade to under bursts, each estimated for this query in isolation"
    figures = ("CPU per\nrequest", "cost fully\nshared", "latency", metric, "probability")
    table = make_table(title, ("", "plan"), figures, one_line=True)
    texts = distinct_plan_texts([(rung.candidate.plan, rung.candidate.estimate) for rung in ladder.rungs])
    for index, (rung, text) in enumerate(zip(ladder.rungs, texts, strict=True)):
        estimate = rung.candidate.estimate
        table.add_row(
            "→" if index == ladder.chosen else "",
            escape(text + _changes(rung)),
            format_duration(rung.cpu_s_per_request),
            format_usd_per_h(rung.shared_usd_per_h),
            f"≤ {format_latency_bound(estimate.latency_s.upper)}",
            format_score(estimate.accuracy.value),
            "-" if estimate.slo_probability is None else format_probability(estimate.slo_probability.joint),
        )
    return table


def _changes(rung: Rung) -> str:
    changes = "; ".join(f"{change.operator}: {', '.join(change.changed)}" for change in rung.changes)
    return f"\nchanges {changes}" if changes else ""


def assignment_explanation(assignment: Assignment, query: Query, metric: str = ACCURACY) -> RenderableType:
    """Return the selected plan with its estimate for each SLO, mean times, ladder and best alternatives.

    Args:
        assignment: the plan.
        query: its query.
        metric: name of the metric of the query's pipeline.
    """
    estimate = assignment.chosen.estimate
    chosen, *others = distinct_plan_texts(
        [(assignment.chosen.plan, estimate), *((other.plan, other.estimate) for other in assignment.alternatives)]
    )
    return Group(
        _heading(query),
        Text(f"plan: {chosen}"),
        Text(f"reason: {with_metric(assignment.reason, metric)}"),
        _slo_table(estimate, query, metric),
        *_probability(estimate, query, metric),
        *_caveats(estimate),
        _stages(assignment),
        *_ladder(assignment, metric),
        _alternatives(assignment.alternatives, others, metric),
        Text(""),
    )


def _heading(query: Query) -> Text:
    """Return the query with its load; Poisson arrivals are the default and omitted."""
    arrivals = "" if isinstance(query.arrivals, PoissonArrivals) else f" ({query.arrivals})"
    load = f"  {query.pipeline} from {query.source}, {query.rate_per_s:g}/s{arrivals}"
    return Text.assemble((query.name, "bold"), load)


def rejection_explanation(rejection: Rejection, query: Query, metric: str = ACCURACY) -> RenderableType:
    """Return the reason of the rejection, the changes that would serve the query, and the best alternatives.

    Args:
        rejection: the rejection.
        query: its query.
        metric: name of the metric of the query's pipeline.
    """
    lines = [
        _heading(query),
        Text.assemble(("rejected", "red"), f": {with_metric(rejection.reason, metric)}"),
        Text(f"SLOs: {with_metric(str(query.slos), metric)}"),
        Text(f"binding: {', '.join(rejection.binding)}"),
    ]
    if rejection.best_so_far is not None:
        lines.append(Text(best_effort_text(rejection.best_so_far, query, metric)))
    relaxation = rejection.relaxation
    if rejection.unrelaxable:
        lines.append(Text("no relaxation of a single SLO was found that admits the query alongside the other queries"))
    if relaxation is not None:
        kind = "several relaxed together admit it" if rejection.unrelaxable else _SMALLEST
        lines += [
            Text(f"{kind}: {with_metric(relaxation.change, metric)}; in its specification: slos: [{relaxation.slos}]"),
            Text(f"with {plan_text(relaxation.plan, relaxation.estimate)}"),
        ]
    lines += [Text(with_metric(advice.sentence, metric)) for advice in rejection.advice]
    texts = distinct_plan_texts([(alternative.plan, alternative.estimate) for alternative in rejection.alternatives])
    return Group(*lines, _alternatives(rejection.alternatives, texts, metric), Text(""))


def _probability(estimate: Estimate, query: Query, metric: str) -> list[Text]:
    probability, slos = estimate.slo_probability, query.slos
    uncertain = slos.without_cost.by_kind
    if probability is None or not uncertain:
        return []
    names = {kind: metric if kind is SloKind.ACCURACY else kind for kind in uncertain}
    parts = [f"{name} {format_probability(getattr(probability, kind))}" for kind, name in names.items()]
    return [Text(f"probability of meeting the SLOs: {format_probability(probability.joint)} ({', '.join(parts)})")]


def _caveats(estimate: Estimate) -> list[Text]:
    """Return why the latency formula may be inaccurate, and whether the latency was simulated instead."""
    if not estimate.caveats:
        return []
    latency = "is from a joint simulation of all queries" if estimate.simulated else "is a rough estimate"
    return [Text(f"the latency {latency}, as formulas may be inaccurate: {'; '.join(estimate.caveats)}")]


def _ladder(assignment: Assignment, metric: str) -> list[RenderableType]:
    ladder = assignment.ladder
    if ladder is None:
        return []
    return (
        [ladder_table(ladder, metric)]
        if len(ladder.rungs) > 1
        else [Text("no ladder: there is no other plan to switch to")]
    )


def _slo_table(estimate: Estimate, query: Query, metric: str) -> Table:
    table = Table("metric", "estimate (bounds)", "SLO", "margin")
    latency = format_interval(format_latency_bound, estimate.latency_s)
    cost = format_interval(format_usd_per_h, estimate.cost_usd_per_h)
    rows = (
        (SloKind.LATENCY, f"latency p{estimate.percentile:g}", latency, format_duration),
        (SloKind.ACCURACY, escape(metric), format_interval(format_score, estimate.accuracy), format_score),
        (SloKind.COST, "cost share (fully shared to dedicated)", cost, format_usd_per_h),
    )
    for kind, title, bounds, format_margin in rows:
        slo = query.slos.by_kind.get(kind)
        margin = "-" if slo is None else format_margin(slo.margin(estimate.compared_value(slo, sized=True)))
        table.add_row(title, bounds, str(slo or "-"), margin)
    return table


def _stages(assignment: Assignment) -> Table:
    table = Table("operator", "pool", "transfer", "wait", "service", title="mean times", title_justify="left")
    for stage in assignment.chosen.estimate.stages:
        table.add_row(
            stage.operator,
            stage.pool,
            format_duration(stage.transfer_s),
            format_duration(stage.wait_s),
            format_duration(stage.service_s),
        )
    table.add_row("(return of result)", "", format_duration(assignment.chosen.estimate.return_s), "", "")
    return table


def _alternatives(alternatives: tuple[Alternative, ...], texts: Sequence[str], metric: str) -> RenderableType:
    if not alternatives:
        return Text("no alternatives")
    title = (
        "alternatives, each estimated for this query in isolation with deployments at their utilization targets (the "
        "selected plan: as deployed); 'in total' is the cost of all queries together"
    )
    table = make_table(None, ("plan",), ("latency", metric, "dedicated cost\n(fully shared)"), "reason")
    for alternative, text in zip(alternatives, texts, strict=True):
        estimate = alternative.estimate
        table.add_row(
            escape(text),
            format_duration(estimate.latency_s.value),
            format_score(estimate.accuracy.value),
            f"{format_usd_per_h(estimate.cost_usd_per_h.upper)}\n({format_usd_per_h(estimate.cost_usd_per_h.lower)})",
            escape(with_metric(alternative.reason, metric)),
        )
    return Group(Text(title, style="italic"), table)


def admission_text(admission: Admission, metric: str = ACCURACY) -> RenderableType:
    """Return the explanation of an admission decision; that of a rejection includes shadow prices."""
    if admission.assignment is not None:
        return assignment_explanation(admission.assignment, admission.query, metric)
    assert admission.rejection is not None
    prices = [Text(_shadow_price_text(price)) for price in admission.binding]
    return Group(rejection_explanation(admission.rejection, admission.query, metric), *prices)


def _shadow_price_text(price: ShadowPrice) -> str:
    """Return `pool edge: cpus is 97% used; if queries ... were divisible, one more CPU would add a weight of 0.4`."""
    effects = [f"add a weight of {price.weight:.3g}"] if price.weight > 0 else []
    effects += [f"save {format_usd_per_h(price.saving_usd_per_h)}"] if price.saving_usd_per_h > 0 else []
    effect = " and ".join(effects) or "change nothing"
    marginal = "if queries and replicas were divisible"
    return f"{price.resource} is {price.used:.0%} used; {marginal}, one more {price.unit} would {effect}"
