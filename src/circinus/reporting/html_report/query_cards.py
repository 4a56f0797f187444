"""Each query by itself: the reason of its decision, its latency budget, and its plans as a chart and in figures."""

from __future__ import annotations

from collections.abc import Sequence

from circinus.estimation import Estimate, PlanCandidate
from circinus.matching import Assignment, Rejection
from circinus.reporting.html_report.content import ReportContent
from circinus.reporting.html_report.frontier_chart import CHOSEN, ComparedPlan, compared_plans, frontier_chart
from circinus.reporting.html_report.markup import Html, disclosure, element, join, paragraph, table
from circinus.reporting.plan_table import (
    added_cost_text,
    best_effort_text,
    latency_bound_text,
)
from circinus.reporting.plan_text import knobs_text, plan_differences, plan_text, replica_text, split_text
from circinus.specification import PoissonArrivals, Query, QueryPlan
from circinus.specification.formatting import (
    format_bounds,
    format_duration,
    format_score,
    format_share,
    format_usd_per_h,
    with_metric,
)

_PARTS = ("link", "queue", "service")
"""Parts of a latency, and the styles of their bars."""
_OPEN = 20
"""Number of queries up to which all of them are open at first."""


def query_section(content: ReportContent) -> Html:
    """Return a card for each query, served ones first."""
    decisions: list[Assignment | Rejection] = [*content.matching.assignments, *content.matching.rejections]
    note = paragraph(
        "Each chart has the plans that the plan file names: the chosen one with its latency as deployed, others at "
        "their utilization targets, or as sized where the reason says so. Costs are those of a plan by itself; the "
        "summary has the share of the chosen one as deployed. Horizontal bars are bounds; vertical ones reach down to "
        "the cost with all replicas shared. The shaded area is where the SLOs hold for a plan by itself.",
        style="remark",
    )
    cards = (
        _card(content, index, decision, opened=len(decisions) <= _OPEN) for index, decision in enumerate(decisions)
    )
    return join((note, *cards))


def _card(content: ReportContent, index: int, decision: Assignment | Rejection, *, opened: bool) -> Html:
    query, metric = content.queries[decision.query], content.metric(decision.query)
    served = isinstance(decision, Assignment)
    arrivals = "" if isinstance(query.arrivals, PoissonArrivals) else f", {query.arrivals}"
    verdict = element("span", "served", class_="good") if served else element("span", "✗ rejected", class_="bad")
    title = element(
        "summary",
        element("h3", query.name),
        " ",
        verdict,
        f" {query.pipeline} from {query.source}, {query.rate_per_s:g}/s{arrivals}; ",
        with_metric(str(query.slos), metric),
    )
    parts = [paragraph(with_metric(decision.reason, metric))]
    if isinstance(decision, Assignment):
        parts += _budgets(decision.chosen, query)
    elif decision.best_so_far is not None:
        parts.append(paragraph(best_effort_text(decision.best_so_far, query, metric, decision.reason)))
    plans = compared_plans(decision, metric)
    if plans:
        changes = _changes(plans)
        parts += [frontier_chart(plans, changes, query, metric), _figures(plans, changes, query, metric)]
    open_ = {"open": ""} if opened else {}
    return element("details", title, *parts, id=f"query-{index}", class_="card", **open_)


def _changes(plans: Sequence[ComparedPlan]) -> list[str]:
    """Return what each plan changes of the first one, which is written in full."""
    base = plans[0]
    others = plan_differences([entry.plan for entry in plans[1:]], base.plan, base.estimate.operators)
    return [plan_text(base.plan, base.estimate), *others]


def _figures(plans: Sequence[ComparedPlan], changes: Sequence[str], query: Query, metric: str) -> Html:
    first = "chosen plan" if plans[0].place == CHOSEN else "nearest plan"
    rows = [
        (
            change if index else f"{first}: {change}",
            format_duration(plan.estimate.latency_s.value),
            latency_bound_text(plan.estimate, query.slos),
            format_score(plan.estimate.accuracy.value),
            format_bounds(format_score, plan.estimate.accuracy),
            format_usd_per_h(plan.estimate.cost_usd_per_h.upper),
            added_cost_text(plan.added_usd_per_h),
            plan.reason or plan.place,
        )
        for index, (plan, change) in enumerate(zip(plans, changes, strict=True))
    ]
    figures = ("latency", "bound", metric, "bounds", "cost by itself", "total cost")
    heads = (f"plan, or its changes of the {first}", *figures, "why not, or place")
    return disclosure(
        f"{len(plans)} {'plan' if len(plans) == 1 else 'plans'} in figures", table(heads, rows, figures=len(figures))
    )


def _budgets(candidate: PlanCandidate, query: Query) -> list[Html]:
    """Return the latency budget of a plan, or the shares of a split plan and the budget of each part."""
    if not candidate.plan.is_split:
        return [_budget(candidate.plan, candidate.estimate, query)]
    text = f"Requests divided: {split_text(candidate.plan, candidate.estimate.operators)}."
    parts = [
        _budget(part.plan, found.estimate, query, f"{format_share(part.share)} of the requests, ")
        for part, found in zip(candidate.plan.parts, candidate.parts, strict=True)
    ]
    return [paragraph(text), *parts]


def _budget(plan: QueryPlan, estimate: Estimate, query: Query, requests: str = "") -> Html:
    """Return the mean times of each operator, and of the way back, as bars on the scale of the longest."""
    stages = [
        (stage.operator, stage.pool, (stage.transfer_s, stage.wait_s, stage.service_s)) for stage in estimate.stages
    ]
    rows = [
        (knobs_text(plan, operator), pool, replica_text(plan.allocation_of(operator)), parts)
        for operator, pool, parts in stages
    ]
    if estimate.return_s > 0:
        rows.append(("result back", query.source, "", (estimate.return_s, 0.0, 0.0)))
    longest_s = max(sum(parts) for *_, parts in rows)
    cells = [
        (
            name,
            pool,
            replica,
            _stacked(parts, longest_s),
            *(format_duration(part) if part >= 5e-7 else "–" for part in parts),
        )
        for name, pool, replica, parts in rows
    ]
    limit = "" if query.slos.latency is None else f" of {query.slos.latency.limit_text}"
    caption = (
        f"Latency budget: {requests}mean times; p{estimate.percentile:g} is "
        f"{format_duration(estimate.latency_s.value)}, at most {latency_bound_text(estimate, query.slos)}{limit}"
    )
    keys = (join((element("span", "", class_=f"key {name}"), name)) for name in _PARTS)
    return table(("operator", "pool", "replica", "mean time", *keys), cells, caption=caption)


def _stacked(parts: Sequence[float], longest_s: float) -> Html:
    """Return times as parts of one bar."""
    pieces = (
        element("span", "", class_=name, style=f"width:{100 * part / longest_s:.2f}%")
        for name, part in zip(_PARTS, parts, strict=True)
    )
    return element("span", *pieces, class_="bar stacked", aria_hidden="true")
