"""How fast this machine is, and how to say so in a specification."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from circinus.profiling import Calibration, Interval


def calibration_table(calibration: Calibration) -> RenderableType:
    """A row for each operator, and the lines for the infrastructure file."""
    table = Table(title=f"Relative speed of {calibration.machine} on {calibration.pipeline}", title_justify="left")
    table.add_column("operator", overflow="fold")
    table.add_column("speed (bounds)", justify="right")
    for name, speed in calibration.operators.items():
        table.add_row(escape(name), _said(speed))
    table.add_row("together", _said(calibration.speed))
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


def _said(speed: Interval) -> str:
    return f"{_digits(speed.value)} ({_digits(speed.lower)} to {_digits(speed.upper)})"


def _digits(value: float) -> str:
    return f"{value:.3g}"
