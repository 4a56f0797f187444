"""Predictions for the real pipelines, compared with the local engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.estimates.computing import COMPUTED, ComputingOptions, computed, computed_plan
from benchmarks.estimates.error_figures import Row, real_figures, replay_figures
from benchmarks.estimates.profiles import CONFIGURATIONS, measure
from benchmarks.estimates.real_plans import CHOICES, Choice, real_plan
from benchmarks.estimates.replay import ReplayOptions, replayed
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.serving.local.capacity import MachineCapacity

CAPACITY_PER_S = 50.0
"""Capacity of replayed plans in requests per second: high, so that short runs show queueing, and a few per cent of a
CPU for the engine."""


@dataclass(frozen=True)
class RealOptions:
    """Number of plans, and options of replays and of computing replicas."""

    replay: ReplayOptions
    computing: ComputingOptions
    plans: int = len(CHOICES)
    """Number of replayed plans."""
    computed_plans: int = len(COMPUTED)
    """Number of plans with computing replicas."""


def real_part(options: RealOptions, state: Path, console: Console) -> PartResult:
    """Compare plans of the examples under three loads: predicted, with and without queueing, and measured.

    Args:
        options: durations and numbers of plans.
        state: folder of profile stores and checkpoints, which are reused.
        console: console of progress bars.
    """
    measured = {example: measure(example, state, console) for example in CONFIGURATIONS}
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    if options.plans:
        chosen = _spread(CHOICES, options.plans)
        plans = [real_plan(c, measured[c.example].split(n), CAPACITY_PER_S) for n, c in enumerate(chosen)]
        rows = replayed(plans, options.replay, state, console)
        figures = replay_figures(rows)
    if options.computed_plans:
        machine = MachineCapacity.of_this_machine()
        chosen = _spread(COMPUTED, options.computed_plans)
        plans = [computed_plan(c, measured[c.example].split(n), machine) for n, c in enumerate(chosen)]
        computing_rows = computed(plans, options.computing, state, console)
        figures, rows = [*figures, *real_figures(computing_rows)], [*rows, *computing_rows]
    return figures, rows


def rows_table(rows: Sequence[Row]) -> Table:
    """Return a table of every plan at every level, in milliseconds."""
    table = Table("plan", "busiest", "requests", "measured p95", "predicted", "", "without queueing", "",
                  "profiled on the items sent", "", "same requests simulated",
                  title="Predicted and measured, in ms", title_justify="left")  # fmt: skip
    for row in rows:
        names = ("predicted_over_measured", "without_queueing_over_measured", "same_items_over_measured")
        errors = ["" if row.get(name) is None else f"{row[name] - 1:+.0%}" for name in names]
        table.add_row(
            row["plan"], f"{row['utilization']:.0%}", str(row["requests"]), _ms(row["measured_p95_s"]),
            _ms(row["predicted_p95_s"]), errors[0], _ms(row["without_queueing_p95_s"]), errors[1],
            _ms(row.get("same_items_p95_s")), errors[2], _ms(row.get("same_requests_p95_s")),
        )  # fmt: skip
    return table


def _spread(choices: Sequence[Choice], count: int) -> list[Choice]:
    """Return `count` evenly spread choices."""
    return [choices[number * len(choices) // count] for number in range(min(count, len(choices)))]


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.1f}"
