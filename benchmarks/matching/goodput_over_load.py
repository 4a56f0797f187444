"""Goodput over load on the published traces, from half to four times the load that can be served.

Load 1 is the number of queries up to which the relaxed matching serves all weight if each kind has its average share of
the queries; other loads are multiples, with queries drawn from the same population.

Goodput is the weight of the queries that are served with all SLOs met. It is measured twice: in shares of capacities,
with thousands of queries, and as deployed, with busier and fewer queries, integral replicas on nodes, and every plan
estimated again under the merged load.

The bound in shares is that of the linear programme. As deployed it is the one that the product reports, which ignores
integrality. As deployed, all methods choose from the same frontiers; the product works as `circinus plan` does, within
the default time limits, and may add columns at dual prices and on running deployments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import Progress

from benchmarks.baselines.matching import BASELINES
from benchmarks.baselines.matching.integer_replicas import whole_first_come
from benchmarks.harness.benchmark import PartResult
from benchmarks.matching.goodput_report import DEPLOYED, FIRST_COME, IN_SHARES, NEXT_BEST, LoadRun, figures, table
from benchmarks.matching.refined_search import solve_refined
from benchmarks.matching.scaling import OURS
from benchmarks.workloads.published.queries import FluidWorkload, Workload, workloads
from benchmarks.workloads.published.speech import traces_folder
from circinus.matching import MatchSettings, match
from circinus.matching.lagrangian import DualObjective, RelaxedProblem
from circinus.matching.lagrangian.dual import dual_bound
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.match_run import Answer
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.problem_builder import build_problem
from circinus.planning import Frontier
from circinus.specification import Specification

LOADS = 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0
LOADS_DEPLOYED = 1.0, 2.0, 4.0
_DEPLOYED_SETTINGS = MatchSettings(divides_requests=False, fits_targets=False)
SEEDS = 3
BUSIER, KINDS_DEPLOYED = 20.0, 60
"""Factor of the rates, and kinds of queries per data set, as deployed."""
_FIRST_TRIED, _CLOSE = 256, 0.01
_ALL = 1e-6
"""Tolerance of the served share of the weight, for rounding."""


def load_curve(seeds: Sequence[int], console: Console) -> PartResult:
    """Measure goodput for each seed and print a table; return figures and rows.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    folder = traces_folder()
    jobs = [(folder, instance, seed) for instance in (IN_SHARES, DEPLOYED) for seed in seeds]
    results: list[LoadRun] = []
    with (
        Progress(console=console) as progress,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        task = progress.add_task("loads", total=len(jobs))
        for runs in pool.map(_runs, jobs):
            results += runs
            progress.advance(task)
    console.print(table(results))
    return figures(results), [asdict(run) for run in results]


def _runs(job: tuple[Path, str, int]) -> list[LoadRun]:
    folder, instance, seed = job
    if instance == IN_SHARES:
        return [run for one in workloads(folder, seed) for run in runs_in_shares(one, seed)]
    kinds = workloads(folder, seed, kinds=KINDS_DEPLOYED, busier=BUSIER)
    return [run for one in kinds for run in runs_deployed(one, seed)]


def runs_in_shares(workload: Workload, seed: int, loads: Sequence[float] = LOADS) -> list[LoadRun]:
    """Run the product and all baselines at each load, in shares of capacities."""
    fractional, results = FluidWorkload.of(workload), []
    capacity = queries_at_capacity(fractional)
    for load in loads:
        queries = ceil(load * capacity)
        problem = fractional.with_queries(*workload.drawn(queries, seed))
        start_s = perf_counter()
        answer = solve_refined(problem)
        wall_s = perf_counter() - start_s
        ours = LoadRun(
            IN_SHARES, workload.name, load, seed, queries, OURS, problem.total_weight, answer.weight,
            max(min(answer.weight_bound, linear_bound(problem)), answer.weight), answer.weight_bound,
            answer.cost_usd_per_h, wall_s,
        )  # fmt: skip
        results.append(ours)
        for name, choose in BASELINES.items():
            start_s = perf_counter()
            chosen = choose(answer.problem)
            wall_s = perf_counter() - start_s
            assert answer.problem.usage_of(chosen).max() <= 1.0 + 1e-6, f"the choice of {name} exceeds a capacity"
            weight, cost = answer.problem.weight_of(chosen), answer.problem.cost_usd_per_h_of(chosen)
            results.append(replace(ours, method=name, weight=weight, cost_usd_per_h=cost, wall_s=wall_s))
    return results


def runs_deployed(workload: Workload, seed: int, loads: Sequence[float] = LOADS_DEPLOYED) -> list[LoadRun]:
    """Run the product and first-come baselines with integral replicas at each load."""
    results = []
    for ours, _, specification, frontiers, plans in answers_deployed(workload, seed, loads):
        results.append(ours)
        candidates = {name: frontier.candidates for name, frontier in frontiers.items()}
        problem = build_problem(specification.queries, candidates, workload.infrastructure)
        slos = [query.slos for query in specification.queries]
        for name in (FIRST_COME, NEXT_BEST):
            start_s = perf_counter()
            chosen = whole_first_come(problem, slos, plans.reestimate, next_best=name == NEXT_BEST)
            wall_s = perf_counter() - start_s
            weight, cost = problem.priority_levels.weight_of(chosen), problem.usage_of(chosen).cost_usd_per_h
            results.append(replace(ours, method=name, weight=weight, cost_usd_per_h=cost, wall_s=wall_s))
    return results


def answers_deployed(
    workload: Workload, seed: int, loads: Sequence[float] = LOADS_DEPLOYED
) -> Iterator[tuple[LoadRun, Answer, Specification, dict[str, Frontier], PlanEstimates]]:
    """Yield the product's run at each load with integral replicas, the answer of its search, and its inputs."""
    capacity = queries_at_capacity(FluidWorkload.of(workload))
    for load in loads:
        queries = ceil(load * capacity)
        specification, frontiers = workload.queries(queries, seed)
        plans, answers = PlanEstimates(specification, workload.profiles), dict[str, Answer]()
        start_s = perf_counter()
        matching = match(
            frontiers,
            workload.infrastructure,
            plans.reestimate,
            source=plans,
            settings=_DEPLOYED_SETTINGS,
            observer=answers.__setitem__,
        )
        run = LoadRun(
            DEPLOYED, workload.name, load, seed, queries, OURS, matching.total_weight, matching.satisfied_weight,
            matching.weight_bound, matching.weight_bound, matching.cost_usd_per_h, perf_counter() - start_s,
        )  # fmt: skip
        yield run, answers["search"], specification, frontiers, plans


def queries_at_capacity(workload: FluidWorkload) -> int:
    """Return load 1: the largest number of average queries that the relaxed matching serves, by bisection to 1 %."""

    def all_served(queries: int) -> bool:
        problem = workload.on_average(queries)
        return linear_bound(problem) >= problem.total_weight * (1 - _ALL)

    lower, upper = 1, _FIRST_TRIED
    while all_served(upper):
        lower, upper = upper, 2 * upper
    while upper - lower > max(1, _CLOSE * lower):
        middle = (lower + upper) // 2
        lower, upper = (middle, upper) if all_served(middle) else (lower, middle)
    return lower


def linear_bound(problem: RelaxedProblem) -> float:
    """Return a dual bound on the weight of fractional solutions, at the prices of the linear programme."""
    objective = DualObjective(1.0, 0.0)
    prices = solve_lp_prices(problem, objective).prices
    return min(dual_bound(problem, objective, prices), problem.total_weight)
