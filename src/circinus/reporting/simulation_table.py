"""Tables of simulations: simulated and predicted results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circinus.estimation import Estimate
from circinus.reporting.tables import FirstFitting, MetricNames, OneLine, WrappedTitle, bar, make_table
from circinus.simulation import QueryOutcome, SimulationReport, StationOutcome
from circinus.specification import Query, Slos
from circinus.specification.formatting import format_duration, format_latency_bound, format_score
from circinus.statistics.interval import Interval

_MAX_STATIONS = 12
"""Maximum number of rows in the table of deployments and links."""
_NEGLIGIBLE = 0.01
"""Share of a predicted latency by which a simulated one may exceed it without a remark."""


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
    forms = ((2, True), (1, True), (0, True), (1, False), (0, False))
    tables = (_query_table(report, predicted, rejected, names, *form) for form in forms)
    title = Text(f"Simulation at {report.load_factor:g}x load", "italic")
    beyond = filter(
        None, (_beyond_text(outcome, predicted.get(outcome.query), report.load_factor) for outcome in report.queries)
    )
    return Group(title, FirstFitting(*tables), *beyond, Text(), _stations(report), *_notes(report))


def _query_table(
    report: SimulationReport,
    predicted: Mapping[str, Estimate],
    rejected: Sequence[Query],
    metrics: MetricNames,
    details: int,
    whole_verdicts: bool,
) -> Table:
    """Return a line for each query, with the prediction, which is that at the planned load.

    Args:
        report: report of the simulation.
        predicted: query -> estimate of its plan.
        rejected: rejected queries.
        metrics: names of the metrics.
        details: 2 for the SLOs and the number of requests, 1 for that number.
        whole_verdicts: whether no verdict is wrapped.
    """
    columns = (
        "requests",
        "latency (bounds)",
        f"predicted{'' if report.load_factor == 1 else ' at 1x'}",
        metrics.column,
    )
    table = make_table(None, ("query",), (), one_line=True)
    table.columns[0].no_wrap = True
    for title in columns[details == 0 :]:
        is_whole = title == columns[1] or " " not in title
        table.add_column(WrappedTitle(title), justify="right", no_wrap=is_whole)
    for title in ("SLOs met", "SLOs")[: 1 + details // 2]:
        table.add_column(title)

    def add_row(query: str, slos: Slos, verdict: str, *cells: str) -> None:
        shown: list[RenderableType] = [OneLine(cell, whole=True) for cell in (query, *cells[details == 0 :])]
        table.add_row(*shown, verdict, *([OneLine(metrics.text(query, slos), whole=True)] if details == 2 else []))

    for outcome in report.queries:
        estimate = predicted.get(outcome.query)
        add_row(
            outcome.query,
            outcome.slos,
            _verdict(outcome),
            str(outcome.requests),
            f"p{outcome.percentile:g} {simulated_latency(outcome.at_percentile_s)}" if outcome.requests else "",
            "" if estimate is None else format_duration(estimate.latency_s.value),
            "" if math.isnan(outcome.score) else metrics.cell(outcome.query, format_score(outcome.score)),
        )
    for query in rejected:
        add_row(query.name, query.slos, "[red]no[/red]: rejected", "0", "", "", "")
    if whole_verdicts:
        (verdicts,) = (column for column in table.columns if column.header == "SLOs met")
        verdicts.no_wrap = True
        verdicts.min_width = max(Text.from_markup(str(cell)).cell_len for cell in verdicts.cells)
    return table


def _beyond_text(outcome: QueryOutcome, estimate: Estimate | None, load: float) -> Text | None:
    """Return where a simulated latency is surely above the prediction or the bound of its plan, at up to 1x load."""
    if estimate is None or not outcome.requests or load > 1:
        return None
    simulated, planned = outcome.at_percentile_s, estimate.latency_s
    if simulated.lower <= planned.value * (1 + _NEGLIGIBLE):
        return None
    shown = f"{outcome.query}: p{outcome.percentile:g} {simulated_latency(simulated)} is above "
    bound = format_latency_bound(planned.upper)
    if simulated.lower > planned.upper:
        return Text(f"{shown}the plan's bound of {bound}", style="yellow")
    return Text(f"{shown}the predicted {format_duration(planned.value)}; the plan's bound is {bound}")


def _verdict(query: QueryOutcome) -> str:
    if not query.requests:
        return "[red]no[/red]: no requests"
    missed = [kind for kind, met in query.slos_met.items() if not met]
    verdict = "[red]no[/red]" if missed else "[green]yes[/green]"
    if query.is_unsure:
        verdict = "[yellow]unsure[/yellow]"
    remarks = [*missed, *([f"{query.dropped} dropped"] if query.dropped else [])]
    return f"{verdict}{': ' if remarks else ''}{', '.join(remarks)}"


def simulated_latency(latency_s: Interval) -> str:
    """Return a percentile with its confidence interval: `888 µs (881 to 895 µs)`."""
    if latency_s.value == math.inf:
        return _latency_text(latency_s.value)
    value, upper = format_duration(latency_s.value), "?"
    if latency_s.upper < math.inf:
        upper = format_duration(latency_s.upper)
    lower, unit = format_duration(latency_s.lower), f" {upper.rpartition(' ')[2]}"
    return f"{value} ({lower.removesuffix(unit)} to {upper})"


def _latency_text(seconds: float) -> str:
    return "dropped" if seconds == math.inf else format_duration(seconds)


def _stations(report: SimulationReport) -> RenderableType:
    stations = sorted((*report.deployments, *report.links), key=lambda station: -station.offered_utilization)
    figures = ("servers", "utilized", "offered", "mean wait", "batch")
    table = make_table(None, ("busiest deployments, links",), figures, one_line=True)
    names = Counter(station.name.rpartition(":")[0] for station in stations)
    for station in stations[:_MAX_STATIONS]:
        name = station.name.rpartition(":")[0]  # without the allocation, where that does not tell stations apart
        table.add_row(OneLine(name if name and names[name] == 1 else station.name), *_station_row(station))
    return table


def _station_row(station: StationOutcome) -> tuple[str, ...]:
    offered = f"{station.offered_utilization:.0%}"
    return (
        str(station.servers),
        f"{bar(station.utilization)} {station.utilization:4.0%}",
        f"[red]{offered}[/red]" if station.offered_utilization >= 1 else offered,
        format_duration(station.mean_wait_s),
        f"{station.mean_fill:.1f}",
    )


def _notes(report: SimulationReport) -> list[Text]:
    notes = [
        Text(
            f"goodput {report.goodput:g} of {report.total_weight:g}; {format_duration(report.duration_s)} simulated "
            f"after {format_duration(report.warm_up_s)} of warm-up, {report.executions} executions in "
            f"{format_duration(report.computed_s)}, seed {report.seed}; confidence level of intervals 95 %"
        )
    ]
    if report.is_shortened:
        notes.append(Text("shortened, as an hour has too many executions; --duration simulates longer"))
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
