"""The demo's one table: every query under the plans and under the simple choices, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from circinus.matching import Matching
from circinus.reporting.plan_text import plan_text
from circinus.serving.measurement import LoadReport, QueryMeasurement
from circinus.spec.spoken import duration, score, usd_per_h


def comparison(strategies: Mapping[str, Matching], reports: Mapping[str, LoadReport]) -> Table:
    """Every query under every strategy, and the goodput.

    Args:
        strategies: name -> what was deployed; the first is shown with its plans and predictions.
        reports: name -> what was measured.
    """
    ours, *others = strategies
    table = Table(title="Predicted and measured, mode replay, on held-out items", title_justify="left")
    table.add_column("query and objectives", overflow="fold", min_width=24)
    table.add_column(f"plan by {ours}", overflow="fold", min_width=40)
    table.add_column("latency\npredicted\nmeasured", justify="right")
    table.add_column("accuracy\npredicted\nmeasured", justify="right")
    table.add_column("cost\npredicted\nmeasured", justify="right")
    table.add_column("SLOs\nmet")
    for name in others:
        table.add_column(f"{name}\nmeasured: SLOs met", overflow="fold", min_width=16)
    plans = {a.query: plan_text(a.chosen.plan, a.chosen.estimate) for a in strategies[ours].assignments}
    why = {r.query: r.reason for r in strategies[ours].rejections}
    measured = {name: {query.query: query for query in report.queries} for name, report in reports.items()}
    for query in reports[ours].queries:
        table.add_row(
            f"[bold]{query.query}[/bold]\n{query.slos!s}",
            plans.get(query.query) or f"not served: {why.get(query.query, '')}",
            *_cells(query),
            *(_short(measured[name][query.query]) for name in others),
        )
        table.add_section()
    table.add_row(
        "[bold]goodput[/bold], by weight\nall SLOs met\ncost",
        _sums(strategies[ours], reports[ours]),
        "", "", "", "",
        *(_sums(strategies[name], reports[name]) for name in others),
    )  # fmt: skip
    return table


def row(strategy: str, matching: Matching, query: QueryMeasurement) -> dict[str, object]:
    """One query under one strategy, for programs."""
    plans = {a.query: plan_text(a.chosen.plan, a.chosen.estimate) for a in matching.assignments}
    estimate = query.predicted
    return {
        "strategy": strategy,
        "query": query.query,
        "objectives": str(query.slos),
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
        "held": dict(query.held or {}),
        "satisfied": query.satisfied,
    }


def _sums(matching: Matching, report: LoadReport) -> str:
    return (
        f"[bold]{report.goodput:g} of {report.total_weight:g}[/bold]\n"
        f"{report.promises_kept} of {report.promises} served\n"
        f"{usd_per_h(matching.cost_usd_per_h)}"
    )


def _cells(query: QueryMeasurement) -> tuple[str, str, str, str]:
    estimate = query.predicted
    if not query.served or estimate is None:
        return "", "", "", "[red]no[/red]"
    return (
        f"p{estimate.percentile:g} {duration(estimate.latency_s.value)}\n{_latency(query)}",
        f"{score(estimate.accuracy.value)}\n{'' if query.score is None else score(query.score)}",
        f"{usd_per_h(estimate.cost_usd_per_h.value)}\n"
        f"{'' if query.cost_usd_per_h is None else usd_per_h(query.cost_usd_per_h)}",
        _met(query),
    )


def _short(query: QueryMeasurement) -> str:
    if not query.served:
        return "no room: [red]no[/red]"
    accuracy = "" if query.score is None else score(query.score)
    cost = "" if query.cost_usd_per_h is None else usd_per_h(query.cost_usd_per_h)
    return f"{_latency(query)}, {accuracy}\n{cost}: {_met(query)}"


def _latency(query: QueryMeasurement) -> str:
    measured_s = query.latency_s.at_percentile_s if query.latency_s is not None else None
    return "no answer" if measured_s is None else duration(measured_s)


def _met(query: QueryMeasurement) -> str:
    if query.satisfied:
        return "[green]yes[/green]"
    broken = ", ".join(name for name, held in (query.held or {}).items() if not held)
    return f"[red]no[/red], missed {broken}" if broken else "[red]no[/red], requests lost"
