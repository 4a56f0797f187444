"""Goodput of all planners at each load: each with all tiers, and in the tier that it was made for.

The product plans in every scope of tiers. Then, for the queries that another planner kept there, both are asked for
plans of these queries alone, so that costs are those of the same served set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.baselines.planners import BASELINES, PUBLISHED
from benchmarks.evaluation.contest import Contest, Planner
from benchmarks.evaluation.judging import PRICES, judged
from benchmarks.evaluation.product import Product
from benchmarks.evaluation.published import contests
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure

OURS = Product()
SCOPES: Mapping[str, tuple[str, ...]] = {
    "all tiers": ("device", "edge", "cloud"),
    "edge and cloud": ("edge", "cloud"),
    "cloud": ("cloud",),
    "edge": ("edge",),
    "device": ("device",),
}
EVERYWHERE = "all tiers"
RISK = 0.05
"""Risk of the product's plans, which its promises may be broken by."""


def goodput(loads: Sequence[float], seeds: Iterable[int], tightness: Sequence[str], console: Console) -> PartResult:
    """Let all planners plan every contest, and judge them.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    rows: Rows = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pending: list[Future[Rows]] = []
        for seed in seeds:
            for level in tightness:
                for contest in contests(loads, seed, level):
                    pending += [pool.submit(rows_of, contest, scope, seed) for scope in _scopes()]
        for future in pending:
            own = future.result()
            rows += own
            shown = (f"{row['planner']} {row['goodput']:g} of {row['promised']:g}" for row in own)
            console.print(f"{own[0]['contest']}, {own[0]['scope']}: {'; '.join(shown)}", highlight=False)
    return list(figures(rows)), rows


def _scopes() -> Sequence[str]:
    return [
        scope for scope in SCOPES if scope != "device" or any(planner.tiers == ("device",) for planner in BASELINES)
    ]


def rows_of(contest: Contest, scope: str, seed: int) -> Rows:
    """Return what the product and the planners of a scope reach in a contest, the product first."""
    planners = [planner for planner in BASELINES if scope == EVERYWHERE or planner.tiers == SCOPES[scope]]
    rows = [row_of(contest, scope, planner, seed) for planner in (OURS, *planners)]
    for row, planner in zip(rows[1:], planners, strict=True):
        row |= _costs_of_the_same(contest.within(SCOPES[scope]).of(row["kept"]), planner, seed)
    return rows


def row_of(contest: Contest, scope: str, planner: Planner, seed: int) -> dict[str, Any]:
    """Return what one planner reaches in one scope of a contest."""
    within = contest.within(SCOPES[scope])
    planned = planner.plan(within, seed)
    judgement = judged(within, planned.matching, seed + 1)
    return {
        "contest": contest.name,
        "scope": scope,
        "planner": planner.name,
        "seed": seed,
        "queries": len(contest.specification.queries),
        "offered": sum(query.weight for query in contest.specification.queries),
        "bound": planned.matching.weight_bound,
        "promised": planned.matching.satisfied_weight,
        "goodput": judgement.goodput,
        "served": len(judgement.verdicts),
        "kept": sorted(judgement.kept),
        "too_close": judgement.too_close,
        "late": sum(not verdict.latency_held for verdict in judgement.verdicts),
        "inaccurate": sum(not verdict.accuracy_held for verdict in judgement.verdicts),
        "too_dear": sum(not verdict.cost_held for verdict in judgement.verdicts),
        "usd_per_h": dict(judgement.usd_per_h),
        "profiled_s": planned.profiled_s,
        "touched": planned.touched,
        "first_plan_s": planned.first_plan_s,
        "planning_s": planned.planning_s,
    }


def _costs_of_the_same(contest: Contest, planner: Planner, seed: int) -> dict[str, Any]:
    """Return the costs of both planners for the same queries, as far as the product keeps them."""
    ours, theirs = (judged(contest, p.plan(contest, seed).matching, seed + 1) for p in (OURS, planner))
    same = ours.kept >= theirs.kept
    return {"same_set": same, "usd_per_h_ours": dict(ours.usd_per_h), "usd_per_h_theirs": dict(theirs.usd_per_h)}


def figures(rows: Rows) -> Iterator[Figure]:
    """Yield the aims, against the best competitor of each."""
    ours = {(row["contest"], row["scope"], row["seed"]): row for row in rows if row["planner"] == OURS.name}
    everywhere = {(contest, seed): row for (contest, scope, seed), row in ours.items() if scope == EVERYWHERE}
    others = [row for row in rows if row["planner"] != OURS.name]
    published = [row for row in others if row["planner"] in {planner.name for planner in PUBLISHED}]
    best = dict.fromkeys(everywhere, 0.0)
    for row in others:
        key = row["contest"], row["seed"]
        best[key] = max(best[key], row["goodput"])
    earlier = dict.fromkeys(everywhere, 0.0)
    for row in published:
        key = row["contest"], row["seed"]
        earlier[key] = max(earlier[key], row["goodput"])
    note = f"{len(everywhere)} contests"
    ratios = [row["goodput"] / max(earlier[key], 1.0) for key, row in everywhere.items()]
    yield Figure("goodput over the best earlier planner's, median", float(np.median(ratios)), 2.4, "higher", "times",
                 f"{note}; {min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip
    least = min(row["goodput"] / max(best[key], 1.0) for key, row in everywhere.items())
    yield Figure("goodput over the best of all others, least", least, 1.0, "higher", "times", note)
    share = [row["goodput"] / max(row["bound"], 1.0) for row in everywhere.values()]
    yield Figure("goodput over the certified bound, median", float(np.median(share)), 0.97, "higher", "share",
                 f"{note}; {min(share):.3f} to {max(share):.3f}")  # fmt: skip
    promised = sum(row["served"] for row in ours.values())
    broken = sum(row["served"] - len(row["kept"]) for row in ours.values())
    yield Figure(
        "promises broken", broken / max(promised, 1), RISK, "lower", "share", f"{broken} of {promised} queries"
    )
    yield from _cost_figures(others)
    for what, label in (("profiled_s", "profiled seconds"), ("planning_s", "planning time")):
        gains = [row[what] / max(ours[row["contest"], row["scope"], row["seed"]][what], 1e-9) for row in published]
        if gains:
            yield Figure(f"{label}: earlier planners' over ours, median", float(np.median(gains)), 10.0, "higher",
                         "times", f"{min(gains):.2f} to {max(gains):.1f}")  # fmt: skip


def _cost_figures(others: Rows) -> Iterator[Figure]:
    for price in PRICES:
        compared = [row for row in others if row["same_set"] and row["usd_per_h_ours"][price] > 0]
        ratios = [row["usd_per_h_theirs"][price] / row["usd_per_h_ours"][price] for row in compared]
        if ratios:
            note = f"{len(compared)} of {len(others)} sets that both keep; least {min(ratios):.2f}"
            yield Figure(f"cost of the same queries by {price}: others' over ours, median", float(np.median(ratios)),
                         3.2, "higher", "times", note)  # fmt: skip
            yield Figure(f"cost of the same queries by {price}: others' over ours, least", min(ratios), 1.0, "higher",
                         "times", note)  # fmt: skip
