"""Tables of profiles, calibrations, corrections and observations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.matching import ProfileCoverage
from circinus.operators.process_output import without_excerpt
from circinus.profiling import Verdict
from circinus.reporting.plan_text import format_cpus, operator_text
from circinus.reporting.tables import FirstFitting, OneLine, WrappedTitle, make_table
from circinus.specification import KnobValues, Population
from circinus.specification.formatting import (
    ACCURACY,
    format_bytes,
    format_duration,
    format_interval,
    format_range,
    format_score,
    with_metric,
)

if TYPE_CHECKING:
    from circinus.estimation import Correction, Corrections
    from circinus.profiling import (
        Calibration,
        ConfigurationVerdict,
        FailedConfiguration,
        HardwareClassReport,
        ImportedTime,
        MeasuredSpeed,
        OperatorProfile,
        PipelineProfile,
        ServiceTimeObservation,
        TimeSpent,
    )
    from circinus.statistics.interval import Interval

_VERDICT = "verdict"
"""Title of the column of texts."""


def speed_table(profile: PipelineProfile) -> Table:
    """Return a table of relative speeds: a row for each operator with its knob values, a column for each class."""
    measured: dict[tuple[str, KnobValues], dict[str, MeasuredSpeed]] = {}
    for configuration in profile.configurations:
        for name, operator in configuration.operators.items():
            measured.setdefault((name, configuration.configuration[name]), {}).update(operator.speeds.measured)
    classes = dict.fromkeys(name for speeds in measured.values() for name in speeds)
    table = make_table("Speed on other hardware (bounds)", ("operator", "knobs"), map(escape, classes))
    for (operator_name, knobs), speeds in measured.items():
        cells = [_speed_text(speeds.get(name)) for name in classes]
        table.add_row(escape(operator_name), escape(str(knobs)), *cells)
    return table


def hardware_class_lines(reports: Sequence[HardwareClassReport]) -> list[Text]:
    """Return a line for each hardware class and for each failure."""
    lines = []
    for report in reports:
        if report.machine is None:
            lines.append(Text(f"{report.hardware_class}: not measured; its declared speed applies", style="yellow"))
            continue
        line = f"{report.hardware_class}: {format_duration(report.ran_s)} of processing on {report.machine}"
        missing = f"; declared speeds apply to {report.missing} operators with their knobs" if report.missing else ""
        lines.append(Text(line + missing, style="yellow" if missing else ""))
        for failed in report.failed:
            failure = f"{report.hardware_class}: {failed.configuration} failed: {failed.reason}"
            lines.append(Text(failure, style="red"))
    return lines


def _speed_text(measured: MeasuredSpeed | None) -> str:
    if measured is None:
        return "declared"
    return _interval_text(measured.speed) if measured.items else f"{measured.speed.value:.3g} (imported)"


def imported_lines(times: Sequence[ImportedTime], profile: PipelineProfile) -> list[Text]:
    """Return a line for each imported table: its origin, what it has, and how much of it the profile does not use."""
    used = {
        (name, operator.prefix[name], hardware_class)
        for measured in profile.configurations
        for name, operator in measured.operators.items()
        for hardware_class, speed in operator.speeds.measured.items()
        if speed.batches is not None
    }
    tables: dict[tuple[str, str, str], list[ImportedTime]] = {}
    for time in times:
        tables.setdefault((time.at, time.file, time.sha256), []).append(time)
    lines = []
    for (at, file, sha256), of_table in sorted(tables.items()):
        classes = ", ".join(sorted({time.hardware_class for time in of_table}))
        origins = ", ".join(dict.fromkeys(time.origin for time in of_table if time.origin))
        line = f"imported for {classes}: {_counted(len(of_table), 'time')} from {file} ({sha256[:12]}) at {at[:16]}Z"
        line = f"{line}; origin: {origins}" if origins else line
        unused = sum((time.operator, time.knobs, time.hardware_class) not in used for time in of_table)
        if unused:
            line += (
                f"; {unused} unused: for earlier code (import them again), or for knob values that were not measured"
            )
        lines.append(Text(line, style="yellow" if unused else ""))
    return lines


def imported_table(times: Sequence[ImportedTime]) -> Table:
    """Return a table with a row for each operator with its knob values, hardware class and CPUs."""
    table = make_table("Imported times of full batches", ("operator", "hardware", "replica"), ("batch: time",))
    rows: dict[tuple[str, str, str], list[str]] = {}
    for time in sorted(times, key=lambda time: (time.pipeline, time.operator, time.knobs, time.batch_size)):
        operator = f"{time.pipeline}/{operator_text(time.operator, time.knobs)}"
        cells = rows.setdefault((operator, time.hardware_class, format_cpus(time.cpus)), [])
        cells.append(f"{time.batch_size}: {format_duration(time.batch_s)}")
    for row, cells in rows.items():
        table.add_row(*map(escape, row), ", ".join(cells))
    return table


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def calibration_table(calibration: Calibration, warning: str | None = None) -> RenderableType:
    """Return a table with a row for each operator, the entry for the infrastructure file, and a warning if any."""
    title = f"Relative speed of {calibration.machine} on {calibration.pipeline}"
    table = make_table(title, ("operator",), ("speed (bounds)",))
    for name, speed in calibration.operators.items():
        table.add_row(escape(name), _interval_text(speed))
    table.add_row("all operators", _interval_text(calibration.speed))
    speed = calibration.speed
    return Group(
        table,
        Text(
            f"relative to {calibration.recorded_on or 'the profiling machine'}; {calibration.items} items under "
            f"{calibration.configuration}; bounds fail with probability at most {calibration.risk:g}"
        ),
        Text(
            f"infrastructure entry: relative_speed: {speed.value:.3g}, "
            f"relative_speed_bounds: [{speed.lower:.3g}, {speed.upper:.3g}]"
        ),
        *([] if warning is None else [Text(f"warning: {warning}", style="yellow")]),
    )


def _interval_text(interval: Interval) -> str:
    return f"{interval.value:.3g} ({interval.lower:.3g} to {interval.upper:.3g})"


def correction_table(corrections: Sequence[Correction]) -> Table:
    """Return a table with a row for each operator, knob values and hardware class."""
    title = "Corrections: observed relative to profiled service times"
    table = make_table(title, ("operator", "knobs", "hardware"), ("factor (95% bounds)", "runs", "requests"))
    for entry in corrections:
        table.add_row(
            escape(entry.uses),
            "(all others)" if entry.knobs is None else escape(str(entry.knobs)),
            escape(f"{entry.hardware_class} (speed {entry.speed:g})"),
            _interval_text(entry.factor),
            str(entry.runs),
            str(entry.requests),
        )
    return table


def observation_table(observations: Sequence[ServiceTimeObservation]) -> Table:
    """Return a table with a row for each deployment in each run of traffic, the newest last."""
    texts = ("run", "mode", "operator", "hardware", "replica")
    table = make_table("Observed service times, relative to the profile", texts, ("ratio", "requests"))
    for observation in observations:
        table.add_row(
            observation.at.replace("T", " "),
            observation.mode,
            escape(f"{observation.pipeline}/{operator_text(observation.operator, observation.knobs)}"),
            escape(f"{observation.hardware_class} (speed {observation.speed:g})"),
            f"{format_cpus(observation.cpus)}, batch {observation.batch_size}",
            f"{math.exp(observation.log_ratio):.3g} (standard error {observation.standard_error:.1%})",
            f"{observation.requests} ({observation.items} items)",
        )
    return table


def corrections_in_force(corrections: Corrections) -> str:
    """Return a line with the number of corrected operators, their hardware classes, and the range of factors."""
    entries = corrections.entries
    operators, classes = {entry.uses for entry in entries}, sorted({entry.hardware_class for entry in entries})
    lowest, highest = (f"{pick(entry.factor.value for entry in entries):.3g}" for pick in (min, max))
    factor = lowest if lowest == highest else f"{lowest} to {highest}"
    noun = "operator" if len(operators) == 1 else "operators"
    return (
        f"corrections: service times of {len(operators)} {noun} on {', '.join(classes)} are {factor} times those of "
        "the profile, as observed in traffic. `circinus explain` lists them; --no-corrections ignores them"
    )


def profile_table(
    profile: PipelineProfile, direction: str, warning: str | None = None, metric: str = ACCURACY
) -> RenderableType:
    """Return tables of the configurations, best first, and of the operators, with notes on the profile.

    Args:
        profile: the profile.
        direction: direction of the metric: `maximize` or `minimize`.
        warning: reason why the profile may not apply, or None.
        metric: name of the metric.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    rows = []
    for measured in sorted(profile.configurations, key=lambda c: sign * c.accuracy.value):
        operators = measured.operators.values()
        figures = (
            str(len(measured.items)),
            format_interval(format_score, measured.accuracy),
            format_duration(sum(float(operator.service_s.mean()) for operator in operators)),
            format_bytes(sum(operator.peak_memory_bytes for operator in operators)),
            _verdict(profile.verdicts.get(measured.configuration), metric),
        )
        rows.append((str(measured.configuration), *figures))
    titles = "configuration", "items", f"{metric} (bounds)", "service time", "memory", _VERDICT
    tables = [_table_or_list(titles, rows)]
    if profile.configurations:
        tables += [Text("Operators", "italic"), _operators(profile)]
    if any(o.speeds.measured for measured in profile.configurations for o in measured.operators.values()):
        tables.append(speed_table(profile))
    title = Text(f"Profile of {profile.pipeline}", "italic")
    return Group(title, *tables, *_measurement_notes(profile), *profile_notes(profile, warning, metric))


