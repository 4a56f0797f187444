"""Searches of synthetic pipelines with known optima, from 10^3 to 10^12 configurations."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.checkpoints import Checkpoint
from benchmarks.harness.results import Figure
from benchmarks.search.synthetic_comparison import comparison_figures
from benchmarks.search.synthetic_runs import OURS, SyntheticRun, run_all
from benchmarks.workloads.synthetic.families import EXPONENTS, FAMILIES, SyntheticCase, synthetic_case

CLOSE = 1.05
"""Cost over that of the optimum at which the product may stop, because smaller savings are not pursued."""
STEADY = 2.0
"""Growth of time and memory, over a billionfold growth of the number of configurations, that counts as none."""
NAMES = tuple(family.name for family in FAMILIES)
HARD = ("needle",)
"""Families without an aim: only exhaustive search finds their optimum reliably."""


@dataclass(frozen=True)
class SyntheticStanding:
    """Statistics of a method in a family and size; NaN where there is no value to take a share or median of."""

    family: str
    exponent: int
    method: str
    answers: int
    found: float
    """Share of the runs whose plan keeps all SLOs; a feasible plan always exists."""
    broken: float
    """Share of the runs whose plan violates an SLO."""
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
    state: Path,
    *,
    families: Sequence[str] = NAMES,
    exponents: Sequence[int] = EXPONENTS,
) -> PartResult:
    """Search every family in every size for every seed and print a table; return figures and rows.

    Finished searches are kept in the folder `state`, from which an interrupted run goes on.
    """
    rows = runs(seeds, jobs, console, state, families, exponents)
    results = standings(rows)
    console.print(table(results))
    return [*figures_of(results), *comparison_figures(rows)], [asdict(standing) for standing in results]


def runs(
    seeds: Sequence[int],
    jobs: int,
    console: Console,
    state: Path,
    families: Sequence[str],
    exponents: Sequence[int],
) -> list[SyntheticRun]:
    """Run each (family, size, seed) in a process of its own, seed by seed."""
    keys = [(family, exponent, seed) for seed in seeds for family in families for exponent in exponents]
    results: dict[tuple[str, int, int], list[SyntheticRun]] = {}
    with (
        Progress(console=console) as progress,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        task = progress.add_task("synthetic pipelines", total=len(keys))
        checkpoints = [Checkpoint.in_folder(state, "synthetic-{}-{}-{}".format(*key), {}) for key in keys]
        futures = {
            pool.submit(_kept_run, key, checkpoint): key for key, checkpoint in zip(keys, checkpoints, strict=True)
        }
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            progress.advance(task)
    return [row for key in keys for row in results[key]]


def _kept_run(key: tuple[str, int, int], checkpoint: Checkpoint) -> list[SyntheticRun]:
    """Return what `run_all` does, or did before."""
    _, rows = checkpoint.run(lambda: ([], [asdict(row) for row in run_all(_case(key), key[2])]))
    return [SyntheticRun(**row) for row in rows]


def _case(key: tuple[str, int, int]) -> SyntheticCase:
    """Return a case from a process of its own: computing the optimum is no time and memory of the search."""
    name, exponent, seed = key
    family = next(family for family in FAMILIES if family.name == name)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(synthetic_case, family, exponent, seed).result()


def standings(rows: Sequence[SyntheticRun]) -> list[SyntheticStanding]:
    """Return the statistics of each family, size and method, in order of first occurrence."""
    groups: dict[tuple[str, int, str], list[SyntheticRun]] = {}
    for row in rows:
        groups.setdefault((row.family, row.exponent, row.method), []).append(row)
    return [_standing(group) for group in groups.values()]


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


def figures_of(results: Sequence[SyntheticStanding]) -> list[Figure]:
    """Return the aims: a plan close to the optimum in every run, with time and memory independent of the size."""
    ours = [standing for standing in results if standing.method == OURS]
    figures: list[Figure] = []
    for family, group in groupby(ours, key=lambda standing: standing.family):
        sizes = list(group)
        hard = family in HARD
        for each in sizes:
            case = f"{family}, 10^{each.exponent}"
            theirs = [o for o in results if (o.family, o.exponent) == (family, each.exponent) and o.method != OURS]
            shares = "; ".join(f"{other.method} {other.found:.0%}" for other in theirs)
            costs = "; ".join(f"{other.method} {other.cost_over_optimum_median:.2f}" for other in theirs)
            figures += [
                Figure(f"{case}: feasible plan found", each.found, None if hard else 1.0, "higher", "share",
                       f"of {each.answers} runs; {shares}"),
                Figure(f"{case}: cost over optimum, median", each.cost_over_optimum_median, None if hard else CLOSE,
                       "lower", "times", f"p95 {each.cost_over_optimum_p95:.2f}; medians of {costs}"),
            ]  # fmt: skip
        figures += _growth(family, sizes)
    return figures


def _growth(family: str, sizes: Sequence[SyntheticStanding]) -> list[Figure]:
    """Return the growth of time and memory from the smallest to the largest size."""
    first, last = sizes[0], sizes[-1]
    if first is last:
        return []
    sizes_text = f"{family}: 10^{last.exponent} over 10^{first.exponent}"
    return [
        Figure(f"{sizes_text}, planner's time a step", last.cpu_s_per_step_median / first.cpu_s_per_step_median, STEADY,
               "lower", "times", f"CPU s, {first.cpu_s_per_step_median:.2f} and {last.cpu_s_per_step_median:.2f}; "
               f"in all {first.cpu_s_median:.0f} and {last.cpu_s_median:.0f} for {first.touched_median:.0f} and "
               f"{last.touched_median:.0f} configurations"),
        Figure(f"{sizes_text}, peak memory", last.peak_mib_median / first.peak_mib_median, STEADY, "lower", "times",
               f"{first.peak_mib_median:.0f} and {last.peak_mib_median:.0f} MiB, the interpreter's included"),
    ]  # fmt: skip


def table(results: Sequence[SyntheticStanding]) -> Table:
    """Return a table of the statistics."""
    drawn = Table("family", "size", "method", "found", "broken", "cost", "p95", "touched", "items", "profiled s",
                  "wall s", "CPU s", "MiB", title="Synthetic pipelines")  # fmt: skip
    for each in results:
        drawn.add_row(
            each.family, f"10^{each.exponent}", each.method, f"{each.found:.0%}", f"{each.broken:.0%}",
            _number(each.cost_over_optimum_median, 3), _number(each.cost_over_optimum_p95, 3),
            f"{each.touched_median:.0f}", f"{each.items_median:.0f}", f"{each.seconds_median:.0f}",
            f"{each.wall_s_median:.1f}", _number(each.cpu_s_median, 1), _number(each.peak_mib_median, 0),
        )  # fmt: skip
    return drawn


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"
