"""Tables of load tests: measurements and predictions."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.text import Text

from circinus.profiling import ServiceTimeObservation
from circinus.reporting.plan_table import operator_text
from circinus.reporting.simulation_table import predicted_latency_text
from circinus.reporting.tables import make_table
from circinus.serving.loadtest.load_report import LoadReport, QueryMeasurement, ServiceTimeReport
from circinus.specification.formatting import format_duration, format_score, format_usd_per_h


def service_time_text(learning: ServiceTimeReport, not_stored_reason: str = "") -> Group:
    """Return a line for each deployment: its observed service time ratio, or the reason why there is none.

    Args:
        learning: service time report of a run.
        not_stored_reason: reason why the observations are not in the profile store; empty if they are.
    """
    lines = [Text(_line(observation)) for observation in learning.observations]
    if lines:
        lines.append(Text(_storage_text(learning.observations[0].mode, not_stored_reason), style="dim"))
    lines += [
        Text(f"no observation of {skipped.deployment.name}: {skipped.reason}", style="yellow")
        for skipped in learning.refused
    ]
    return Group(*lines)


def _line(observation: ServiceTimeObservation) -> str:
    operator = f"{observation.pipeline}/{operator_text(observation.operator, observation.knobs)}"
    return (
        f"{operator} on {observation.hardware_class}: service times are {math.exp(observation.log_ratio):.3g} "
        f"times the prediction of the profile (standard error {observation.standard_error:.1%}, "
        f"{observation.requests} requests, {observation.items} items)"
    )


def _storage_text(mode: str, not_stored_reason: str) -> str:
    if not_stored_reason:
        return f"not stored: {not_stored_reason}"
    if mode == "real":
        return "stored: the observations correct later plans"
    return f"stored, but they correct no plan: {mode} mode does not measure the hardware"


def load_table(report: LoadReport) -> RenderableType:
    """Return a table with a row for each query: predictions, measurements, and whether the SLOs were met."""
    title = f"Load test with {report.arrivals} traffic ({report.mode} mode)"
    table = make_table(title, ("query", "SLOs"), ("requests", "latency", "accuracy", "cost", "SLOs met"))
    for query in report.queries:
        table.add_row(*_row(query, report.rate_factor))
    return Group(table, *_notes(report))


def _row(query: QueryMeasurement, load: float) -> tuple[str, ...]:
    slos = str(query.slos)
    if not query.served or query.latency_s is None:
        reason = "rejected" if not query.served else "no requests"
        return (query.query, slos, "0", "", "", "", f"[red]no[/red]: {reason}")
    predicted = query.predicted
    measured_s = query.latency_s.at_percentile_s
    counts = {"lost": query.failures + query.unanswered, "dropped": query.dropped}
    losses = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    violations = [name for name, met in (query.slos_met or {}).items() if not met]
    reason = ", ".join(violations) or "requests lost"
    cost = query.cost_usd_per_h
    nothing = "dropped" if query.dropped > counts["lost"] else "no response"
    measured = nothing if measured_s is None else format_duration(measured_s)
    predicted_accuracy = "" if predicted is None else f"\npredicted {format_score(predicted.accuracy.value)}"
    return (
        query.query,
        slos,
        f"{query.requests}" + (f" ({losses})" if losses else ""),
        f"p{query.latency_s.percentile:g} {measured}{predicted_latency_text(predicted, load)}",
        f"{_measured_score(query)}{predicted_accuracy}",
        "" if cost is None else format_usd_per_h(cost),
        "[green]yes[/green]" if query.satisfied else f"[red]no[/red]: {reason}",
    )


def _measured_score(query: QueryMeasurement) -> str:
    unscored = f" ({query.unscored} unscored)" if query.unscored else ""
    return "" if query.score is None else f"{format_score(query.score)}{unscored}"


def _notes(report: LoadReport) -> list[Text]:
    notes = [
        Text(
            f"goodput {report.goodput:g} of {report.total_weight:g}; {report.promises_kept} of {report.promises} "
            f"served queries met all SLOs; deployments cost {format_usd_per_h(report.deployments_cost_usd_per_h)}; "
            f"{format_duration(report.duration_s)} measured after {format_duration(report.warm_up_s)} of warm-up at "
            f"{report.rate_factor:g}x load, seed {report.seed}"
        )
    ]
    if report.lateness.late:
        notes.append(
            Text(
                "the machine was too busy to send requests on time (99th percentile of the lag: "
                f"{format_duration(report.lateness.p99_s)}): measured latencies are overstated",
                style="yellow",
            )
        )
    if any(query.unscored for query in report.queries):
        notes.append(
            Text(
                "unscored: the metric failed on the response or returned no score in its range; counted as the worst "
                "score of the range",
                style="yellow",
            )
        )
    for query in report.queries:
        notes += [Text(f"{query.query}: {error}", style="red") for error in query.errors]
    return notes
