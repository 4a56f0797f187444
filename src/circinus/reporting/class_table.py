"""How fast operators are on hardware classes, and what was measured there."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.profiling import HardwareClassReport, MeasuredSpeed, PipelineProfile
from circinus.spec import KnobValues
from circinus.spec.spoken import format_duration


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
