"""Whether estimates are true: closed forms, simulated plans, real engines. `make bench-truth`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks.estimates.closed_forms import closed_forms
from benchmarks.estimates.local_engine import add_arguments, options_of, real_part, rows_table
from benchmarks.estimates.random_plans import grid
from benchmarks.estimates.scatter_plot import draw_scatter
from benchmarks.estimates.simulator_speed import speed
from benchmarks.harness.checkpoints import KeptPart
from benchmarks.harness.results import FOLDER, Figure, print_figures, write_results
from circinus.specification.formatting import format_duration

ROOT = Path(__file__).parent.parent.parent
Part = tuple[list[Figure], list[dict[str, Any]]]


def main() -> None:
    """Run all parts, print tables, write the results; a part that has ended is kept for the same code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates.main", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="of each queue in closed form, and for speed")
    parser.add_argument("--random-plans", type=int, default=80, help="random plans for each kind of arrivals")
    parser.add_argument("--random-requests", type=int, default=400_000, help="simulated for each random plan")
    add_arguments(parser)
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "truth")
    chosen = parser.parse_args()
    console, began_s = Console(), perf_counter()
    parts: dict[str, tuple[dict[str, Any], Callable[[], Part]]] = {
        "closed": ({"requests": chosen.requests}, lambda: closed_forms(chosen.requests, console)),
        "speed": ({"requests": chosen.requests}, lambda: speed(chosen.requests, console)),
        "grid": (
            {"plans": chosen.random_plans, "requests": chosen.random_requests},
            lambda: grid(chosen.random_plans, chosen.random_requests, console),
        ),
    }
    real = options_of(chosen)
    if real.plans or real.computed_plans:
        parts["real"] = (asdict(real), lambda: real_part(real, chosen.state, console))
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    wall_s = 0.0
    for name, (options, part) in parts.items():
        kept = KeptPart.of(chosen.state, f"truth-{name}", options)
        found, listed = kept.run(part)
        figures, rows, wall_s = [*figures, *found], [*rows, *listed], wall_s + kept.wall_s
        if name == "real":
            console.print(rows_table(listed))
            draw_scatter(listed, FOLDER / "truth.svg")
        path = write_results("truth", figures=figures, rows=rows, seeds=[0], wall_s=wall_s)
    print_figures(figures, console)
    console.print(
        f"written to {path.relative_to(ROOT)} in {format_duration(perf_counter() - began_s)}", highlight=False
    )


if __name__ == "__main__":
    main()
