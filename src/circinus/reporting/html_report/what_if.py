"""The plan under other loads, and changes of the specification that serve rejected queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from circinus.reporting.html_report.content import ReportContent, WhatIf
from circinus.reporting.html_report.markup import Html, element, join, paragraph, table
from circinus.reporting.plan_table import latency_bound_text
from circinus.reporting.simulation_table import simulated_latency
from circinus.simulation.report import QueryOutcome, SimulationReport
from circinus.specification.formatting import format_duration, with_metric


def what_if_section(content: ReportContent, what_if: WhatIf) -> Html:
    """Return the plan under other loads, and changes that serve rejected queries."""
    parts = [*_loads(content, what_if), *_relaxations(content)]
    if what_if.reason:
        parts.append(paragraph(what_if.reason))
    if what_if.omitted:
        omitted = f"Not computed within the time limit: {', '.join(what_if.omitted)}. Raise it with --what-if."
        parts.append(paragraph(omitted, style="remark"))
    return join(parts)


def _loads(content: ReportContent, what_if: WhatIf) -> Iterator[Html]:
    """Return a table of the plan's estimates at the planned load, and of the simulations at others."""
    if not what_if.loads:
        return
    first = what_if.loads[0]
    planned = sum(report.load_factor < 1 for report in what_if.loads)

    def row(name: str, at_1x: str, simulated: Iterable[str]) -> tuple[str, ...]:
        cells = list(simulated)
        return name, *cells[:planned], at_1x, *cells[planned:]

    estimates = {name: assignment.chosen.estimate for name, assignment in content.assignments.items()}
    kept = f"{len(first.queries)} of {len(first.queries)}"
    rows = [row("queries that keep their SLOs", kept, (element("strong", _kept(report)) for report in what_if.loads))]
    for number, outcome in enumerate(first.queries):
        outcomes = (_outcome(report.queries[number]) for report in what_if.loads)
        estimate = estimates[outcome.query]
        bound = latency_bound_text(estimate, content.queries[outcome.query].slos)
        as_planned = f"{format_duration(estimate.latency_s.value)} ≤ {bound}"
        rows.append(row(outcome.query, as_planned, outcomes))
    yield element("h3", "This plan under other loads")
    yield table(
        row("query", "1× load, as planned", (f"{report.load_factor:g}× load" for report in what_if.loads)), rows
    )
    yield paragraph(
        f"One simulation at each other load, request by request, of {format_duration(first.duration_s)} with seed "
        f"{first.seed}, on measured times and without a controller; latencies are at the percentile of the SLO, with "
        "95 % confidence intervals. ? means that the simulation is too short to be sure.",
        style="remark",
    )


def _kept(report: SimulationReport) -> str:
    unsure = sum(outcome.is_unsure for outcome in report.queries)
    kept = sum(outcome.satisfied and not outcome.is_unsure for outcome in report.queries)
    return f"{kept} of {len(report.queries)}{f', {unsure} unsure' if unsure else ''}"


def _outcome(outcome: QueryOutcome) -> Html:
    if not outcome.requests:
        return element("span", "no request", class_="unsure")
    text = simulated_latency(outcome.at_percentile_s)
    if outcome.is_unsure:
        return element("span", f"? {text}", class_="unsure")
    mark, style = ("✓", "good") if outcome.satisfied else ("✗", "bad")
    return element("span", f"{mark} {text}", class_=style)


def _relaxations(content: ReportContent) -> Iterator[Html]:
    lines = []
    for rejection in content.matching.rejections:
        changes = [advice.sentence for advice in rejection.advice]
        if rejection.relaxation is not None:
            changes.insert(0, rejection.relaxation.change)
        metric = content.metric(rejection.query)
        if changes:
            text = with_metric("; or ".join(changes), metric)
            lines.append(element("li", element("strong", rejection.query), f": {text}"))
    if lines:
        yield element("h3", "Changes that serve a rejected query")
        yield element("ul", *lines)
        yield paragraph(
            "Each was planned: relaxations beside the running plans, which stay, other changes as they say.",
            style="remark",
        )
