"""Searches of pipelines with known optima, from 10^3 to 10^12 configurations.

`python -m benchmarks.search.synthetic --seeds 2 --exponents 3 6` for a look.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.harness.results import Figure, print_figures, write_results
from benchmarks.search.synthetic_runs import OURS, SyntheticRun, run_all
from benchmarks.workloads.synthetic.families import EXPONENTS, FAMILIES, SyntheticCase, synthetic_case

ROOT = Path(__file__).parent.parent.parent
CLOSE = 1.05
"""Cost over the optimum's up to which the product may stop: what might save less is not measured."""
STEADY = 2.0
"""Growth of time and memory, over a billionfold growth of the number of configurations, that counts as none."""
NAMES = tuple(family.name for family in FAMILIES)
HARD = ("needle",)
"""Families without an aim: nothing but trying finds what hardly anything points to."""


@dataclass(frozen=True)
class SyntheticStanding:
    """All answers of a method in a family and size. NaN where there is nothing to take a share or median of."""

    family: str
    exponent: int
    method: str
    answers: int
    found: float
    """Share of the runs whose plan keeps all objectives; there always is one."""
    broken: float
    """Share of the runs whose plan breaks one."""
    cost_over_optimum_median: float
    cost_over_optimum_p95: float
    touched_median: float
    items_median: float
    seconds_median: float
    wall_s_median: float
    cpu_s_median: float
    peak_mib_median: float
    cpu_s_per_step_median: float


