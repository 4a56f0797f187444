"""The search for one query's plan against earlier methods: `make bench-search`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks.harness.checkpoints import KeptPart
from benchmarks.harness.results import Figure, print_figures, write_results
from benchmarks.search.circinus_search import USUAL, Circinus, WarmCircinus
from benchmarks.search.comparison import (
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
from benchmarks.search.real_pipelines import real
from benchmarks.search.suggestion_time import suggestion
from benchmarks.search.synthetic import synthetic
from benchmarks.search.transfer_learning import transfer_figures
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder
from benchmarks.workloads.published.traces import read_arenas
from benchmarks.workloads.synthetic.families import EXPONENTS
from circinus.specification.formatting import format_duration

ROOT = Path(__file__).parent.parent.parent
OURS, OURS_WARM, VULCAN = "Circinus", "Circinus, transfer", "Vulcan-style"


Part = tuple[list[Figure], list[dict[str, Any]]]


def main() -> None:
    """Run all parts that this machine can, print tables, write the results.

    A part that has ended is kept in the state folder, so that a run that was broken off goes on with the next part; one
    of other code or with other options is run anew.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.main", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0, help="settings were chosen on seeds from 100 on")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--synthetic-seeds", type=int, default=20)
    parser.add_argument("--exponents", nargs="+", type=int, choices=EXPONENTS, default=EXPONENTS)
    parser.add_argument("--repeats", type=int, default=40, help="suggestions that are timed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".circinus" / "profiling", help="folder of the real stores"
    )
    chosen = parser.parse_args()
    console, began = Console(), perf_counter()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    race_options = {"seeds": list(seeds), "cases": chosen.cases}
    parts: dict[str, tuple[dict[str, Any], Callable[[], Part]]] = {
        "suggestion": ({"repeats": chosen.repeats}, lambda: suggestion(chosen.repeats, console)),
        "race": (race_options, lambda: race_part(seeds, chosen.cases, chosen.jobs, console)),
        "transfer": ({"seeds": list(seeds)}, lambda: transfer_part(seeds)),
        "real": ({}, lambda: real(chosen.state, console)),
        "synthetic": (
            {"seeds": chosen.synthetic_seeds, "exponents": chosen.exponents},
            lambda: synthetic(range(chosen.synthetic_seeds), chosen.jobs, console, exponents=tuple(chosen.exponents)),
        ),
    }
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    wall_s = 0.0
    for name, (options, part) in parts.items():
        kept = KeptPart.of(chosen.state, f"search-{name}", options)
        try:
            found, listed = kept.run(part)
        except TracesAbsentError as error:
            console.print(f"skipped: {error}", style="yellow")
            continue
        figures += found
        rows += listed
        wall_s += kept.wall_s
        # Also after each part: what there is, should the others not come to their end.
        path = write_results("search", figures=figures, rows=rows, seeds=[seeds[0], seeds[-1]], wall_s=wall_s)
    print_figures(figures, console)
    if figures:
        console.print(
            f"written to {path.relative_to(ROOT)} in {format_duration(perf_counter() - began)}", highlight=False
        )


def race_part(seeds: Sequence[int], cases: int, jobs: int, console: Console) -> Part:
    """Everybody on the published data sets."""
    ours: tuple[Entrant, ...] = (
        Cold(Circinus()),
        WarmCircinus(),
        Cold(Circinus(stopping=USUAL)),
        WarmCircinus(stopping=USUAL),
    )
    found = standings(race_published((*ours, *BASELINES), seeds, count=cases, jobs=jobs))
    console.print(*tables(found))
    return figures_of(found), as_records(found)


def transfer_part(seeds: Sequence[int]) -> Part:
    """How soon a source is trusted or dropped."""
    figures, rows = transfer_figures(read_arenas(traces_folder()), seeds)
    return figures, [dict(row) for row in rows]


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
