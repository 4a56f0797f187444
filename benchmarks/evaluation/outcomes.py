"""Outcome of one planner's plans in a contest, as a row of a result file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.evaluation.contest import Contest, Planned
from benchmarks.evaluation.judging import judged
from benchmarks.harness.benchmark import Rows

PRICE = "share"
"""Of `judging.PRICES`, the one of costs in these rows."""


def outcome(contest: Contest, planned: Planned, seed: int) -> dict[str, Any]:
    """Return what was promised, what held in the simulation with the true times, and what it took."""
    judgement, matching = judged(contest, planned.matching, seed + 1), planned.matching
    return {
        "contest": contest.name,
        "seed": seed,
        "queries": len(contest.specification.queries),
        "offered": sum(query.weight for query in contest.specification.queries),
        "bound": matching.weight_bound,
        "promised": matching.satisfied_weight,
        "goodput": judgement.goodput,
        "served": len(judgement.verdicts),
        "broken": judgement.broken,
        "too_close": judgement.too_close,
        "usd_per_h": judgement.usd_per_h[PRICE],
        "profiled_s": planned.profiled_s,
        "touched": planned.touched,
        "planning_s": planned.planning_s,
    }


def in_two_processes(jobs: Iterable[tuple[Callable[..., Rows], Sequence[Any]]], report: Callable[[Rows], None]) -> Rows:
    """Return the rows of all jobs, in order; `report` gets those of each job.

    Args:
        jobs: function and its arguments; both travel to another process.
        report: prints the rows of a job.
    """
    rows: Rows = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pending: list[Future[Rows]] = [pool.submit(run, *arguments) for run, arguments in jobs]
        for future in pending:
            own = future.result()
            rows += own
            report(own)
    return rows


def grouped(rows: Iterable[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Any]) -> dict[Any, Rows]:
    """Return rows by a key, in order of first occurrence."""
    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(dict(row))
    return groups


def span(values: Sequence[float]) -> str:
    """Return the least and the greatest value, or the only one."""
    return f"{values[0]:.2f}" if len(values) == 1 else f"{min(values):.2f} to {max(values):.2f}"


def spread(values: Sequence[float]) -> str:
    """Return the number of runs that values are of, each of a contest, and their span."""
    return f"{len(values)} runs; {span(values)}" if len(values) > 1 else "1 run"