def _table_or_list(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """Return a table with one line for each row or, on consoles that are too narrow, a list with their figures."""
    table, items = make_table(None, titles[:1], (), one_line=True), Table.grid(padding=(0, 1, 0, 0))
    for title in titles[1:]:
        table.add_column(WrappedTitle(title), justify="left" if title == _VERDICT else "right")
    for name, *figures in rows:
        table.add_row(*(OneLine(cell, whole=True) for cell in (name, *figures)))
        shown = ("" if title == _VERDICT else f"{title.partition(' (')[0]} " for title in titles[1:])
        named = (f"{title}{figure}" for title, figure in zip(shown, figures, strict=True) if figure)
        items.add_row("•", Text.assemble((name, "bold"), f": {', '.join(named)}"))
    return FirstFitting(table, items)


def _operators(profile: PipelineProfile) -> RenderableType:
    """Return a row for each operator and its knob values, over all measured prefixes."""
    titles = "operator", "service time", "output", "start-up (load)", "memory", "measured allocations"
    by_knobs: dict[tuple[str, KnobValues], list[OperatorProfile]] = {}
    for name in profile.configurations[0].operators:
        for measured in profile.configurations:
            by_knobs.setdefault((name, measured.configuration[name]), []).append(measured.operators[name])
    rows = []
    for (name, knobs), operators in by_knobs.items():
        service_s = [float(operator.service_s.mean()) for operator in operators]
        reference = operators[0]
        startup = "-" if reference.startup_s is None else format_duration(reference.startup_s)
        figures = (
            format_range(format_duration, min(service_s), max(service_s)),
            format_bytes(sum(float(operator.output_bytes.mean()) for operator in operators) / len(operators)),
            f"{startup} ({format_duration(reference.load_s)})",
            format_bytes(reference.peak_memory_bytes),
            f"{len(reference.measured_allocations)} of {len(reference.batch_ratio)}",
        )
        rows.append((operator_text(name, knobs), *figures))
    return _table_or_list(titles, rows)


def search_summary(profile: PipelineProfile) -> str:
    """Return the number of measured configurations, and the certificate for the unmeasured ones."""
    certificate = f"; {profile.certificate}" if profile.certificate is not None else ""
    return f"{ProfileCoverage.of(profile)}{certificate}"


def _verdict(judgement: ConfigurationVerdict | None, metric: str) -> str:
    """Return a verdict with its reason, in which SLOs after the first one are limits only."""
    if judgement is None:
        return ""
    reason = re.sub(r"(?<=, )accuracy (?=[<>]=)", "", judgement.reason)
    return with_metric(f"{judgement.verdict}: {reason}", metric)


def _spent(spent: TimeSpent) -> str:
    uses = {
        "in operators": spent.operators_s,
        "loading them": spent.loading_s,
        "deciding what to measure": spent.deciding_s,
        "for data set, transport, store and scores": spent.other_s,
    }
    total = format_duration(sum(uses.values()))
    return f"{total} in all: {', '.join(f'{format_duration(seconds)} {use}' for use, seconds in uses.items())}"


_POPULATIONS: dict[Population, str] = {
    "requests": "requests to come, of which the items are a sample",
    "items": "the items of the data set (population: items)",
}


def _measurement_notes(profile: PipelineProfile) -> list[Text]:
    """Return a line each on saved time, the data set and the machine."""
    held_out = f", {profile.held_out_items} of them held out" if profile.held_out_items else ""
    return [
        Text(f"{format_duration(profile.saved_s)} saved by shared prefixes"),
        Text(f"data set: {profile.dataset_items} items{held_out}; version {profile.dataset_fingerprint[:12]}"),
        Text(f"measured on: {profile.machine or 'not recorded'}"),
    ]


def profile_notes(profile: PipelineProfile, warning: str | None, metric: str) -> list[Text]:
    """Return a line each on the probability of verdicts, on warnings, and on what is left to measure."""
    notes = [
        Text(
            f"{format_duration(profile.profiled_s)} of processing on a replica's CPUs; all {metric} bounds and "
            f"verdicts hold with probability {1 - profile.risk:g} for {_POPULATIONS[profile.stands_for]}"
        ),
        *([] if profile.spent is None else [Text(_spent(profile.spent))]),
    ]
    if warning is not None:
        notes.append(Text(f"warning: {warning}", style="yellow"))
    if profile.undecided:
        notes.append(Text(f"undecided configurations: {len(profile.undecided)}; profile longer to decide them"))
    elif profile.configurations and profile.all_decided:
        verdicts = {judgement.verdict for judgement in profile.verdicts.values()}
        reason = (
            "the undecided ones most likely make no plan cheaper" if Verdict.UNLIKELY in verdicts else "all are decided"
        )
        if Verdict.TOO_FEW_ITEMS in verdicts:
            reason = "the data set is too small to decide some of them"
        elif verdicts == {Verdict.INFEASIBLE}:
            reason = "all of them are certain to miss every SLO"
        notes.append(Text(f"no configuration needs further measurements for these queries: {reason}"))
    if profile.unmeasured:
        notes.append(Text(search_summary(profile)))
    if profile.certificate is not None and profile.certificate.prior:
        notes.append(Text(f"transfer learning: {profile.certificate.prior}"))
    by_reason: dict[str, list[FailedConfiguration]] = {}
    for failed in profile.failed:
        by_reason.setdefault(without_excerpt(failed.reason), []).append(failed)
    for failures in by_reason.values():
        more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
        notes.append(Text(f"excluded: {failures[0].configuration}{more}: {failures[0].reason}", style="red"))
    return notes
