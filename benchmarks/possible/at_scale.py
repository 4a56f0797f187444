"""Large matchings against their bounds, without other planners: 100 queries, 1,000 sites and a million queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.matching.scaling import MIP, ON_SITES, OURS, SITES, SizeRun, solve_size

FEW, MANY = 100, 1_000_000
_SEEDS = 5
_EQUAL = 1e-9


def at_scale(largest: int, console: Console) -> PartResult:
    """Solve 100 queries from several seeds, beside HiGHS alone, and one matching of each large size."""
    jobs: list[tuple[int, int, int, tuple[str, ...]]] = [(FEW, 1, seed, (MIP,)) for seed in range(_SEEDS)]
    jobs += [(size, sites, 0, ()) for size, sites in ((ON_SITES, SITES), (MANY, 1)) if size <= largest]
    runs: list[SizeRun] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for solved in pool.map(solve_size, jobs):
            runs += solved
            for run in solved:
                console.print(
                    f"{run.queries:,} queries, {run.sites:,} sites, seed {run.seed}, {run.method}: {run.wall_s:.2f} s, "
                    f"{run.cpu_s:.2f} s of processor time, weight {run.weight:g} of {run.weight_bound:g}"
                )
    few = [run for run in runs if run.queries == FEW]
    figures = [*_few_figures(few)]
    for run in runs[len(few) :]:
        figures += _large_figures(run)
    return figures, [asdict(run) | {"part": "scale"} for run in runs]


def _few_figures(runs: Sequence[SizeRun]) -> Iterable[Figure]:
    ours = [run for run in runs if run.method == OURS]
    best = [max(run.weight for run in runs if run.seed == mine.seed) for mine in ours]
    as_good = float(np.mean([run.weight >= weight - _EQUAL for run, weight in zip(ours, best, strict=True)]))
    proved = float(np.mean([run.weight >= run.weight_bound - _EQUAL for run in ours]))
    note = f"of {len(ours)} seeds"
    yield Figure(f"{FEW} queries: as heavy as the best that anything found", as_good, 1.0, "higher", "share", note)
    yield Figure(f"{FEW} queries: proved optimal in weight", proved, None, "higher", "share", note)
    slowest = max(run.wall_s for run in ours)
    yield Figure(f"{FEW} queries: wall time", slowest, 1.0, "lower", "s", f"the slowest {note}")


def _large_figures(run: SizeRun) -> Iterable[Figure]:
    on_sites = run.sites > 1
    case = f"{run.queries:,} queries" + (f" on {run.sites:,} sites" if on_sites else "")
    cpu = f"{run.cpu_s:.1f} s of processor time"
    yield Figure(f"{case}: wall time", run.wall_s, 8.0 if on_sites else 12.0, "lower", "s", cpu)
    yield Figure(f"{case}: weight gap to the bound", run.weight_gap, 0.001 if on_sites else 3e-5, "lower", "share")
    yield Figure(f"{case}: cost gap to the bound at that weight", run.cost_gap, None, "lower", "share")
    aim_mib = None if on_sites else 2_048.0
    yield Figure(f"{case}: peak memory", run.peak_mib, aim_mib, "lower", "MiB", "drawing the matching included")
