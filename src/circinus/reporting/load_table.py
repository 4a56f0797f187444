"""Tables of load tests: measurements and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from circinus.profiling import ServiceTimeObservation
from circinus.reporting.plan_text import operator_text
from circinus.reporting.tables import OneLine, TwoLines, make_table
from circinus.serving.loadtest.load_report import LoadReport, QueryMeasurement, ServiceTimeReport
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.specification import Slo, SloKind
from circinus.specification.formatting import (
    UNBOUNDED_S,
    Formatting,
    Rounding,
    ceil_significant,
    format_duration,
    format_range,
    format_score,
    format_usd_per_h,
    with_metric,
)
from circinus.specification.units import DURATION
from circinus.statistics.interval import Interval

_SHOWN = 3
"""Maximum number of queries in a line."""
_SLOWER = 1.1
"""Factor on profiled service times from which a busy machine explains it."""
_OUTLYING = 10
"""Factor on the mean service time from which a single one explains a late request."""
_NEGLIGIBLE = 0.01
"""Share of a predicted cost by which bounds may exclude it without a remark."""


def service_time_text(learning: ServiceTimeReport | None, not_stored_reason: str = "") -> Group:
    """Return the observed service time ratio of each deployment, and the reasons where nothing was learnt.

    Args:
        learning: service time report of a run; None: nothing was observed.
        not_stored_reason: reason why no observations are in the profile store; empty if they are.
    """
    observations, refused = ((), ()) if learning is None else (learning.observations, learning.refused)
    lines = [Text(observation_text(observation)) for observation in observations]
    if observations or not refused:
        stored = "stored: the observations correct later plans; `circinus forget` takes them back"
        unstored = f"{'not stored' if observations else 'nothing learnt from this traffic'}: {not_stored_reason}"
        lines.append(Text(unstored if not_stored_reason else stored, style="dim"))
    for reason in dict.fromkeys(skipped.reason for skipped in refused):
        names = ", ".join(skipped.deployment.name for skipped in refused if skipped.reason == reason)
        lines.append(Text(f"no observation of {names}: {reason}", style="yellow"))
    return Group(*lines)


def observation_text(observation: ServiceTimeObservation) -> str:
    """Return the ratio of observed to profiled service times of a deployment, and what it rests on."""
    operator = f"{observation.pipeline}/{operator_text(observation.operator, observation.knobs)}"
    return (
        f"{operator} on {observation.hardware_class}: service times are {math.exp(observation.log_ratio):.2f} "
        f"times the prediction of the profile (standard error {observation.standard_error:.1%}, "
        f"{observation.requests} requests, {observation.items} items)"
    )


def load_table(report: LoadReport) -> RenderableType:
    """Return a table with the measured and predicted quantities of each query, and verdicts on its SLOs."""
    title = f"Load test with {report.arrivals} traffic ({report.mode} mode)"
    predicted = "predicted" if report.load_factor == 1 else "predicted\nat 1x load"
    table = make_table(None, ("query", "SLO"), ("measured", "bounds", predicted, "met"), one_line=True)
    table.columns[3].no_wrap = False
    for query in report.queries:
        names: list[RenderableType] = [Group(OneLine(query.query), Text(_sent_text(query))), "", ""]
        for name, row in zip(names, _rows(query), strict=False):
            table.add_row(name, *row)
        table.add_section()
    return Group(Text(title, "italic"), table, *load_notes(report))


def _sent_text(query: QueryMeasurement) -> str:
    """Return the numbers of requests, items, and requests without an answer."""
    if not query.requests:
        return "no requests" if query.served else "rejected"
    counts = {"lost": query.failures + query.unanswered, "dropped": query.dropped, "unscored": query.unscored}
    losses = [f"{count} {name}" for name, count in counts.items() if count]
    shares = [" + ".join(f"{part.share:.1%}" for part in query.parts)] if query.parts else []
    return "\n".join([f"{query.requests} requests", *shares, f"{query.items} items", *losses])


def _rows(query: QueryMeasurement) -> list[tuple[RenderableType, ...]]:
    """Return SLO, measured value, bounds, prediction with its bound, and verdict of latency, accuracy and cost."""
    if not query.served or query.latency_s is None:
        verdict = "" if query.verdict is None else _COLORED[query.verdict]
        return [(escape(with_metric(str(query.slos), query.metric)), "", "", "", verdict)]
    slos, predicted = query.slos, query.predicted
    measured_s = query.latency_s.at_percentile_s
    nothing = "dropped" if query.dropped > query.failures + query.unanswered else "no response"
    rows = [
        (
            SloKind.LATENCY,
            f"p{query.latency_s.percentile:g}",
            nothing if measured_s is None else format_duration(measured_s),
            format_duration,
            None if predicted is None else predicted.latency_s,
        ),
        (
            SloKind.ACCURACY,
            "",
            "" if query.score is None else format_score(query.score),
            format_score,
            None if predicted is None else predicted.accuracy,
        ),
        (
            SloKind.COST,
            "",
            "" if query.cost_usd_per_h is None else format_usd_per_h(query.cost_usd_per_h),
            format_usd_per_h,
            None if predicted is None else predicted.cost_usd_per_h,
        ),
    ]
    return [
        (
            f"{escape(query.metric) if kind is SloKind.ACCURACY else kind} {slos.by_kind.get(kind, default)}",
            measured,
            TwoLines(_bounds_text(query, kind, format_value), "to "),
            "" if estimate is None else _prediction_text(slos.by_kind.get(kind), estimate, format_value),
            _COLORED[query.verdicts[kind]] if query.verdicts and kind in query.verdicts else "",
        )
        for kind, default, measured, format_value, estimate in rows
    ]


_COLORED = {
    SloVerdict.YES: "[green]yes[/green]",
    SloVerdict.NO: "[red]no[/red]",
    SloVerdict.UNSURE: "[yellow]unsure[/yellow]",
}


def _bounds_text(query: QueryMeasurement, kind: SloKind, format_value: Formatting) -> str:
    """Return the bounds, or "" if they are not measured or do not differ; one that meets the limit is printed so."""
    bounds = (query.bounds or {}).get(kind)
    if bounds is None or bounds.lower == bounds.upper:
        return ""
    ends = (bounds.lower, Rounding.DOWN), (bounds.upper, Rounding.UP)
    slo = None if query.slos is None else query.slos.by_kind.get(kind)
    texts = ("?" if end is None else _bound_text(end, slo, rounding, format_value) for end, rounding in ends)
    return " to ".join(texts)


def _bound_text(bound: float, slo: Slo | None, rounding: Rounding, format_value: Formatting) -> str:
    return format_value(bound, rounding=rounding, limit=None if slo is None else slo.limit)


def _prediction_text(slo: Slo | None, estimate: Interval, format_value: Formatting) -> str:
    """Return the predicted value, and the bound that the plan promises."""
    if slo is None:
        return format_value(estimate.value)
    promised, sign, rounding = slo.worst(estimate), "≤", Rounding.UP
    if slo.is_minimum:
        sign, rounding = "≥", Rounding.DOWN
    bound = "no bound" if promised >= UNBOUNDED_S else f"{sign} {_bound_text(promised, slo, rounding, format_value)}"
    return f"{format_value(estimate.value)}\n{bound}"


def load_notes(report: LoadReport) -> list[Text]:
    """Return a line each on answers, verdicts, what would decide them, and what explains misses."""
    verdicts = ", ".join(f"{report.verdicts.get(verdict, 0)} {verdict}" for verdict in SloVerdict)
    notes = [
        _answers_text(report),
        Text(
            f"all SLOs met: {verdicts} of {report.promises} served queries; goodput as measured {report.goodput:g} of "
            f"{report.total_weight:g}; deployments cost {format_usd_per_h(report.deployments_cost_usd_per_h)} "
            f"without transfers; "
            f"{format_duration(report.duration_s)} measured after {format_duration(report.warm_up_s)} of warm-up at "
            f"{report.load_factor:g}x load, seed {report.seed}"
        ),
    ]
    if report.verdicts.get(SloVerdict.UNSURE):
        notes.append(Text(f"unsure: the bounds contain the limit; {_decisive_text(report)}", style="yellow"))
    texts = _overload_text(report), _disturbance_text(report), _cost_text(report)
    notes += [Text(text, style="yellow") for text in texts if text]
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


def _answers_text(report: LoadReport) -> Text:
    """Return that all requests were answered, or how many were not and why."""
    totals = report.totals
    requests = f"{totals['requests']} requests"
    reasons = {"failures": "failed", "dropped": "dropped as late", "unanswered": "without an answer in time"}
    losses = [f"{totals[name]} {reason}" for name, reason in reasons.items() if totals[name]]
    if losses:
        return Text(f"{totals['answered']} of {requests} answered: {', '.join(losses)}", style="red")
    return Text(f"all {requests} answered" if totals["requests"] else "no requests")


def _decisive_text(report: LoadReport) -> str:
    """Return what would decide the SLOs that are unsure: a longer test, or more items."""
    unsure = [query for query in report.queries if query.verdict is SloVerdict.UNSURE]
    needed_s, parts, close, disturbed = {}, list[str](), list[QueryMeasurement](), list[str]()
    lacking = list[QueryMeasurement]()
    for query in unsure:
        if not query.requests:
            parts.append(f"a longer test has requests of {query.query}")
        elif _is_disturbed(report) and _may_be_late(query) and query in _exceeding(report):
            disturbed.append(query.query)
        elif query.decisive_items is None:
            close.append(query)
        elif query.decisive_duration_s is None:
            lacking.append(query)
        else:
            needed_s[query.query] = query.decisive_duration_s
    parts += _lacking_items_text(lacking)
    if needed_s:
        duration = DURATION.format(max(needed_s.values()))
        parts.insert(0, f"`--duration {duration}` decides {', '.join(needed_s)} if further requests are like these")
    by_items = [query for query in close if _is_narrowed_by_items(query)]
    if by_items:
        sent = format_range(str, min(query.items for query in by_items), max(query.items for query in by_items))
        names = ", ".join(query.query for query in by_items)
        parts.append(f"longer tests and more items than the {sent} of {names} narrow them")
    if len(close) > len(by_items):
        names = ", ".join(query.query for query in close if query not in by_items)
        parts.append(f"many more requests like these do not decide {names}")
    if disturbed:
        parts.append(f"a test on a quiet machine may decide {', '.join(disturbed)}")
    return "; ".join(parts)


def _lacking_items_text(queries: Sequence[QueryMeasurement]) -> list[str]:
    """Return how many items would decide queries, with the sizes of data sets that hold out as many; none for none."""
    if not queries:
        return []
    needed = {query.query: query.decisive_items or 0 for query in queries}
    ordered = sorted(needed, key=needed.__getitem__)
    counts = f"{ordered[0]} takes {needed[ordered[0]]} items like these"
    if others := [f"{name} {needed[name]}" for name in ordered[1:]]:
        counts += f", {', '.join(others)}"
    available = [query.available_items for query in queries]
    text = f"{counts}, and {format_range(str, min(available), max(available))} are there to send"
    sizes = [query.decisive_data_set_items for query in queries if query.decisive_data_set_items is not None]
    if not sizes:
        return [text]
    low, high = (f"{ceil_significant(size, 2):,.0f}" for size in (min(sizes), max(sizes)))
    larger = f"a data set of {low} items holds" if low == high else f"data sets of {low} to {high} items hold"
    return [f"{text}; {larger} out that many"]


def _is_narrowed_by_items(query: QueryMeasurement) -> bool:
    """Return whether bounds are wide as few items were sent: those of a score, or of a latency before all items."""
    unsure = {kind for kind, verdict in (query.verdicts or {}).items() if verdict is SloVerdict.UNSURE}
    return SloKind.ACCURACY in unsure or (SloKind.LATENCY in unsure and query.items < query.available_items)


def _is_disturbed(report: LoadReport) -> bool:
    """Return whether the machine was too busy, and that alone may explain late answers."""
    if report.replacements:
        return False
    return report.lateness.late or (report.machine is not None and report.machine.busy)


def _overload_text(report: LoadReport) -> str:
    """Return the most overloaded deployments, or ""."""
    most = sorted(report.overloaded.items(), key=lambda entry: -entry[1])[:_SHOWN]
    if not most:
        return ""
    loads = ", ".join(f"{name} at {ratio:.0%} of its capacity" for name, ratio in most)
    return f"overloaded at {report.load_factor:g}x load: {loads}, so that requests wait ever longer"


def _disturbance_text(report: LoadReport) -> str:
    """Return how far latencies exceed the plan's bounds and what explains it, with the load of the machine, or ""."""
    effects, excess = [], _excess_text(report)
    if not _is_disturbed(report):
        return excess
    if report.lateness.late:
        effects.append(f"requests were sent {format_duration(report.lateness.p99_s)} late (99th percentile)")
    observations = report.learning.observations if report.learning is not None else ()
    slower = [o.log_ratio for o in observations if math.exp(o.log_ratio - o.standard_error) >= _SLOWER]
    if slower:
        reach = "up to " if len(slower) > 1 else ""
        effects.append(f"services took {reach}{math.exp(max(slower)):.2f} times the profile's")
    if excess:
        effects.append(excess)
    elif any(map(_may_be_late, report.queries)):
        effects.append("latency SLOs are missed or unsure")
    if not effects:
        return ""
    cause, machine = "the machine was too busy", report.machine
    if machine is not None and machine.busy:
        cause = f"other programs kept {machine.others_cpus:.1f} of the machine's {machine.cpus} CPUs busy"
    overstated = f"latencies {'are' if report.lateness.late else 'may be'} overstated"
    advice = "" if report.overloaded else ": repeat the test on a quiet machine"
    return f"{cause}: {', '.join(effects)}. Measured {overstated}{advice}"


