"""What is known of a pipeline, how sure, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.estimation import Correction, Corrections
from circinus.profiling import (
    Calibration,
    ConfigurationVerdict,
    FailedConfiguration,
    HardwareClassReport,
    Interval,
    MeasuredSpeed,
    OperatorProfile,
    PipelineProfile,
    ServiceTimeObservation,
    Verdict,
)
from circinus.specification import KnobValues
from circinus.specification.formatting import format_bytes, format_duration, format_interval, format_range, format_score


def speed_table(profile: PipelineProfile) -> Table:
    """A row for each operator with its own knob values, a column for each class that any was measured on."""
    measured: dict[tuple[str, KnobValues], dict[str, MeasuredSpeed]] = {}
    for found in profile.configurations:
        for name, operator in found.operators.items():
            measured.setdefault((name, found.configuration[name]), {}).update(operator.speeds.measured)
    classes = dict.fromkeys(name for speeds in measured.values() for name in speeds)
    table = Table(title="Speed on other hardware (bounds)", title_justify="left")
    for column in ("operator", "knobs"):
        table.add_column(column, overflow="fold")
    for name in classes:
        table.add_column(escape(name), justify="right")
    for (operator_name, knobs), speeds in measured.items():
        told = [_said(speeds.get(name)) for name in classes]
        table.add_row(escape(operator_name), escape(str(knobs)), *told)
    return table


def hardware_class_lines(reports: Sequence[HardwareClassReport]) -> list[Text]:
    """A line for each hardware class, and one for each failure there."""
    lines = []
    for report in reports:
        if report.machine is None:
            lines.append(Text(f"{report.hardware_class}: not measured, its declared speed stands", style="yellow"))
            continue
        line = f"{report.hardware_class}: {format_duration(report.ran_s)} of processing on {report.machine}"
        missing = f"; declared speeds stand for {report.missing} operators with their knobs" if report.missing else ""
        lines.append(Text(line + missing, style="yellow" if missing else ""))
        for failed in report.failed:
            said = f"{report.hardware_class}: {failed.configuration} failed: {failed.reason}"
            lines.append(Text(said, style="red"))
    return lines


def _said(measured: MeasuredSpeed | None) -> str:
    if measured is None:
        return "declared"
    speed = measured.speed
    return f"{speed.value:.3g} ({speed.lower:.3g} to {speed.upper:.3g})"


def calibration_table(calibration: Calibration) -> RenderableType:
    """A row for each operator, and the lines for the infrastructure file."""
    table = Table(title=f"Relative speed of {calibration.machine} on {calibration.pipeline}", title_justify="left")
    table.add_column("operator", overflow="fold")
    table.add_column("speed (bounds)", justify="right")
    for name, speed in calibration.operators.items():
        table.add_row(escape(name), _said_of_calibration_table(speed))
    table.add_row("together", _said_of_calibration_table(calibration.speed))
    speed = calibration.speed
    return Group(
        table,
        Text(
            f"where {calibration.recorded_on or 'the machine that measured'} is 1; {calibration.items} items under "
            f"{calibration.configuration}; bounds may fail with probability {calibration.risk:g}"
        ),
        Text(
            f"for infrastructure: relative_speed: {_digits(speed.value)}, "
            f"relative_speed_bounds: [{_digits(speed.lower)}, {_digits(speed.upper)}]"
        ),
    )


def _said_of_calibration_table(speed: Interval) -> str:
    return f"{_digits(speed.value)} ({_digits(speed.lower)} to {_digits(speed.upper)})"


def _digits(value: float) -> str:
    return f"{value:.3g}"


def correction_table(corrections: Sequence[Correction]) -> Table:
    """A row for each operator, its knobs and hardware class."""
    table = Table(title="Corrections: observed over profiled service times", title_justify="left")
    for column in ("operator", "knobs", "hardware"):
        table.add_column(column, overflow="fold")
    for column in ("factor (95% bounds)", "runs", "requests"):
        table.add_column(column, justify="right")
    for entry in corrections:
        factor = entry.factor
        table.add_row(
            escape(entry.uses),
            escape(_knobs(entry.knobs)),
            escape(f"{entry.hardware_class} (speed {entry.speed:g})"),
            f"{factor.value:.3g} ({factor.lower:.3g} to {factor.upper:.3g})",
            str(entry.runs),
            str(entry.requests),
        )
    return table


def observation_table(observations: Sequence[ServiceTimeObservation]) -> Table:
    """A row for each deployment in each run of traffic, the newest last."""
    table = Table(title="Observed in traffic, beside the profile", title_justify="left")
    for column in ("run", "mode", "operator", "knobs", "hardware"):
        table.add_column(column, overflow="fold")
    for column in ("CPUs each", "batch", "times the profile", "standard error", "requests", "items"):
        table.add_column(column, justify="right")
    for seen in observations:
        table.add_row(
            seen.at,
            seen.mode,
            escape(f"{seen.pipeline}/{seen.operator}"),
            escape(str(seen.knobs)),
            escape(f"{seen.hardware_class} (speed {seen.speed:g})"),
            f"{seen.cpus:g}",
            str(seen.batch_size),
            f"{math.exp(seen.log_ratio):.3g}",
            f"{seen.standard_error:.1%}",
            str(seen.requests),
            str(seen.items),
        )
    return table


def corrections_in_force(corrections: Corrections) -> str:
    """One line: how many operators are corrected on which hardware, and by how much at most."""
    entries = corrections.entries
    operators, classes = {entry.uses for entry in entries}, sorted({entry.hardware_class for entry in entries})
    least, most = (f"{pick(entry.factor.value for entry in entries):.3g}" for pick in (min, max))
    times = f"{least} times" if least == most else f"{least} to {most} times"
    word = "operator" if len(operators) == 1 else "operators"
    return (
        f"corrections in force: service times of {len(operators)} {word} on {', '.join(classes)} are taken as {times} "
        "those profiled, as traffic showed; circinus explain lists them, --no-corrections plans without"
    )


def _knobs(knobs: KnobValues | None) -> str:
    return "(all others)" if knobs is None else str(knobs)


def profile_table(profile: PipelineProfile, direction: str, warning: str | None = None) -> RenderableType:
    """A row for each configuration, best first; then one for each operator with its knobs, and what it all cost.

    Args:
        profile: what is known.
        direction: of the metric: `maximize` or `minimize`.
        warning: why it is not to be believed as it stands; None: nothing speaks against it.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    table = Table(title=f"Profile of {profile.pipeline}", title_justify="left")
    table.add_column("configuration", overflow="fold")
    for column in ("items", "accuracy (bounds)", "mean time", "memory"):
        table.add_column(column, justify="right")
    table.add_column("verdict", overflow="fold")
    for measured in sorted(profile.configurations, key=lambda c: sign * c.accuracy.value):
        operators = measured.operators.values()
        table.add_row(
            escape(str(measured.configuration)),
            str(len(measured.items)),
            format_interval(format_score, measured.accuracy),
            format_duration(sum(float(operator.service_s.mean()) for operator in operators)),
            format_bytes(sum(operator.peak_memory_bytes for operator in operators)),
            _verdict(profile.verdicts.get(measured.configuration)),
        )
    tables = [_operators(profile)] if profile.configurations else []
    if any(operator.speeds.measured for found in profile.configurations for operator in found.operators.values()):
        tables.append(speed_table(profile))
    return Group(table, *tables, *_remarks(profile, warning))