def synthetic(
    seeds: Sequence[int],
    jobs: int,
    console: Console,
    *,
    families: Sequence[str] = NAMES,
    exponents: Sequence[int] = EXPONENTS,
) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Search every family in every size for every seed, print a table; gives figures and rows for a file of results."""
    found = standings(runs(seeds, jobs, console, families, exponents))
    console.print(table(found))
    return figures_of(found), [asdict(standing) for standing in found]


def runs(
    seeds: Sequence[int], jobs: int, console: Console, families: Sequence[str], exponents: Sequence[int]
) -> list[SyntheticRun]:
    """Each (family, size, seed) in a process of its own."""
    wanted = [(family, exponent, seed) for family in families for exponent in exponents for seed in seeds]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        # Apart, so that what finding the optimum takes is not counted as the search's.
        cases = list(pool.map(_case, wanted))
    found: dict[tuple[str, int, int], list[SyntheticRun]] = {}
    with (
        Progress(console=console) as progress,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        task = progress.add_task("synthetic pipelines", total=len(wanted))
        futures = {pool.submit(run_all, case, each[2]): each for case, each in zip(cases, wanted, strict=True)}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            progress.advance(task)
    return [row for each in wanted for row in found[each]]


def _case(wanted: tuple[str, int, int]) -> SyntheticCase:
    name, exponent, seed = wanted
    return synthetic_case(next(family for family in FAMILIES if family.name == name), exponent, seed)


def standings(rows: Sequence[SyntheticRun]) -> list[SyntheticStanding]:
    """One for each family, size and method, in the order in which they first occur."""
    places: dict[tuple[str, int, str], int] = {}
    for row in rows:
        places.setdefault((row.family, row.exponent, row.method), len(places))
    ordered = sorted(rows, key=lambda row: places[row.family, row.exponent, row.method])
    groups = groupby(ordered, key=lambda row: (row.family, row.exponent, row.method))
    return [_standing(list(group)) for _, group in groups]


def _standing(rows: list[SyntheticRun]) -> SyntheticStanding:
    ratios = [row.cost_over_optimum for row in rows if row.found]

    def median(values: Sequence[float]) -> float:
        return float(np.median(values)) if values else np.nan

    return SyntheticStanding(
        family=rows[0].family,
        exponent=rows[0].exponent,
        method=rows[0].method,
        answers=len(rows),
        found=float(np.mean([row.found for row in rows])),
        broken=float(np.mean([row.answered and not row.found for row in rows])),
        cost_over_optimum_median=median(ratios),
        cost_over_optimum_p95=float(np.percentile(ratios, 95)) if ratios else np.nan,
        touched_median=median([row.touched for row in rows]),
        items_median=median([row.items for row in rows]),
        seconds_median=median([row.seconds for row in rows]),
        wall_s_median=median([row.wall_s for row in rows]),
        cpu_s_median=median([row.cpu_s for row in rows]),
        peak_mib_median=median([row.peak_mib for row in rows]),
        cpu_s_per_step_median=median([row.cpu_s / max(row.steps, 1.0) for row in rows]),
    )


def figures_of(found: Sequence[SyntheticStanding]) -> list[Figure]:
    """What the search aims at: each time a plan close to the optimum, in the same time and memory whatever the size."""
    ours = [standing for standing in found if standing.method == OURS]
    figures: list[Figure] = []
    for family, group in groupby(ours, key=lambda standing: standing.family):
        sizes = list(group)
        hard = family in HARD
        for each in sizes:
            about = f"{family}, 10^{each.exponent}"
            theirs = [o for o in found if (o.family, o.exponent) == (family, each.exponent) and o.method != OURS]
            shares = "; ".join(f"{other.method} {other.found:.0%}" for other in theirs)
            costs = "; ".join(f"{other.method} {other.cost_over_optimum_median:.2f}" for other in theirs)
            figures += [
                Figure(f"{about}: feasible plan found", each.found, None if hard else 1.0, "higher", "share",
                       f"of {each.answers} runs; {shares}"),
                Figure(f"{about}: cost over optimum, median", each.cost_over_optimum_median, None if hard else CLOSE,
                       "lower", "times", f"p95 {each.cost_over_optimum_p95:.2f}; medians of {costs}"),
            ]  # fmt: skip
        figures += _growth(family, sizes)
    return figures


def _growth(family: str, sizes: Sequence[SyntheticStanding]) -> list[Figure]:
    """Of the largest over the smallest; nothing where there is one size alone."""
    first, last = sizes[0], sizes[-1]
    if first is last:
        return []
    about = f"{family}: 10^{last.exponent} over 10^{first.exponent}"
    return [
        Figure(f"{about}, planner's time a step", last.cpu_s_per_step_median / first.cpu_s_per_step_median, STEADY,
               "lower", "times", f"CPU s, {first.cpu_s_per_step_median:.2f} and {last.cpu_s_per_step_median:.2f}; "
               f"in all {first.cpu_s_median:.0f} and {last.cpu_s_median:.0f} for {first.touched_median:.0f} and "
               f"{last.touched_median:.0f} configurations"),
        Figure(f"{about}, peak memory", last.peak_mib_median / first.peak_mib_median, STEADY, "lower", "times",
               f"{first.peak_mib_median:.0f} and {last.peak_mib_median:.0f} MiB, the interpreter's included"),
    ]  # fmt: skip


def table(found: Sequence[SyntheticStanding]) -> Table:
    """For people."""
    drawn = Table("family", "size", "method", "found", "broken", "cost", "p95", "touched", "items", "profiled s",
                  "wall s", "CPU s", "MiB", title="Synthetic pipelines")  # fmt: skip
    for each in found:
        drawn.add_row(
            each.family, f"10^{each.exponent}", each.method, f"{each.found:.0%}", f"{each.broken:.0%}",
            _number(each.cost_over_optimum_median, 3), _number(each.cost_over_optimum_p95, 3),
            f"{each.touched_median:.0f}", f"{each.items_median:.0f}", f"{each.seconds_median:.0f}",
            f"{each.wall_s_median:.1f}", _number(each.cpu_s_median, 1), _number(each.peak_mib_median, 0),
        )  # fmt: skip
    return drawn


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def main() -> None:
    """Search, print, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.synthetic", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--families", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--exponents", nargs="+", type=int, choices=EXPONENTS, default=EXPONENTS)
    chosen = parser.parse_args()
    console, began_s = Console(), perf_counter()
    figures, rows = synthetic(
        range(chosen.seeds), chosen.jobs, console, families=chosen.families, exponents=chosen.exponents
    )
    print_figures(figures, console)
    path = write_results(
        "search_synthetic",
        figures=figures,
        rows=rows,
        seeds=[0, chosen.seeds - 1],
        wall_s=perf_counter() - began_s,
    )
    console.print(f"written to {path.relative_to(ROOT)}", highlight=False)


if __name__ == "__main__":
    main()
