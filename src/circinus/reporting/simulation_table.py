"""What a simulation showed beside what was promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate
from circinus.profiling import Interval
from circinus.simulation import QueryOutcome, SimulationReport, StationOutcome
from circinus.specification import Query
from circinus.specification.formatting import format_duration, format_score

_MOST_STATIONS = 12
"""Rows of the table of deployments and links: the busiest."""


def simulation_table(
    report: SimulationReport, predicted: Mapping[str, Estimate], rejected: Sequence[Query] = ()
) -> RenderableType:
    """A row for each query, and one for each of the busiest deployments and links.

    Args:
        report: of the simulation.
        predicted: query -> the estimate of its plan.
        rejected: queries without a plan.
    """
    table = Table(title=f"Simulated at {report.load:g} times the load", title_justify="left")
    table.add_column("query")
    table.add_column("objectives", overflow="fold")
    for column in (
        "requests",
        f"latency predicted{load_suffix(report.load)}",
        "simulated",
        "p50",
        "p99",
        "accuracy",
        "SLOs held",
    ):
        table.add_column(column, justify="right")
    for query in report.queries:
        table.add_row(*_row(query, predicted.get(query.query)))
    for left_out in rejected:
        table.add_row(
            escape(left_out.name), escape(str(left_out.slos)), "0", "", "", "", "", "", "[red]no[/red] (no plan)"
        )
    return Group(table, _stations(report), *_remarks(report))


def load_suffix(factor: float) -> str:
    """What to add where something was predicted for the load as planned and stands beside another one."""
    return "" if factor == 1 else " at 1x"


def _row(query: QueryOutcome, predicted: Estimate | None) -> tuple[str, ...]:
    named = (escape(query.query), escape(str(query.slos)), str(query.requests))
    if not query.requests:
        return (*named, "", "", "", "", "", "[red]no[/red] (no requests)")
    missed = [name for name, held in query.slos_met.items() if not held]
    unsure = "" if query.is_significant else " (unsure)"
    return (
        *named,
        f"p{query.percentile:g} {format_duration(predicted.latency_s.value)}" if predicted is not None else "",
        _said(query.at_percentile_s),
        format_duration(query.latency_s["p50"].value),
        format_duration(query.latency_s["p99"].value),
        format_score(query.score),
        f"[red]no[/red] (missed {', '.join(missed)}){unsure}" if missed else f"[green]yes[/green]{unsure}",
    )


def _said(latency_s: Interval) -> str:
    upper = "?" if latency_s.upper == float("inf") else format_duration(latency_s.upper)
    return f"{format_duration(latency_s.value)} ({format_duration(latency_s.lower)} to {upper})"


def _stations(report: SimulationReport) -> RenderableType:
    stations = sorted((*report.deployments, *report.links), key=lambda station: -station.offered_utilization)
    table = Table(title="Busiest deployments and links", title_justify="left")
    table.add_column("where", overflow="fold")
    for column in ("servers", "busy", "asked for", "mean wait", "a batch"):
        table.add_column(column, justify="right")
    for station in stations[:_MOST_STATIONS]:
        table.add_row(*_station_row(station))
    return table


def _station_row(station: StationOutcome) -> tuple[str, ...]:
    asked = f"{station.offered_utilization:.0%}"
    return (
        escape(station.name),
        str(station.servers),
        f"{station.utilization:.0%}",
        f"[red]{asked}[/red]" if station.offered_utilization >= 1 else asked,
        format_duration(station.mean_wait_s),
        f"{station.mean_fill:.1f}",
    )


def _remarks(report: SimulationReport) -> list[Text]:
    simulated_s = report.duration_s - report.warm_up_s
    remarks = [
        Text(
            f"goodput {report.goodput:g} of {report.total_weight:g}; {format_duration(simulated_s)} simulated after "
            f"{format_duration(report.warm_up_s)} of warm-up, {report.executions} executions in "
            f"{format_duration(report.computed_s)}, seed {report.seed}; intervals hold with 95 %"
        )
    ]
    growing = [station.name for station in (*report.deployments, *report.links) if station.offered_utilization >= 1]
    if growing:
        remarks.append(
            Text(
                f"more is asked than can be done of {', '.join(growing)}: queues grow as long as requests come, and "
                "latencies depend on how long that is",
                style="yellow",
            )
        )
    return remarks
