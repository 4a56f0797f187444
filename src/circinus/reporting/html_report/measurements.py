"""Measured over predicted: load tests, service times under traffic, and the timeline of a controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from circinus.control.state_store import Event, EventKind
from circinus.reporting.html_report.charts import COLORS, Chart, Style, format_axis
from circinus.reporting.html_report.content import ReportContent
from circinus.reporting.html_report.markup import Html, element, join, paragraph, table
from circinus.reporting.load_table import observation_text
from circinus.reporting.tables import MetricNames
from circinus.serving.loadtest.machine_load import MachineLoad
from circinus.specification.formatting import UNBOUNDED_S, format_duration, format_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREDICTED, MEASURED = "predicted", "measured"
_STYLES: Mapping[str, Style] = {PREDICTED: ("ladder", "D"), MEASURED: ("chosen", "o")}
_MARKS = {"yes": ("✓ kept", "good"), "no": ("✗ missed", "bad"), "unsure": ("? unsure", "unsure")}
_MAX_RATIO = 3.0
"""Largest share of a limit on the axis of latencies."""
_MIN_LABELLED = 0.02
"""Share of a timeline from which a bar has the number of its rung."""
_ROW = 0.32
"""Height of a query in a chart, in inches."""


def load_section(content: ReportContent) -> Html:
    """Return what a load test measured of each query, beside the prediction."""
    load = content.load or {}
    queries = [query for query in load["queries"] if query["query"] in content.assignments and query["latency_s"]]
    verdicts = load["verdicts"]
    counts = ", ".join(f"{verdicts.get(verdict, 0)} {text[2:]}" for verdict, (text, _) in _MARKS.items())
    head = paragraph(
        f"{load['promises']} promises: {counts}. "
        f"Goodput as measured: {load['goodput']:g} of weight {load['total_weight']:g}; "
        f"{format_duration(load['duration_s'])} of {load['arrivals']} traffic in mode {load['mode']} at "
        f"{load['load_factor']:g}× load."
    )
    end_s = load.get("engine_end_s")  # earlier versions did not write it
    if end_s is not None:
        text = f"The engine ended {format_duration(end_s)} after the start of the test, and the test with it"
        head = join((head, paragraph(f"{text}: figures are those until then.", style="remark")))
    metric = MetricNames(content.specification.metric_names, content.assignments).column
    heads = ("query", "SLOs", "latency predicted", "measured", "limit", f"{metric} predicted", "measured", "limit")
    machine = None if load["machine"] is None else MachineLoad(**load["machine"])
    if machine is not None and machine.busy:
        text = f"Other programs kept {machine.others_cpus:.1f} of the machine's {machine.cpus} CPUs busy"
        head = join((head, paragraph(f"{text}, so that latencies may be overstated.", style="remark")))
    parts = [head, *([_chart(content, queries, metric)] if queries else [])]
    return join((*parts, table(heads, [_row(content, query) for query in queries])))


def _row(content: ReportContent, query: Mapping[str, Any]) -> tuple[str, ...]:
    slos, predicted, latency = content.queries[query["query"]].slos, query["predicted"], query["latency_s"]
    text, style = _MARKS.get(query["verdict"], ("", ""))
    measured_s = latency["at_percentile_s"]
    return (
        query["query"],
        element("span", text, class_=style),
        "" if predicted is None else format_duration(predicted["latency_s"]["value"]),
        "no answer" if measured_s is None else format_duration(measured_s),
        "" if slos.latency is None else f"p{latency['percentile']:g} ≤ {slos.latency.limit_text}",
        "" if predicted is None else format_score(predicted["accuracy"]["value"]),
        "" if query["score"] is None else format_score(query["score"]),
        "" if slos.accuracy is None else f"{'≥' if slos.accuracy.is_minimum else '≤'} {slos.accuracy.limit_text}",
    )


def _chart(content: ReportContent, queries: Sequence[Mapping[str, Any]], metric: str) -> Html:
    """Return latencies as shares of their limits, and accuracies with their limits; a row for each query."""
    chart = Chart(2, 0.9 + _ROW * len(queries), sharey=True)
    latency_axes, score_axes = chart.panels
    for number, query in enumerate(queries):
        slos, bounds, predicted = content.queries[query["query"]].slos, query["bounds"] or {}, query["predicted"] or {}
        measured = {
            "latency_s": {"value": query["latency_s"]["at_percentile_s"], **bounds.get("latency", {})},
            "accuracy": {"value": query["score"], **bounds.get("accuracy", {})},
        }
        for side, values, y in ((PREDICTED, predicted, number - 0.15), (MEASURED, measured, number + 0.15)):
            names = query["query"], side
            if slos.latency is not None:
                _interval(chart, latency_axes, y, values.get("latency_s"), slos.latency.limit, names)
            _interval(chart, score_axes, y, values.get("accuracy"), None, names)
        limits = [(latency_axes, None if slos.latency is None else 1.0)]
        limits += [(score_axes, None if slos.accuracy is None else slos.accuracy.limit)]
        for axes, limit in limits:
            if limit is not None:
                axes.plot([limit, limit], [number - 0.4, number + 0.4], color=COLORS["slo"], linewidth=2)
    latency_axes.set_yticks(range(len(queries)), [query["query"] for query in queries])
    latency_axes.set_ylim(len(queries) - 0.5, -0.5)
    latency_axes.set_xlim(0.0, min(max(latency_axes.get_xlim()[1], 1.1), 1.03 * _MAX_RATIO))
    format_axis(latency_axes.xaxis, "{:.0%}".format, "latency as a share of its limit")
    format_axis(score_axes.xaxis, format_score, f"{metric}, with its limit")
    chart.legend(_STYLES)
    return chart.html(f"Measured and predicted latency and {metric} of each query")


def _interval(
    chart: Chart,
    axes: Axes,
    y: float,
    interval: Mapping[str, Any] | None,
    limit_s: float | None,
    names: tuple[str, str],
) -> None:
    """Draw a score, or a latency relative to its limit, with its bounds; what was not measured is left out."""
    if interval is None or interval["value"] is None:
        return
    value, ends = interval["value"], (interval.get("lower"), interval.get("upper"))
    lower, upper = (value if end is None or end >= UNBOUNDED_S else end for end in ends)
    unit, shown = (1.0, format_score(value)) if limit_s is None else (limit_s, format_duration(value))
    color, marker = _STYLES[names[1]]
    axes.plot([lower / unit, upper / unit], [y, y], color=COLORS[color], alpha=0.6)
    if limit_s is not None and value / unit > _MAX_RATIO:
        value, marker = _MAX_RATIO * unit, ">"
    chart.mark(axes, value / unit, y, (color, marker), f"{', '.join(names)}: {shown}")


def observation_section(content: ReportContent) -> Html:
    """Return the service times that traffic showed, relative to the profile."""
    lines = (f"{seen.at[:16].replace('T', ' ')}: {observation_text(seen)}" for seen in content.observations)
    note = paragraph("Later plans are corrected by these observations.", style="remark")
    return join((element("ul", *(element("li", line) for line in lines)), note))


def timeline_section(content: ReportContent) -> Html:
    """Return the rung of each query over time, and all events of the controller that ran last."""
    events = content.events
    steps = [event for event in events if event.kind == EventKind.STEP and {"from", "to"} <= event.details.keys()]
    rows = [(_time(event), f"{event.kind} {event.subject}", _change(event), event.reason) for event in reversed(events)]
    parts = [] if not steps else [_timeline(steps, events[0].time_s, max(events[-1].time_s, events[0].time_s + 1.0))]
    return join((*parts, table(("time (UTC)", "event", "rung", "reason"), rows)))


def _time(event: Event) -> str:
    return datetime.fromtimestamp(event.time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _change(event: Event) -> str:
    details = event.details
    return f"{details['from']} → {details['to']}" if {"from", "to"} <= details.keys() else ""


def _timeline(steps: Sequence[Event], start_s: float, end_s: float) -> Html:
    """Return a bar for each time that a query was on a rung; the lower the rung, the darker."""
    names = list(dict.fromkeys(step.subject for step in steps))
    lowest = max(rung for step in steps for rung in (step.details["from"], step.details["to"]))
    chart = Chart(1, 0.8 + _ROW * len(names))
    (axes,) = chart.panels
    for number, name in enumerate(names):
        own = [step for step in steps if step.subject == name]
        edges = [start_s, *(step.time_s for step in own), end_s + 0.05 * (end_s - start_s)]
        rungs = [own[0].details["from"], *(step.details["to"] for step in own)]
        for (begin_s, until_s), rung in zip(pairwise(edges), rungs, strict=True):
            shade = 0.15 + 0.4 * rung / max(lowest, 1)
            bars = axes.barh(number, until_s - begin_s, left=begin_s - start_s, color=COLORS["chosen"], alpha=shade)
            if until_s - begin_s > _MIN_LABELLED * (end_s - start_s):
                axes.text((begin_s + until_s) / 2 - start_s, number, str(rung), ha="center", va="center")
            lasted = "since then" if until_s == edges[-1] else f"for {format_duration(until_s - begin_s)}"
            chart.describe(bars[0], f"{name}: rung {rung} {lasted}")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    format_axis(axes.xaxis, format_duration, "time since the first event")
    note = paragraph("Bars are the rungs of a query's ladder over time: the darker, the further down.", style="remark")
    return join((chart.html("Rung of each query over time"), note))
