"""Plans of 20 to 340 queries on the published traces, with whole replicas on nodes, against two bounds.

The certificate that comes with a plan covers all plans, whether they are candidates or not, but neither whole replicas
nor nodes. The bound of the program does see these, for the candidates of the answer. The cost is compared with the
program's bound for the served queries, all of which are required.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.matching.goodput_over_load import BUSIER, KINDS_DEPLOYED, answers_deployed
from benchmarks.workloads.published.queries import workloads
from benchmarks.workloads.published.speech import traces_folder
from circinus.matching.match_run import Answer
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS
from circinus.matching.solvers.milp_solver import MilpSolver

AIM_SHARE, AIM_COST = 0.97, 1.03
_BOUND_LIMIT_S = 10.0
_WORKLOADS = 4


def as_deployed(seeds: Sequence[int], console: Console) -> PartResult:
    """Plan each workload at 1, 2 and 4 times the load that can be served; return figures and rows.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    folder, rows = traces_folder(), list[dict[str, Any]]()
    jobs = [(folder, seed, number) for seed in seeds for number in range(_WORKLOADS)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for found in pool.map(_rows, jobs):
            rows += found
            for row in found:
                console.print(
                    f"{row['workload']}, load {row['load']:g}: {row['weight']:g} of {row['weight_bound']:g}, of "
                    f"candidates {row['candidates_bound']:g}; cost {row['cost_over_bound']:.3f} times the bound"
                )
    return _figures(rows), rows


def _rows(job: tuple[Path, int, int]) -> list[dict[str, Any]]:
    folder, seed, number = job
    workload = list(workloads(folder, seed, kinds=KINDS_DEPLOYED, busier=BUSIER))[number]
    return [
        {
            "part": "as deployed",
            **asdict(run),
            "candidates_bound": max(min(sum(answer.weight_bounds), run.weight_bound), run.weight),
            "cost_over_bound": cost_over_bound(answer),
            "limit_s": DEFAULT_MATCH_SETTINGS.limit_s(run.queries),
        }
        for run, answer, *_ in answers_deployed(workload, seed)
    ]


def cost_over_bound(answer: Answer, limit_s: float = _BOUND_LIMIT_S) -> float:
    """Return the cost of an answer over the bound on that of its served queries, with whole replicas on nodes."""
    candidates = {n: plans if n in answer.served else () for n, plans in answer.candidates.items()}
    problem, served = answer.problem_of(candidates), dict(answer.problem.served(answer.chosen))
    plans = {answer.problem.queries[q]: answer.problem.candidates[c].plan for q, c in served.items()}
    start = problem.choice_of(plans)
    bound = MilpSolver().solve(problem, (), limit_s, [start], is_large=True).cost_bound_usd_per_h
    return problem.usage_of(start).cost_usd_per_h / bound


def _figures(rows: Sequence[dict[str, Any]]) -> list[Figure]:
    case, figures = "as deployed", list[Figure]()
    for what, name in (("the bound of all plans", "weight_bound"), ("that of candidates", "candidates_bound")):
        shares = [row["weight"] / row[name] for row in rows]
        aim = AIM_SHARE if name == "weight_bound" else None
        figures += [
            Figure(f"{case}: least share of {what}", min(shares), aim, "higher", "share", _by_workload(rows, shares)),
            Figure(f"{case}: median share of {what}", float(np.median(shares)), None, "higher", "share"),
        ]
    costs, times = [row["cost_over_bound"] for row in rows], [row["wall_s"] / row["limit_s"] for row in rows]
    note = _by_workload(rows, costs)
    return [
        *figures,
        Figure(f"{case}: largest cost over the bound of the served set", max(costs), AIM_COST, "lower", "times", note),
        Figure(f"{case}: median cost over that bound", float(np.median(costs)), None, "lower", "times"),
        Figure(f"{case}: largest time over the default limit of a search", max(times), None, "lower", "times",
               f"{sum(row['wall_s'] for row in rows):.0f} s in all, of {len(rows)} matchings"),
    ]  # fmt: skip


def _by_workload(rows: Sequence[dict[str, Any]], values: Sequence[float]) -> str:
    names = dict.fromkeys(row["workload"] for row in rows)
    by_name = {n: [v for row, v in zip(rows, values, strict=True) if row["workload"] == n] for n in names}
    return "; ".join(f"{name} {min(own):.3f} to {max(own):.3f}" for name, own in by_name.items())
