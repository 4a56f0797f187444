"""Chart of one query's plans: cost over latency and over accuracy, with the area in which the SLOs hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from circinus.estimation import Estimate
from circinus.matching import Assignment, Rejection
from circinus.reporting.html_report.charts import COLORS, Chart, Style, format_axis, format_time_axis
from circinus.reporting.html_report.markup import Html
from circinus.reporting.plan_table import latency_bound_text
from circinus.specification import Query, QueryPlan
from circinus.specification.formatting import (
    UNBOUNDED_S,
    format_duration,
    format_interval,
    format_score,
    format_usd_per_h,
    with_metric,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHOSEN, LADDER, OTHER, EXCLUDED = "chosen", "on its ladder", "not chosen", "misses an SLO or does not fit"
_STYLES: dict[str, Style] = {
    CHOSEN: ("chosen", "o"),
    LADDER: ("ladder", "D"),
    OTHER: ("costlier", "s"),
    EXCLUDED: ("excluded", "X"),
}


@dataclass(frozen=True)
class ComparedPlan:
    """A plan of a query with its place among the others."""

    plan: QueryPlan
    estimate: Estimate
    place: str
    """One of the keys of `_STYLES`."""
    reason: str = ""
    """Reason why it was not chosen."""
    added_usd_per_h: float | None = None
    """Change of the total cost; None if the plan was not compared by cost."""


def compared_plans(decision: Assignment | Rejection, metric: str) -> list[ComparedPlan]:
    """Return plans of a query: the chosen one, the rungs of its ladder below it, and the nearest alternatives."""
    compared: dict[QueryPlan, ComparedPlan] = {}
    if isinstance(decision, Assignment):
        chosen = decision.chosen
        compared[chosen.plan] = ComparedPlan(chosen.plan, chosen.estimate, CHOSEN)
        for rung in () if decision.ladder is None else decision.ladder.rungs[decision.ladder.chosen + 1 :]:
            candidate = rung.candidate
            compared.setdefault(candidate.plan, ComparedPlan(candidate.plan, candidate.estimate, LADDER))
    for alternative in decision.alternatives:
        place, reason = (
            OTHER if alternative.obstacle in ("cost", "search") else EXCLUDED,
            with_metric(alternative.full_reason, metric),
        )
        entry = ComparedPlan(alternative.plan, alternative.estimate, place, reason, alternative.added_usd_per_h)
        rung_of = compared.get(alternative.plan)
        compared[alternative.plan] = entry if rung_of is None else replace(entry, place=rung_of.place)
    return list(compared.values())


def frontier_chart(plans: Sequence[ComparedPlan], changes: Sequence[str], query: Query, metric: str) -> Html:
    """Return the chart of a query's plans, all at the cost that they have by themselves.

    Args:
        plans: the plans.
        changes: description of each plan.
        query: the query.
        metric: name of its metric.
    """
    chart, slos = Chart(2, 2.6, sharey=True), query.slos
    latency_axes, score_axes = chart.panels
    for plan, change in zip(plans[::-1], changes[::-1], strict=True):
        estimate, text = plan.estimate, _description(plan, change, query, metric)
        for axes, bounds in zip(chart.panels, (estimate.latency_s, estimate.accuracy), strict=True):
            cost, color = estimate.cost_usd_per_h, COLORS[_STYLES[plan.place][0]]
            upper = bounds.value if bounds.upper >= UNBOUNDED_S else bounds.upper
            axes.plot([bounds.lower, upper], [cost.upper, cost.upper], color=color, alpha=0.6)
            axes.plot([bounds.value, bounds.value], [cost.lower, cost.upper], color=color, alpha=0.35)
            chart.mark(axes, bounds.value, cost.upper, _STYLES[plan.place], text)
    limits = [] if slos.cost is None else [slos.cost.limit]
    top = max([1e-3, *limits, *(plan.estimate.cost_usd_per_h.upper for plan in plans)])
    latency_axes.set_ylim(-0.06 * top, 1.12 * top)
    format_axis(latency_axes.yaxis, format_usd_per_h, "cost by itself")
    times = [bound for p in plans for bound in (p.estimate.latency_s.value, p.estimate.latency_s.upper)]
    limit_s = [] if slos.latency is None else [slos.latency.limit]
    format_time_axis(latency_axes, [*times, *limit_s], f"latency p{plans[0].estimate.percentile:g}")
    if slos.accuracy is not None:
        score_axes.update_datalim([(slos.accuracy.limit, 0.0)])
        score_axes.autoscale_view(scaley=False)
    format_axis(score_axes.xaxis, format_score, metric, count=4)
    _shade(latency_axes, None if slos.latency is None else (0.0, slos.latency.limit), query)
    threshold = slos.accuracy
    ends = score_axes.get_xlim()
    if threshold is not None:
        ends = (threshold.limit, ends[1]) if threshold.is_minimum else (ends[0], threshold.limit)
    _shade(score_axes, None if threshold is None else ends, query)
    chart.legend({place: style for place, style in _STYLES.items() if any(plan.place == place for plan in plans)})
    return chart.html(f"Plans of {query.name}: cost by itself over latency, and over {metric}")


def _description(plan: ComparedPlan, change: str, query: Query, metric: str) -> str:
    estimate = plan.estimate
    latency = f"{format_duration(estimate.latency_s.value)} ≤ {latency_bound_text(estimate, query.slos)}"
    score, cost = format_interval(format_score, estimate.accuracy), estimate.cost_usd_per_h
    costs = f"cost by itself {format_usd_per_h(cost.upper)}"
    if plan.place == CHOSEN:
        costs += f", share as deployed {format_usd_per_h(cost.value)}"
    heading = f"{plan.place}: {change}"
    return "\n".join(filter(None, (heading, plan.reason, f"latency {latency}", f"{metric} {score}", costs)))


def _shade(axes: Axes, ends: tuple[float, float] | None, query: Query) -> None:
    """Shade where the SLOs hold; without an SLO of either axis nothing is shaded."""
    cost, edges, top = query.slos.cost, axes.get_xlim(), axes.get_ylim()[1]
    if ends is not None or cost is not None:
        low, high = edges if ends is None else (max(ends[0], edges[0]), ends[1])
        axes.fill_between([low, high], 0.0, top if cost is None else cost.limit, color=COLORS["slo"], alpha=0.16)
        axes.set_xlim(edges)
