"""The plan under other loads, and changes of the specification that serve rejected queries."""

from __future__ import annotations

from collections.abc import Iterator

from circinus.reporting.html_report.content import ReportContent, WhatIf
from circinus.reporting.html_report.markup import Html, element, join, paragraph, table
from circinus.simulation.report import QueryOutcome, SimulationReport
from circinus.specification.formatting import format_duration, with_metric


def what_if_section(content: ReportContent, what_if: WhatIf) -> Html:
    """Return the plan under other loads, and changes that serve rejected queries."""
    parts = [*_loads(what_if), *_relaxations(content)]
    if what_if.omitted:
        omitted = f"Not computed within the time limit: {', '.join(what_if.omitted)}. Raise it with --what-if."
        parts.append(paragraph(omitted, style="remark"))
    return join(parts)


def _loads(what_if: WhatIf) -> Iterator[Html]:
    if not what_if.loads:
        return
    first = what_if.loads[0]
    heads = ("query", *(f"{report.load:g}× load" for report in what_if.loads))
    rows = [("queries that keep their SLOs", *(element("strong", _kept(report)) for report in what_if.loads))]
    for number, outcome in enumerate(first.queries):
        rows.append((outcome.query, *(_outcome(report.queries[number]) for report in what_if.loads)))
    yield element("h3", "This plan under other loads")
    yield table(heads, rows)
    yield paragraph(
        f"One simulation at each load, request by request, of {format_duration(first.duration_s)} with seed "
        f"{first.seed}, on measured times and without a controller; latencies are at the percentile of the SLO. "
        "? means that the simulation is too short to be sure.",
        style="remark",
    )


def _kept(report: SimulationReport) -> str:
    unsure = sum(not outcome.is_significant for outcome in report.queries)
    kept = sum(outcome.satisfied and outcome.is_significant for outcome in report.queries)
    return f"{kept} of {len(report.queries)}{f', {unsure} unsure' if unsure else ''}"


def _outcome(outcome: QueryOutcome) -> Html:
    if not outcome.requests:
        return element("span", "no request", class_="unsure")
    latency_s = outcome.at_percentile_s.value
    text = format_duration(latency_s) if latency_s < float("inf") else "dropped"
    if not outcome.is_significant:
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
