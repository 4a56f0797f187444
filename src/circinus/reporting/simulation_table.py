"""Tables of simulations: simulated and predicted results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from circinus.estimation import Estimate
from circinus.reporting.tables import MetricNames, make_table
from circinus.simulation import QueryOutcome, SimulationReport, StationOutcome
from circinus.specification import Query
from circinus.specification.formatting import format_duration, format_score
from circinus.statistics.interval import Interval

_MAX_STATIONS = 12
"""Maximum number of rows in the table of deployments and links."""


def simulation_table(
    report: SimulationReport,
    predicted: Mapping[str, Estimate],
    rejected: Sequence[Query] = (),
    metrics: Mapping[str, str] | None = None,
) -> RenderableType:
    """Return a table with a row for each query, and one of the busiest deployments and links.

    Args:
        report: report of the simulation.
        predicted: query -> estimate of its plan.
        rejected: rejected queries.
        metrics: query -> name of its metric.
    """
    names = MetricNames(metrics or {}, [outcome.query for outcome in report.queries])
    figures = ("requests", "latency", "p50\np99", names.column, "SLOs met")
    table = make_table(f"Simulation at {report.load:g}x load", ("query", "SLOs"), figures)
    for outcome in report.queries:
        table.add_row(*_row(outcome, predicted.get(outcome.query), report.load, names))
    for query in rejected:
        table.add_row(
            escape(query.name), escape(names.text(query.name, query.slos)), "0", "", "", "", "[red]no[/red]: rejected"
        )
    return Group(table, _stations(report), *_notes(report))


def predicted_latency_text(predicted: Estimate | None, load: float) -> str:
    """Return a line with the predicted latency, which is that at the planned load."""
    if predicted is None:
        return ""
    return f"\npredicted {format_duration(predicted.latency_s.value)}{'' if load == 1 else ' at 1x'}"


def _row(query: QueryOutcome, predicted: Estimate | None, load: float, metrics: MetricNames) -> tuple[str, ...]:
    dropped = f" ({query.dropped} dropped)" if query.dropped else ""
    named = (escape(query.query), escape(metrics.text(query.query, query.slos)), f"{query.requests}{dropped}")
    if not query.requests:
        return (*named, "", "", "", "[red]no[/red]: no requests")
    missed = [name for name, met in query.slos_met.items() if not met]
    uncertain = "" if query.is_significant else "\nuncertain"
    return (
        *named,
        f"p{query.percentile:g} {_interval_text(query.at_percentile_s)}{predicted_latency_text(predicted, load)}",
        "\n".join(_latency_text(query.latency_s[percentile].value) for percentile in ("p50", "p99")),
        "" if math.isnan(query.score) else metrics.cell(query.query, format_score(query.score)),
        f"[red]no[/red]: {', '.join(missed)}{uncertain}" if missed else f"[green]yes[/green]{uncertain}",
    )


def _interval_text(latency_s: Interval) -> str:
    if latency_s.value == math.inf:
        return _latency_text(latency_s.value)
    upper = "?" if latency_s.upper == math.inf else format_duration(latency_s.upper)
    return f"{format_duration(latency_s.value)} ({format_duration(latency_s.lower)} to {upper})"


def _latency_text(seconds: float) -> str:
    return "dropped" if seconds == math.inf else format_duration(seconds)


def _stations(report: SimulationReport) -> RenderableType:
    stations = sorted((*report.deployments, *report.links), key=lambda station: -station.offered_utilization)
    figures = ("servers", "utilization", "offered\nutilization", "mean wait", "mean batch")
    table = make_table("Busiest deployments and links", ("deployment or link",), figures)
    for station in stations[:_MAX_STATIONS]:
        table.add_row(*_station_row(station))
    return table


def _station_row(station: StationOutcome) -> tuple[str, ...]:
    offered = f"{station.offered_utilization:.0%}"
    return (
        escape(station.name),
        str(station.servers),
        f"{station.utilization:.0%}",
        f"[red]{offered}[/red]" if station.offered_utilization >= 1 else offered,
        format_duration(station.mean_wait_s),
        f"{station.mean_fill:.1f}",
    )


def _notes(report: SimulationReport) -> list[Text]:
    simulated_s = report.duration_s - report.warm_up_s
    notes = [
        Text(
            f"goodput {report.goodput:g} of {report.total_weight:g}; {format_duration(simulated_s)} simulated after "
            f"{format_duration(report.warm_up_s)} of warm-up, {report.executions} executions in "
            f"{format_duration(report.computed_s)}, seed {report.seed}; confidence level of intervals 95 %"
        )
    ]
    overloaded = [station.name for station in (*report.deployments, *report.links) if station.offered_utilization >= 1]
    if overloaded:
        notes.append(
            Text(
                f"overloaded: {', '.join(overloaded)}; their queues grow as long as requests arrive, unless queries "
                "drop late ones, so that latencies depend on the simulated time",
                style="yellow",
            )
        )
    return notes
