"""Predictions against the local engine, on the real pipelines: the real part of `make bench-truth`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.estimates.computing import COMPUTED, ComputingOptions, computed, computed_plan
from benchmarks.estimates.error_figures import Row, real_figures, replay_figures
from benchmarks.estimates.profiles import CONFIGURATIONS, measure
from benchmarks.estimates.real_plans import CHOICES, Choice, real_plan
from benchmarks.estimates.replay import ReplayOptions, replayed
from benchmarks.estimates.scatter_plot import draw_scatter
from benchmarks.harness.results import FOLDER, Figure, print_figures, write_results
from circinus.serving.local.capacity import MachineCapacity
from circinus.specification.formatting import format_duration

ROOT = Path(__file__).parent.parent.parent
CAPACITY_PER_S = 50.0
"""Requests a second that plans in replay just get done: many requests show soon what queues do, and an engine passes
them on with a few per cent of a CPU."""


@dataclass(frozen=True)
class RealOptions:
    """How long and how much."""

    replay: ReplayOptions
    computing: ComputingOptions
    plans: int = len(CHOICES)
    """How many are replayed."""
    computed_plans: int = len(COMPUTED)
    """How many compute."""


def real_part(options: RealOptions, state: Path, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Plans of the examples under three loads: predicted, with and without queueing, and measured.

    Args:
        options: how long and how much.
        state: folder of the profile stores and of runs that have ended; what is there is not measured again.
        console: for progress.
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
        machine = MachineCapacity.here()
        few = _spread(COMPUTED, options.computed_plans)
        plans = [computed_plan(c, measured[c.example].split(n), machine) for n, c in enumerate(few)]
        of_computing = computed(plans, options.computing, state, console)
        figures, rows = [*figures, *real_figures(of_computing)], [*rows, *of_computing]
    return figures, rows


def rows_table(rows: Sequence[Row]) -> Table:
    """Every plan at every level, in milliseconds."""
    table = Table(
        "plan",
        "busiest",
        "requests",
        "measured p95",
        "predicted",
        "",
        "without queueing",
        "",
        "profiled on the items sent",
        "",
        "same requests simulated",
        title="Predicted and measured, in ms",
        title_justify="left",
    )
    for row in rows:
        names = ("predicted_over_measured", "without_queueing_over_measured", "same_items_over_measured")
        told = ["" if row.get(name) is None else f"{row[name] - 1:+.0%}" for name in names]
        table.add_row(
            row["plan"],
            f"{row['utilization']:.0%}",
            str(row["requests"]),
            _ms(row["measured_p95_s"]),
            _ms(row["predicted_p95_s"]),
            told[0],
            _ms(row["without_queueing_p95_s"]),
            told[1],
            _ms(row.get("same_items_p95_s")),
            told[2],
            _ms(row.get("same_requests_p95_s")),
        )
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked of the real part on a command line."""
    parser.add_argument("--replay-seconds", type=float, default=360.0, help="measured seconds at the highest load")
    parser.add_argument("--computing-seconds", type=float, default=150.0, help="measured seconds of each load")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds of traffic before")
    parser.add_argument("--engines", type=int, default=6, help="plans that are replayed side by side")
    parser.add_argument("--plans", type=int, default=len(CHOICES), help="plans that are replayed")
    parser.add_argument("--computed-plans", type=int, default=len(COMPUTED), help="plans whose replicas compute")


def options_of(chosen: argparse.Namespace, seed: int = 0) -> RealOptions:
    """From the arguments of a command line."""
    return RealOptions(
        ReplayOptions(chosen.replay_seconds, chosen.warm_up, chosen.engines, seed),
        ComputingOptions(chosen.computing_seconds, chosen.warm_up, seed),
        plans=chosen.plans,
        computed_plans=chosen.computed_plans,
    )


def main() -> None:
    """Run it alone: results go to `truth-real.json`, the picture beside."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates.local_engine", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "truth")
    chosen = parser.parse_args()
    console, began_s = Console(), perf_counter()
    figures, rows = real_part(options_of(chosen), chosen.state, console)
    console.print(rows_table(rows))
    print_figures(figures, console)
    wall_s = perf_counter() - began_s
    path = write_results("truth-real", figures=figures, rows=rows, seeds=[0], wall_s=wall_s)
    draw_scatter(rows, FOLDER / "truth.svg")
    console.print(f"written to {path.relative_to(ROOT)} in {format_duration(wall_s)}", highlight=False)


def _spread(all_of: Sequence[Choice], count: int) -> list[Choice]:
    """So many of them, evenly."""
    return [all_of[number * len(all_of) // count] for number in range(min(count, len(all_of)))]


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.1f}"


if __name__ == "__main__":
    main()
