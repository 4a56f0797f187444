"""The search for one query's plan against earlier methods: `make bench-search`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter

from rich.console import Console

from benchmarks.results import Figure, print_figures, write_results
from benchmarks.search_circinus import USUAL, Circinus, WarmCircinus
from benchmarks.search_race import (
    BASELINES,
    CASES,
    Cold,
    Entrant,
    Standing,
    as_records,
    race_published,
    standings,
    tables,
)

ROOT = Path(__file__).parent.parent
OURS, OURS_WARM, VULCAN = "Circinus", "Circinus, transfer", "Vulcan-style"


def main() -> None:
    """Race everybody, print tables, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0, help="settings were chosen on seeds from 100 on")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    console, began = Console(), perf_counter()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    ours: tuple[Entrant, ...] = (
        Cold(Circinus()),
        WarmCircinus(),
        Cold(Circinus(stopping=USUAL)),
        WarmCircinus(stopping=USUAL),
    )
    found = standings(race_published((*ours, *BASELINES), seeds, count=chosen.cases, jobs=chosen.jobs))
    console.print(*tables(found))
    figures = figures_of(found)
    print_figures(figures, console)
    path = write_results(
        "search", figures=figures, rows=as_records(found), seeds=[seeds[0], seeds[-1]], wall_s=perf_counter() - began
    )
    console.print(f"written to {path.relative_to(ROOT)}", highlight=False)


def figures_of(found: list[Standing]) -> list[Figure]:
    """What the search aims at, for each data set, cold and with transfer."""
    by_name = {(standing.arena, standing.method): standing for standing in found}
    figures: list[Figure] = []
    for (arena, method), ours in by_name.items():
        if method not in (OURS, OURS_WARM):
            continue
        theirs, warm = by_name[arena, VULCAN], method == OURS_WARM
        about = f"{arena}, {'transfer' if warm else 'cold'}"
        figures += [
            Figure(f"{about}: feasible plan found", ours.found, 1.0, "higher", "share",
                   f"Vulcan-style {theirs.found:.0%}; of the feasible cases"),
            Figure(f"{about}: at most 1 % dearer than the optimum", ours.close, 0.95, "higher", "share",
                   f"Vulcan-style {theirs.close:.0%}; of the feasible cases"),
            Figure(f"{about}: infeasible cases recognised", ours.recognised, 1.0, "higher", "share",
                   f"Vulcan-style {theirs.recognised:.0%}"),
            Figure(f"{about}: configurations touched", ours.touched_median, 6.0 if warm else 15.0, "lower",
                   "configurations", f"median, in nine of ten cases at most {ours.touched_p90:.0f}; Vulcan-style "
                   f"{theirs.touched_median:.0f}"),
            Figure(f"{about}: Vulcan-style profiled seconds over ours", theirs.seconds_median / ours.seconds_median,
                   50.0 if warm else 20.0, "higher", "times",
                   f"medians, {theirs.seconds_median:.0f} s and {ours.seconds_median:.0f} s; plans keep their accuracy "
                   f"at a risk of 0.05 a run, {ours.inaccurate:.1%} of those given did not"),
        ]  # fmt: skip
    return figures


if __name__ == "__main__":
    main()