def _operators(profile: PipelineProfile) -> Table:
    """A row for each operator with its own knob values, over all prefixes that it was measured under."""
    table = Table(title="Operators", title_justify="left")
    for column in ("operator", "knobs"):
        table.add_column(column, overflow="fold")
    for column in ("mean time", "output", "load", "start-up", "memory", "allocations measured"):
        table.add_column(column, justify="right")
    alike: dict[tuple[str, KnobValues], list[OperatorProfile]] = {}
    for name in profile.configurations[0].operators:
        for measured in profile.configurations:
            alike.setdefault((name, measured.configuration[name]), []).append(measured.operators[name])
    for (name, knobs), found in alike.items():
        service_s = [float(operator.service_s.mean()) for operator in found]
        table.add_row(
            escape(name),
            escape(str(knobs)),
            format_range(format_duration, min(service_s), max(service_s)),
            format_bytes(sum(float(operator.output_bytes.mean()) for operator in found) / len(found)),
            format_duration(found[0].load_s),
            "" if found[0].startup_s is None else format_duration(found[0].startup_s),
            format_bytes(found[0].peak_memory_bytes),
            f"{len(found[0].measured_allocations)} of {len(found[0].batch_ratio)}",
        )
    return table


def search_summary(profile: PipelineProfile) -> str:
    """How many configurations were measured, and what that says of the others."""
    all_of_them = len(profile.configurations) + len(profile.failed) + profile.unmeasured
    why = f"; {profile.certificate}" if profile.certificate is not None else ""
    return f"{len(profile.configurations):,} of {all_of_them:,} configurations were measured{why}"


def _verdict(judgement: ConfigurationVerdict | None) -> str:
    return "" if judgement is None else escape(f"{judgement.verdict}: {judgement.reason}")


def _remarks(profile: PipelineProfile, warning: str | None) -> list[Text]:
    held_out = f", {profile.held_out_items} of them held out" if profile.held_out_items else ""
    remarks = [
        Text(
            f"{format_duration(profile.profiled_s)} of processing, {format_duration(profile.saved_s)} saved by "
            "shared beginnings; "
            f"with probability {1 - profile.risk:g} all that is said of accuracy holds"
        ),
        Text(f"data set: {profile.dataset_items} items{held_out}; version {profile.dataset_fingerprint[:12]}"),
        Text(f"measured on: {profile.machine or 'not recorded'}"),
    ]
    if warning is not None:
        remarks.append(Text(f"warning: {warning}", style="yellow"))
    if profile.undecided:
        words = f"undecided configurations: {len(profile.undecided)}"
        remarks.append(Text(f"{words}; profile longer to decide them"))
    elif profile.configurations and profile.all_decided:
        believed = any(found.verdict is Verdict.UNLIKELY for found in profile.verdicts.values())
        words = "nothing is worth measuring further for these queries"
        why = ": what is not decided most likely makes no plan cheaper" if believed else ": everything is decided"
        remarks.append(Text(words + why))
    if profile.unmeasured:
        remarks.append(Text(search_summary(profile)))
    if profile.certificate is not None and profile.certificate.prior:
        remarks.append(Text(f"known from elsewhere: {profile.certificate.prior}"))
    by_reason: dict[str, list[FailedConfiguration]] = {}
    for failed in profile.failed:
        by_reason.setdefault(failed.reason, []).append(failed)
    for reason, alike in by_reason.items():
        others = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        remarks.append(Text(f"left out: {alike[0].configuration}{others}: {reason}", style="red"))
    if profile.interrupted:
        remarks.append(Text("interrupted; the same command goes on from here", style="yellow"))
    return remarks
