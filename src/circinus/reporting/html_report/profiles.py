"""Profile of each pipeline: what was measured, how sure it is, and what was not measured."""

from __future__ import annotations

from circinus.profiling import ConfigurationProfile, PipelineProfile, Verdict
from circinus.reporting.html_report.charts import COLORS, Chart, Style, format_axis, format_time_axis
from circinus.reporting.html_report.content import ReportContent
from circinus.reporting.html_report.markup import Html, element, join, paragraph
from circinus.specification import configuration_count
from circinus.specification.formatting import (
    format_duration,
    format_interval,
    format_percentage,
    format_score,
    with_metric,
)

_MEASURED = "measured"
"""Category of all configurations where no verdicts are stored."""
_STYLES: dict[str, Style] = {
    _MEASURED: ("chosen", "o"),
    Verdict.FEASIBLE: ("chosen", "o"),
    Verdict.UNDECIDED: ("costlier", "s"),
    Verdict.TOO_FEW_ITEMS: ("costlier", "^"),
    Verdict.DOMINATED: ("ladder", "D"),
    Verdict.UNLIKELY: ("ladder", "v"),
    Verdict.INFEASIBLE: ("excluded", "X"),
}
_MAX_SHOWN = 150
"""Number of configurations in a chart; the first ones in the order of verdicts."""


def profile_section(content: ReportContent) -> Html:
    """Return the profile of each pipeline: figures, and accuracy over time of the measured configurations."""
    sections = [_pipeline(content, name, profile) for name, profile in content.profiles.items()]
    missing = (join((element("h3", name), paragraph(reason))) for name, reason in content.unprofiled.items())
    return join((*sections, *missing))


def _pipeline(content: ReportContent, name: str, profile: PipelineProfile) -> Html:
    pipeline = content.specification.pipelines[name]
    metric, configurations = pipeline.metric.name, configuration_count(pipeline)
    scores = sum(len(measured.items) for measured in profile.configurations)
    all_scores = configurations * profile.population
    lines = [
        f"{len(profile.configurations):,} of {configurations:,} configurations measured, "
        f"{len(profile.failed):,} failed",
        f"{scores:,} of {all_scores:,} scores measured ({format_percentage(scores / all_scores)}); "
        f"{profile.held_out_items:,} of {profile.dataset_items:,} items are held out for tests",
        f"{format_duration(profile.profiled_s)} of processing; equal prefixes saved {format_duration(profile.saved_s)}",
        f"each bound of {metric} holds with probability {1 - profile.risk:g}, for all configurations together",
    ]
    if profile.certificate is not None:
        lines.append(with_metric(str(profile.certificate), metric))
    facts = element("ul", *(element("li", line) for line in lines))
    if not profile.configurations:
        return join((element("h3", name), facts))
    return join((element("h3", name), facts, _chart(content, name, profile, metric)))


def _verdict(profile: PipelineProfile, measured: ConfigurationProfile) -> str:
    judgement = profile.verdicts.get(measured.configuration)
    return _MEASURED if judgement is None else judgement.verdict


def _chart(content: ReportContent, name: str, profile: PipelineProfile, metric: str) -> Html:
    order = list(_STYLES)
    ranked = sorted(profile.configurations, key=lambda c: (order.index(_verdict(profile, c)), c.mean_service_s))
    shown = ranked[:_MAX_SHOWN]
    chart = Chart(1, 3.2)
    (axes,) = chart.panels
    for measured in reversed(shown):
        bounds, verdict = measured.accuracy, _verdict(profile, measured)
        text = (
            f"{verdict}: {measured.configuration}\n{metric} {format_interval(format_score, bounds)} on "
            f"{len(measured.items)} items\n{format_duration(measured.mean_service_s)}"
        )
        time_s, color = measured.mean_service_s, COLORS[_STYLES[verdict][0]]
        axes.plot([time_s, time_s], [bounds.lower, bounds.upper], color=color, alpha=0.5)
        chart.mark(axes, time_s, bounds.value, _STYLES[verdict], text)
    low, high = axes.get_ylim()
    for query in content.specification.queries:
        limit = query.slos.accuracy
        if query.pipeline == name and limit is not None and low <= limit.limit <= high:
            axes.axhline(limit.limit, color=COLORS["slo"], linestyle="--", linewidth=1.0)
    format_axis(axes.yaxis, format_score, metric)
    format_time_axis(axes, (measured.mean_service_s for measured in shown), "mean service time of an item")
    used = {_verdict(profile, measured) for measured in shown}
    chart.legend({verdict: style for verdict, style in _STYLES.items() if verdict in used})
    note = f"Bars are bounds of {metric}; dashed lines are limits of SLOs."
    if len(shown) < len(profile.configurations):
        note += (
            f" {len(profile.configurations) - len(shown):,} more configurations, the least promising, are not shown."
        )
    return join((chart.html(f"{name}: {metric} over service time, with bounds"), paragraph(note, style="remark")))
