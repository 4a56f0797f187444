"""What traffic showed beside what was promised."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circinus.profiling import ServiceTimeObservation
from circinus.reporting.simulation_table import load_suffix
from circinus.serving.loadtest.load_report import LoadReport, QueryMeasurement, ServiceTimeReport
from circinus.specification.formatting import format_duration, format_score, format_usd_per_h


def service_time_text(learning: ServiceTimeReport, why_not_kept: str = "") -> Group:
    """A line for each deployment: the ratio that it showed, or why nothing is learnt from it.

    Args:
        learning: of a run.
        why_not_kept: why the observations are not in the profile store; empty where they are.
    """
    lines = [Text(_line(observation)) for observation in learning.observations]
    if lines:
        lines.append(Text(_use(learning.observations[0].mode, why_not_kept), style="dim"))
    lines += [
        Text(f"not learnt from {refused.deployment.name}: {refused.reason}", style="yellow")
        for refused in learning.refused
    ]
    return Group(*lines)


def _line(observation: ServiceTimeObservation) -> str:
    operator = f"{observation.pipeline}/{observation.operator}"
    knobs = f"({observation.knobs})" if observation.knobs.values else ""
    return (
        f"{operator}{knobs} on {observation.hardware_class}: service took {math.exp(observation.log_ratio):.3g} times "
        f"what the profile predicts (standard error {observation.standard_error:.1%}, {observation.requests} requests, "
        f"{observation.items} items)"
    )


def _use(mode: str, why_not_kept: str) -> str:
    if why_not_kept:
        return f"not kept: {why_not_kept}"
    if mode == "real":
        return "kept: later plans are corrected by it"
    return f"kept, but no plan is corrected by it: mode {mode} shows nothing of the hardware"


def load_table(report: LoadReport) -> RenderableType:
    """A row for each query: predicted and measured, and whether its objectives held."""
    table = Table(title=f"Measured under {report.arrivals} traffic, mode {report.mode}", title_justify="left")
    table.add_column("query")
    table.add_column("objectives", overflow="fold")
    for column in (
        "requests",
        f"latency predicted{load_suffix(report.rate_factor)}",
        "measured",
        "accuracy predicted",
        "measured",
        "cost",
        "SLOs held",
    ):
        table.add_column(column, justify="right")
    for query in report.queries:
        table.add_row(*_row(query))
    return Group(table, *_remarks(report))


def _row(query: QueryMeasurement) -> tuple[str, ...]:
    objectives = str(query.slos)
    if not query.served or query.latency_s is None:
        why = "no plan" if not query.served else "no requests"
        return (query.query, objectives, "0", "", "", "", "", "", f"[red]no[/red] ({why})")
    predicted = query.predicted
    measured_s = query.latency_s.at_percentile_s
    lost = query.failures + query.unanswered
    broken = [name for name, held in (query.slos_met or {}).items() if not held]
    missed = f"missed {', '.join(broken)}" if broken else "requests lost"
    cost = query.cost_usd_per_h
    return (
        query.query,
        objectives,
        f"{query.requests}" + (f" ({lost} lost)" if lost else ""),
        f"p{query.latency_s.percentile:g} {format_duration(predicted.latency_s.value)}"
        if predicted is not None
        else "",
        "no answer" if measured_s is None else format_duration(measured_s),
        format_score(predicted.accuracy.value) if predicted is not None else "",
        _measured_score(query),
        "" if cost is None else format_usd_per_h(cost),
        "[green]yes[/green]" if query.satisfied else f"[red]no[/red] ({missed})",
    )


def _measured_score(query: QueryMeasurement) -> str:
    unscored = f" ({query.unscored} unscored)" if query.unscored else ""
    return "" if query.score is None else f"{format_score(query.score)}{unscored}"


def _remarks(report: LoadReport) -> list[Text]:
    remarks = [
        Text(
            f"goodput {report.goodput:g} of {report.total_weight:g}; {report.promises_kept} of {report.promises} plans "
            f"kept all they promised; deployments cost {format_usd_per_h(report.deployments_cost_usd_per_h)}; "
            f"{format_duration(report.duration_s)} measured after {format_duration(report.warm_up_s)} of warm-up, "
            f"{report.rate_factor:g}x the rates, seed {report.seed}"
        )
    ]
    if report.lateness.late:
        remarks.append(
            Text(
                "the machine was too busy to send on time (99th percentile "
                f"{format_duration(report.lateness.p99_s)} late): "
                "measured latencies are overstated",
                style="yellow",
            )
        )
    if any(query.unscored for query in report.queries):
        remarks.append(
            Text(
                "unscored: answered, but the metric failed on the answer or gave no score in its range; counted as the "
                "worst score that it can give",
                style="yellow",
            )
        )
    for query in report.queries:
        remarks += [Text(f"{query.query}: {error}", style="red") for error in query.errors]
    return remarks