def _excess_text(report: LoadReport) -> str:
    """Return how far latencies exceed the plan's bounds, with the parts that bounds do not contain, or ""."""
    exceeding = sorted(_exceeding(report), key=_excess_s, reverse=True)
    if not exceeding:
        return ""
    parts = []
    for query in exceeding[:_SHOWN]:
        if query.percentile_engine_s is None or query.percentile_lag_s is None:
            parts.append(f"{query.query} has no response at its percentile")
            continue
        own, late = format_duration(query.percentile_engine_s), format_duration(query.percentile_lag_s)
        causes = ", ".join([f"engine {own}", f"late sending {late}", *_outlying_services(query)])
        parts.append(f"{query.query} by {format_duration(_excess_s(query))} ({causes})")
    if len(exceeding) > _SHOWN:
        parts.append(f"{len(exceeding) - _SHOWN} more")
    return (
        f"latencies exceed the plan's bounds, which contain neither the engine's own time nor late sending: "
        f"{', '.join(parts)}"
    )


def _cost_text(report: LoadReport) -> str:
    """Return the costs at the planned load whose bounds exclude the prediction, or ""."""
    differing = [query for query in report.queries if report.load_factor == 1 and _cost_excess(query) > _NEGLIGIBLE]
    parts = [
        f"{query.query} {format_usd_per_h(query.cost_usd_per_h)} instead of "
        f"{format_usd_per_h(query.predicted.cost_usd_per_h.value)}"
        for query in sorted(differing, key=_cost_excess, reverse=True)[:_SHOWN]
        if query.cost_usd_per_h is not None and query.predicted is not None
    ]
    parts += [f"{len(differing) - _SHOWN} more"] if len(differing) > _SHOWN else []
    return (
        f"bounds of costs exclude the plan's: {', '.join(parts)}. Queries share their deployments' cost by busy seconds"
        if parts
        else ""
    )


