"""The demo's one table: every query under the plans and under the simple choices, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from circinus.matching import Matching
from circinus.reporting.load_table import load_notes
from circinus.reporting.plan_text import plan_text
from circinus.serving.loadtest.load_report import LoadReport, QueryMeasurement
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.specification.formatting import format_duration, format_score, format_usd_per_h


def comparison(strategies: Mapping[str, Matching], reports: Mapping[str, LoadReport]) -> RenderableType:
    """Every query under every strategy, the goodput, and what the load test of the first strategy shows.

    Args:
        strategies: name -> what was deployed; the first is shown with its plans and predictions.
        reports: name -> what was measured.
    """
    ours, *others = strategies
    table = Table(title="Predicted and measured, mode replay, on held-out items", title_justify="left")
    table.add_column(f"query, SLOs and plan by {ours}", overflow="fold")
    table.add_column(f"{ours}\npredicted → measured", overflow="fold")
    for name in others:
        table.add_column(f"{name}\nmeasured", overflow="fold", max_width=16)
    plans = {a.query: plan_text(a.chosen.plan, a.chosen.estimate) for a in strategies[ours].assignments}
    why = {r.query: r.reason for r in strategies[ours].rejections}
    measured = {name: {query.query: query for query in report.queries} for name, report in reports.items()}
    for query in reports[ours].queries:
        plan = plans.get(query.query) or f"not served: {why.get(query.query, '')}"
        table.add_row(
            f"[bold]{query.query}[/bold]\n{query.slos}\n{escape(plan)}",
            _beside_the_prediction(query),
            *(_measured(measured[name][query.query]) for name in others),
        )
        table.add_section()
    table.add_row(
        "[bold]goodput[/bold] by weight, plans that met all SLOs, cost of all deployments and transfers",
        *(_sums(strategies[name], reports[name]) for name in strategies),
    )
    return Group(table, *load_notes(reports[ours]))


def row(strategy: str, matching: Matching, query: QueryMeasurement) -> dict[str, object]:
    """Return one query under one strategy as a row of the result file."""
    plans = {a.query: plan_text(a.chosen.plan, a.chosen.estimate) for a in matching.assignments}
    estimate = query.predicted
    return {
        "strategy": strategy,
        "query": query.query,
        "slos": str(query.slos),
        "plan": plans.get(query.query),
        "requests": query.requests,
        "lost": query.failures + query.unanswered,
        "percentile": estimate.percentile if estimate is not None else None,
        "predicted_latency_s": estimate.latency_s.value if estimate is not None else None,
        "predicted_latency_upper_s": estimate.latency_s.upper if estimate is not None else None,
        "measured_latency_s": query.latency_s.at_percentile_s if query.latency_s is not None else None,
        "predicted_accuracy": estimate.accuracy.value if estimate is not None else None,
        "measured_accuracy": query.score,
        "predicted_cost_usd_per_h": estimate.cost_usd_per_h.value if estimate is not None else None,
        "measured_cost_usd_per_h": query.cost_usd_per_h,
        "held": dict(query.slos_met or {}),
        "satisfied": query.satisfied,
    }


def _sums(matching: Matching, report: LoadReport) -> str:
    return (
        f"[bold]{report.goodput:g} of {report.total_weight:g}[/bold]\n"
        f"{sum(query.satisfied for query in report.queries)} of {report.promises} served\n"
        f"{format_usd_per_h(matching.cost_usd_per_h)}"
    )


def _beside_the_prediction(query: QueryMeasurement) -> str:
    estimate = query.predicted
    if not query.served or estimate is None:
        return "[red]no[/red]: no plan"
    predicted = (
        f"p{estimate.percentile:g} {format_duration(estimate.latency_s.value)}",
        f"accuracy {format_score(estimate.accuracy.value)}",
        format_usd_per_h(estimate.cost_usd_per_h.value),
    )
    lines = [f"{before} → {after}" for before, after in zip(predicted, _values(query), strict=True)]
    return "\n".join((*lines, _met(query)))


def _measured(query: QueryMeasurement) -> str:
    if not query.served:
        return "[red]no[/red]: no room"
    latency, accuracy, cost = _values(query)
    return "\n".join((latency, f"accuracy {accuracy}", cost, _met(query)))


def _values(query: QueryMeasurement) -> tuple[str, str, str]:
    """Latency at the objective's percentile, accuracy and cost, as measured."""
    measured_s = query.latency_s.at_percentile_s if query.latency_s is not None else None
    return (
        "no answer" if measured_s is None else format_duration(measured_s),
        "unknown" if query.score is None else format_score(query.score),
        "unknown" if query.cost_usd_per_h is None else format_usd_per_h(query.cost_usd_per_h),
    )


def _met(query: QueryMeasurement) -> str:
    """Return whether the SLOs are met as measured, and whether that may be chance."""
    doubt = ", unsure" if query.verdict is SloVerdict.UNSURE else ""
    if query.satisfied:
        return f"[green]all SLOs met[/green]{doubt}"
    broken = ", ".join(name for name, held in (query.slos_met or {}).items() if not held)
    return f"[red]missed {broken}[/red]{doubt}" if broken else "[red]requests lost[/red]"
