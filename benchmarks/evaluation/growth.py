"""Planning time from one query to ten thousand, and what the next query costs.

All planners get complete profiles, so that only planning takes time, in a process of its own, two at a time. Others
have `LIMIT_S` seconds for each plan, the product `OUR_LIMIT_S`, to keep the time of the whole within bounds; who needs
more than a quarter of it gets no more queries. In addition, the product profiles for the first 1, 4 and 16 queries from
nothing: the difference is what the next ones cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console

from benchmarks.baselines.planners import BASELINES, PUBLISHED
from benchmarks.evaluation.contest import Contest, Planner
from benchmarks.evaluation.goodput import OURS
from benchmarks.evaluation.outcomes import in_two_processes
from benchmarks.evaluation.product import Profiled
from benchmarks.evaluation.workloads import contests_of
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure

COUNTS = (1, 10, 100, 1_000, 10_000)
LIMIT_S, OUR_LIMIT_S = 30.0, 400.0
"""Limits of others' plans, and of the product's."""
_HOPELESS = 1 / 2
"""Share of the limit beyond which ten times as many queries are not tried."""
_LOAD = 1.5
_FIRST = (1, 4, 16)


def growth(counts: Sequence[int], seed: int, console: Console) -> PartResult:
    """Let all planners plan growing numbers of queries.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    rows: Rows = []
    planners: Sequence[Planner] = (OURS, *BASELINES)
    with ThreadPoolExecutor(2) as pool:
        for contest in contests_of(counts, _LOAD, seed):
            queries = len(contest.specification.queries)
            offered = sum(query.weight for query in contest.specification.queries)
            planned = list(pool.map(_planned, planners, repeat(contest), repeat(seed)))
            for planner, row in zip(planners, planned, strict=True):
                common = {"part": "growth", "planner": planner.name, "queries": queries, "offered": offered}
                rows.append(common | (row or {"planning_s": None}))
                taken = f"{row['planning_s']:.1f} s, weight {row['promised']:g}" if row else "not within the limit"
                console.print(f"{queries:,} queries, {planner.name}: {taken}", highlight=False)
            planners = [
                planner
                for planner, row in zip(planners, planned, strict=True)
                if row and row["planning_s"] <= _HOPELESS * _limit_s(planner)
            ]
    if max(counts) >= _FIRST[-1]:  # the first four queries are of four pipelines, and say nothing of the next one
        few = contest_of_few(seed)
        rows += in_two_processes([(of_first, (few, count, seed)) for count in _FIRST], lambda _: None)
    return list(figures(rows)), rows


def contest_of_few(seed: int) -> Contest:
    """Return a contest of as many queries as are profiled for at most."""
    return next(contests_of((_FIRST[-1],), _LOAD, seed))


def _limit_s(planner: Planner) -> float:
    return OUR_LIMIT_S if planner is OURS else LIMIT_S


def _planned(planner: Planner, contest: Contest, seed: int) -> dict[str, Any] | None:
    """Return what a planner took in a process of its own; None if it took too long."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_plan, args=(planner, contest, seed, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(_limit_s(planner) + _START_S):
            return dict(receiver.recv())
    except EOFError:
        pass
    finally:
        process.terminate()
        process.join()
    return None


_START_S = 10.0
"""Time for the start of a process, which does not count."""


def _plan(planner: Planner, contest: Contest, seed: int, sender: Connection) -> None:
    begin_s = time.perf_counter()
    if planner.name == OURS.name:
        matching = OURS.planned(contest.specification, Profiled(contest.truth)).matching
    else:
        matching = planner.plan(contest, seed).matching
    planning_s = time.perf_counter() - begin_s
    sender.send({"planning_s": planning_s, "promised": matching.satisfied_weight, "bound": matching.weight_bound})


def of_first(contest: Contest, count: int, seed: int) -> Rows:
    """Return what the product profiles for the first queries of a contest."""
    names = [query.name for query in contest.specification.queries[:count]]
    profiled = OURS.profiled(contest.of(names), seed)
    return [{"part": "next queries", "queries": count, "profiled_s": profiled.seconds, "touched": profiled.touched}]


def figures(rows: Rows) -> Iterator[Figure]:
    """Yield the product's planning times, and what the next query costs in profiling."""
    for row in rows:
        if row["part"] != "growth" or row["planner"] != OURS.name or row["planning_s"] is None:
            continue
        published = {planner.name for planner in PUBLISHED}
        others = [
            other["planning_s"]
            for other in rows
            if other["part"] == "growth" and other["queries"] == row["queries"] and other["planner"] in published
        ]
        ended = [seconds for seconds in others if seconds is not None]
        note = (
            f"earlier planners: {len(ended)} of {len(others)} that tried end, in {min(ended, default=0):.1f} s and more"
        )
        yield Figure(f"planning {row['queries']:,} queries", row["planning_s"], None, "lower", "s", note)
    profiled = {row["queries"]: row["profiled_s"] for row in rows if row["part"] == "next queries"}
    first, last = min(profiled, default=0), max(profiled, default=0)
    if first < last:
        next_s = (profiled[last] - profiled[first]) / (last - first)
        yield Figure(
            "profiling for the next query over that for the first",
            next_s / max(profiled[first], 1e-9),
            None,
            "lower",
            "times",
            f"{profiled[first]:.0f} s for {first}, {profiled[last]:.0f} s for {last}",
        )
