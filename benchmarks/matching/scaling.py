"""Time, memory and optimality gap of matchings with 100 to a million queries and on 1,000 sites, and of baselines."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from math import inf, log, nan
from multiprocessing import get_context
from time import perf_counter, process_time

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.baselines.matching import BASELINES
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.matching.refined_search import solve_refined
from benchmarks.matching.restricted_milp import solve_restricted
from benchmarks.search.synthetic_runs import peak_mib
from benchmarks.workloads.random.matchings import on_many_sites, on_shared_pools
from circinus.matching.lagrangian import DualObjective
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem
from circinus.matching.solvers.highs_subprocess import HighsSubprocess

OURS, MIP = "Circinus", "HiGHS alone"
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
SITES = 1_000
ON_SITES, _A_SITE = 100_000, 100
"""Number of queries on many sites, and per site."""
AIMS_S = {100: 1.0, 10_000: 0.5, 100_000: 4.0, 1_000_000: 45.0}
AIM_MIB = 6 * 1024.0
GAP_FROM, AIM_GAP = 10_000, 0.0005
_LIMIT_S = {100: 0.9, 1_000: 1.0}
"""Time limit of exact models over undecided queries; larger matchings have a negligible gap without them."""
_MIP_S, _MIP_UP_TO = 60.0, 1_000
_BASELINES_UP_TO = 100_000
_WARM_UP = 24
"""Number of queries of a matching that is solved before time is measured."""
_GROWTH = 1.15
"""Exponent of time over size that counts as close to linear."""


@dataclass(frozen=True)
class SizeRun:
    """Result of one method on one matching."""

    queries: int
    sites: int
    seed: int
    method: str
    wall_s: float
    cpu_s: float
    """Processor time without that of the subprocess that solves exact models."""
    peak_mib: float
    """Peak memory of the process that draws and solves the matching; NaN for baselines, which share it."""
    weight: float
    weight_bound: float
    weight_gap: float
    cost_usd_per_h: float
    cost_gap: float
    """NaN for baselines, which serve another weight."""


def sizes(seeds: Sequence[int], largest: int, console: Console) -> PartResult:
    """Solve matchings of all sizes and print a table; return figures and rows."""
    methods = (*BASELINES, MIP)
    jobs = [(queries, 1, seed, methods) for queries in SIZES if queries <= largest for seed in seeds]
    crowd = min(ON_SITES, largest)
    jobs += [(crowd, min(SITES, crowd // _A_SITE), seed, methods) for seed in seeds[:1]]
    results: list[SizeRun] = []
    with (
        Progress(console=console) as progress,
        ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        task = progress.add_task("matchings", total=len(jobs))
        for runs in pool.map(solve_size, jobs):
            results += runs
            progress.advance(task)
    console.print(_table(results))
    return _figures(results), [asdict(run) for run in results]


def solve_size(job: tuple[int, int, int, tuple[str, ...]]) -> list[SizeRun]:
    """Solve one matching (queries, sites, seed), also by the other methods named."""
    queries, sites, seed, methods = job
    problem = on_shared_pools(queries, seed) if sites == 1 else on_many_sites(queries, sites, seed)
    solve_refined(on_shared_pools(_WARM_UP, seed), time_limit_s=0.1)  # imports and compiles
    start_s, start_cpu_s = perf_counter(), process_time()
    limit_s = _LIMIT_S.get(queries)
    if limit_s is None:
        answer = solve_refined(problem)
    else:
        solver = HighsSubprocess()
        solver.start()
        answer = solve_refined(problem, minimise=solver.minimise, time_limit_s=limit_s)
        solver.close()
    wall_s, cpu_s = perf_counter() - start_s, process_time() - start_cpu_s
    ours = SizeRun(
        queries, sites, seed, OURS, wall_s, cpu_s, peak_mib(), answer.weight, answer.weight_bound, answer.weight_gap,
        answer.cost_usd_per_h, answer.cost_gap,
    )  # fmt: skip
    results, problem = [ours], answer.problem
    baselines = {
        name: baseline for name, baseline in BASELINES.items() if name in methods and queries <= _BASELINES_UP_TO
    }
    if MIP in methods and queries <= _MIP_UP_TO:
        baselines[MIP] = _highs_alone
    for name, choose in baselines.items():
        start_s, start_cpu_s = perf_counter(), process_time()
        chosen = choose(problem)
        wall_s, cpu_s, weight = perf_counter() - start_s, process_time() - start_cpu_s, problem.weight_of(chosen)
        assert problem.usage_of(chosen).max() <= 1.0 + 1e-6, f"the choice of {name} exceeds a capacity"
        results.append(
            replace(
                ours,
                method=name,
                wall_s=wall_s,
                cpu_s=cpu_s,
                peak_mib=nan,
                weight=weight,
                weight_gap=1.0 - weight / answer.weight_bound,
                cost_usd_per_h=problem.cost_usd_per_h_of(chosen),
                cost_gap=nan,
            )
        )
    return results


def _highs_alone(problem: RelaxedProblem) -> np.ndarray:
    """Solve the whole mixed-integer programme for a minute, without warm start."""
    objective = DualObjective(1.0, 0.0)
    prices = solve_lp_prices(problem, objective).prices
    regrets = ReducedProfits.at(problem, objective, prices)
    unserved = np.full(len(problem.class_of), NOT_SERVED, dtype=np.int64)
    solver = HighsSubprocess()
    solution = solve_restricted(
        problem, regrets, unserved, objective, inf, solver.minimise, max_undecided=len(unserved), time_limit_s=_MIP_S
    ).chosen
    solver.close()
    return solution


def _figures(results: Sequence[SizeRun]) -> list[Figure]:
    figures: list[Figure] = []
    medians: dict[int, float] = {}
    for (queries, sites), group in groupby(results, key=lambda run: (run.queries, run.sites)):
        runs = list(group)
        ours = [run for run in runs if run.method == OURS]
        case = f"{queries:,} queries" if sites == 1 else f"{queries:,} queries on {sites:,} sites"
        wall_s = float(np.median([run.wall_s for run in ours]))
        theirs = "; ".join(
            f"{name} {np.mean([run.weight / run.weight_bound for run in runs if run.method == name]):.1%}"
            for name in dict.fromkeys(run.method for run in runs if run.method != OURS)
        )
        figures.append(
            Figure(f"{case}: wall time", wall_s, AIMS_S.get(queries) if sites == 1 else None, "lower", "s", "median")
        )
        figures.append(
            Figure(f"{case}: weight gap to the bound", max(run.weight_gap for run in ours),
                   AIM_GAP if queries >= GAP_FROM and sites == 1 else None, "lower", "share",
                   f"the worst of {len(ours)}; weight over the bound: {theirs or 'no other runs here'}")
        )  # fmt: skip
        figures.append(
            Figure(f"{case}: cost gap to the bound at that weight", max(run.cost_gap for run in ours), None, "lower",
                   "share", f"the worst of {len(ours)}")
        )  # fmt: skip
        figures.append(
            Figure(f"{case}: peak memory", max(run.peak_mib for run in ours),
                   AIM_MIB if queries == SIZES[-1] else None, "lower", "MiB", "drawing the matching included")
        )  # fmt: skip
        if queries == SIZES[0]:
            best = [max(run.weight for run in runs if run.seed == mine.seed) for mine in ours]
            share = float(np.mean([run.weight >= weight - 1e-9 for run, weight in zip(ours, best, strict=True)]))
            figures.append(
                Figure(f"{case}: as good as the best that anything found", share, 1.0, "higher", "share",
                       f"of {len(ours)}; HiGHS alone has {_MIP_S:.0f} s")
            )  # fmt: skip
        if sites == 1:
            medians[queries] = wall_s
    if len(medians) > 1:
        last = max(medians)
        first = max(GAP_FROM, min(medians)) if last > GAP_FROM else min(medians)
        exponent = log(medians[last] / medians[first]) / log(last / first)
        figures.append(
            Figure(f"growth of wall time from {first:,} to {last:,}", exponent, _GROWTH, "lower", "exponent",
                   "1: linear")
        )  # fmt: skip
    return figures


def _table(results: Sequence[SizeRun]) -> Table:
    drawn = Table("queries", "sites", "method", "wall s", "MiB", "weight / bound", "$/h", "cost gap", title="Matchings")
    for (queries, sites, method), group in groupby(
        sorted(results, key=lambda run: (run.sites, run.queries, run.method != OURS, run.method)),
        key=lambda run: (run.queries, run.sites, run.method),
    ):
        runs = list(group)
        drawn.add_row(
            f"{queries:,}", f"{sites:,}", method, f"{np.median([r.wall_s for r in runs]):.3g}",
            "" if method != OURS else f"{max(r.peak_mib for r in runs):.0f}",
            f"{np.mean([r.weight / r.weight_bound for r in runs]):.3%}",
            f"{np.mean([r.cost_usd_per_h for r in runs]):.4g}",
            "" if method != OURS else f"{max(r.cost_gap for r in runs):.3%}",
        )  # fmt: skip
    return drawn
