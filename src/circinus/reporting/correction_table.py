"""What was learnt of service times from traffic."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from circinus.estimation import Correction, Corrections
from circinus.profiling import ServiceTimeObservation
from circinus.spec import KnobValues


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