def _cost_excess(query: QueryMeasurement) -> float:
    """Return how far the bounds of a cost are from the prediction, relative to it; 0 if they contain it."""
    bounds = (query.bounds or {}).get(SloKind.COST)
    if bounds is None or query.predicted is None:
        return 0.0
    predicted = query.predicted.cost_usd_per_h.value
    below = 0.0 if bounds.lower is None else bounds.lower - predicted
    above = 0.0 if bounds.upper is None else predicted - bounds.upper
    distance = max(below, above, 0.0)
    return distance / predicted if distance and predicted else math.inf if distance else 0.0


def _outlying_services(query: QueryMeasurement) -> list[str]:
    """Return the services of the request at the percentile that took many times as long as on average."""
    means_s = query.stage_s or {}
    return [
        f"{operator} {format_duration(service_s)} instead of {format_duration(means_s[operator])} on average"
        for operator, service_s in (query.percentile_stage_s or {}).items()
        if service_s > _OUTLYING * means_s.get(operator, math.inf)
    ]


def _exceeding(report: LoadReport) -> list[QueryMeasurement]:
    """Return the queries with latencies above the plan's bounds, which are those at the planned load."""
    return [query for query in report.queries if report.load_factor <= 1 and _excess_s(query) > 0]


def _excess_s(query: QueryMeasurement) -> float:
    """Return the seconds by which the measured percentile exceeds the plan's bound; infinite without an answer."""
    if query.latency_s is None or query.predicted is None:
        return 0.0
    measured_s = query.latency_s.at_percentile_s
    return math.inf if measured_s is None else max(measured_s - query.predicted.latency_s.upper, 0.0)


def _may_be_late(query: QueryMeasurement) -> bool:
    return (query.verdicts or {}).get(SloKind.LATENCY, SloVerdict.YES) is not SloVerdict.YES
