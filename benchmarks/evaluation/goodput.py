"""Goodput of all planners on all workloads: each with all tiers, and in the tiers that it was made for.

Everyone measures for each scope of tiers by itself; the product measures once for all loads. Costs are those of the
same served set: for the queries that another planner kept in its tiers, both are asked for plans of these queries
alone, the product with all tiers. The product plans once more with everything measured: an oracle for what its
measurements leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.baselines.planners import BASELINES, PUBLISHED
from benchmarks.baselines.planners.paper import PAPER
from benchmarks.evaluation.contest import Contest, Planned, Planner
from benchmarks.evaluation.judging import PRICES, Judgement, judged
from benchmarks.evaluation.outcomes import span, spread
from benchmarks.evaluation.product import Product, Profiled
from benchmarks.evaluation.workloads import contests
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
SATURATED = 2.0
"""Load at and beyond which not everything can be served."""
_ROUNDS = 3
"""Maximum number of sets of queries of which costs are compared, each of those that both planners kept before."""
RISK = 0.05
"""Risk of the product's plans, which its promises may be broken by."""


@dataclass(frozen=True)
class Case:
    """Contests of one workload."""

    workload: str
    loads: tuple[float, ...] = (SATURATED,)
    tightness: str = "mixed"
    whole: bool = False
    """Whether planners compete in each scope of tiers, too, on costs, and against the oracle, at `SATURATED`."""


CASES = (
    Case("all", (1.0, SATURATED, 4.0)),
    Case("documents"),
    Case("traffic"),
    Case("sites"),
    Case("meeting", whole=True),
    Case("video-nuscenes", whole=True),
    *(Case("video-nuscenes", tightness=tightness) for tightness in ("tight", "loose")),
    Case("speech-voices"),
    Case("speech-libri"),
)
"""The longest ones first."""
QUICK = (Case("video-nuscenes"), Case("documents"))
"""A case with the published traces, and one without."""


def goodput(cases: Sequence[Case], seed: int, console: Console) -> PartResult:
    """Let all planners plan every contest, and judge them.

    Raises:
        TracesAbsentError: the published traces are not on this machine, and a case needs them.
    """
    rows: Rows = []
    console.print("workloads are profiled first, two at a time, which takes some minutes")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        judging = []
        for profiling in as_completed([pool.submit(profiled_contests, case, seed) for case in cases]):
            case, own, bought = profiling.result()
            name = f"{case.workload}, {case.tightness}"
            console.print(f"{name}: {bought.touched} configurations in {bought.seconds:.0f} s", highlight=False)
            for load, contest in own.items():
                whole = case.whole and load == SATURATED
                common = {"workload": case.workload, "load": load, "tightness": case.tightness}
                judging += [
                    pool.submit(rows_of, contest, scope, bought, seed, common, whole=whole)
                    for scope in (SCOPES if whole else (EVERYWHERE,))
                ]
        for judged_plans in as_completed(judging):
            own_rows = judged_plans.result()
            rows += own_rows
            for row in own_rows:
                console.print(_line(row), highlight=False)
    rows.sort(key=lambda row: (row["workload"], row["tightness"], row["load"], list(SCOPES).index(row["scope"])))
    return list(figures(rows)), rows


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['contest']}, {row['scope']}, {row['planner']}: {row['goodput']:g} of {row['promised']:g} promised, "
        f"planned in {row['planning_s']:.1f} s"
    )


def profiled_contests(case: Case, seed: int) -> tuple[Case, dict[float, Contest], Profiled]:
    """Return a case, its contests by load, and the product's measurements for the greatest load."""
    own = dict(zip(case.loads, contests(case.workload, case.loads, seed, case.tightness), strict=True))
    return case, own, OURS.profiled(own[max(own)], seed)


def rows_of(
    contest: Contest, scope: str, bought: Profiled, seed: int, common: Mapping[str, Any], *, whole: bool
) -> Rows:
    """Return what the product and the planners of a scope reach in a contest, the product first.

    Args:
        contest: with all tiers.
        scope: of `SCOPES`.
        bought: measurements of the product for all tiers.
        seed: of planners and of the judge.
        common: what all rows have.
        whole: see `Case`; costs are compared with those of planners that were made for the scope.
    """
    within, everywhere = contest.within(SCOPES[scope]), scope == EVERYWHERE
    own = bought if everywhere else OURS.profiled(within, seed)
    rows = []
    for planner in (OURS, *(p for p in BASELINES if everywhere or p.tiers == SCOPES[scope])):
        planned = OURS.planned(within.specification, own) if planner is OURS else planner.plan(within, seed)
        row = row_of(contest, scope, planner.name, planned, judged(within, planned.matching, seed + 1))
        if whole and planner is OURS and everywhere:
            informed = OURS.planned(contest.specification, Profiled(contest.truth))
            row["oracle"] = judged(contest, informed.matching, seed + 1).goodput
        elif whole and row["kept"] and planner is not OURS and (planner.tiers or SCOPES[EVERYWHERE]) == SCOPES[scope]:
            row |= costs_of_the_same(contest, scope, row["kept"], planner, bought, seed)
        rows.append({"part": "goodput", **common, **row, "seed": seed})
    return rows


def row_of(contest: Contest, scope: str, planner: str, planned: Planned, judgement: Judgement) -> dict[str, Any]:
    """Return what one planner reaches in one scope of a contest."""
    return {
        "contest": contest.name,
        "scope": scope,
        "planner": planner,
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


def costs_of_the_same(
    contest: Contest, scope: str, kept: Sequence[str], planner: Planner, bought: Profiled, seed: int
) -> dict[str, Any]:
    """Return the costs of both planners for the same queries, the product with all tiers, and how many both keep.

    The queries are those that the other planner kept; if either keeps fewer of them when they are all, both plan those
    that both keep, `_ROUNDS` times at most. `same_set` is then their number, or 0 beside how many each keeps of those
    that were asked for last.
    """
    last = dict[str, Any]()
    for _ in range(_ROUNDS):
        same = contest.of(kept)
        within = same.within(SCOPES[scope])
        ours = judged(same, OURS.planned(same.specification, bought).matching, seed + 1)
        theirs = judged(within, planner.plan(within, seed).matching, seed + 1)
        both = [name for name in kept if name in ours.kept & theirs.kept]
        if len(both) == len(kept):
            return {
                "same_set": len(both),
                "usd_per_h_ours": dict(ours.usd_per_h),
                "usd_per_h_theirs": dict(theirs.usd_per_h),
            }
        last = {"asked": len(kept), "ours_kept": len(ours.kept), "theirs_kept": len(theirs.kept)}
        if not both:
            break
        kept = both
    return {"same_set": 0, **last}


def figures(rows: Rows) -> Iterator[Figure]:
    """Yield the aims, each against the best competitor in it."""
    published = {planner.name for planner in PUBLISHED}
    ours = {(row["contest"], row["scope"]): row for row in rows if row["planner"] == OURS.name}
    everywhere = {contest: row for (contest, scope), row in ours.items() if scope == EVERYWHERE}
    others = [row for row in rows if row["planner"] != OURS.name]
    earlier = [row for row in others if row["planner"] in published]
    yield from _goodput_figures(everywhere, others, earlier)
    yield _broken_figure("promises broken, all tiers", list(everywhere.values()))
    yield _broken_figure("promises broken, all plans", list(ours.values()))
    yield from _cost_figures(others, published)
    with_all_tiers = [row for row in others if row["scope"] == EVERYWHERE]
    for who, those in (("quickest earlier", published), ("paper's", {PAPER.name})):
        yield from _time_figures(who, everywhere, [row for row in with_all_tiers if row["planner"] in those])


def _broken_figure(name: str, plans: Rows) -> Figure:
    kept, served = sum(len(row["kept"]) for row in plans), sum(row["served"] for row in plans)
    close = sum(row["too_close"] for row in plans)
    note = f"{served - kept} of {served} queries in {len(plans)} plans; {close} kept ones too close to call"
    return Figure(name, 1 - kept / max(served, 1), RISK, "lower", "share", note)


def _goodput_figures(everywhere: Mapping[str, Mapping[str, Any]], others: Rows, earlier: Rows) -> Iterator[Figure]:
    best = {c: max((row["goodput"] for row in others if row["contest"] == c), default=0.0) for c in everywhere}
    bound = {c: max(row["bound"], row["goodput"], best[c]) for c, row in everywhere.items()}
    best_earlier = {c: max((row["goodput"] for row in earlier if row["contest"] == c), default=0.0) for c in everywhere}
    full = {c: row for c, row in everywhere.items() if row["load"] >= SATURATED}
    ratios = [row["goodput"] / max(best_earlier[c], 1.0) for c, row in full.items()]
    possible = [bound[c] / max(best_earlier[c], 1.0) for c in full]
    if ratios:
        yield Figure("goodput at saturation over the best earlier planner's, median", float(np.median(ratios)), 2.4,
                     "higher", "times", f"{len(full)} contests, {min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip
        yield Figure("goodput that is possible over the best earlier planner, median", float(np.median(possible)), None,
                     "higher", "times", f"bound or anyone's; {min(possible):.2f} to {max(possible):.2f}")  # fmt: skip
        paper = {row["contest"]: row["goodput"] for row in others if row["planner"] == PAPER.name}
        over_paper = [row["goodput"] / max(paper[c], 1.0) for c, row in full.items() if c in paper]
        if over_paper:
            yield Figure("goodput at saturation over the paper's planner's, median", float(np.median(over_paper)), None,
                         "higher", "times", spread(over_paper))  # fmt: skip
        over_all = [row["goodput"] / max(best[c], 1.0) for c, row in full.items()]
        yield Figure("goodput at saturation over the best of all others, median", float(np.median(over_all)), None,
                     "higher", "times", spread(over_all))  # fmt: skip
    least = [row["goodput"] / max(best[c], 1.0) for c, row in everywhere.items()]
    yield Figure("goodput over the best of all others, least", min(least), 1.0, "higher", "times",
                 f"{sum(ratio < 1 for ratio in least)} of {len(least)} contests below 1")  # fmt: skip
    informed = [row["goodput"] / max(row["oracle"], 1.0) for row in everywhere.values() if "oracle" in row]
    if informed:
        yield Figure("goodput over that with everything measured, median", float(np.median(informed)), None, "higher",
                     "share", f"{len(informed)} contests, {min(informed):.1%} to {max(informed):.1%}")  # fmt: skip
    # Where as much is promised, the bound is reached, or exceeded by plans that it does not cover.
    share = [row["goodput"] / bound[c] for c, row in everywhere.items() if row["bound"] > row["promised"]]
    if share:
        note = (
            f"{len(share)} contests, {min(share):.1%} to {max(share):.1%}; {len(everywhere) - len(share)} more reach it"
        )
        yield Figure("goodput over the certified bound, median", float(np.median(share)), 0.97, "higher", "share", note)


def _cost_figures(others: Rows, published: set[str]) -> Iterator[Figure]:
    compared = [row for row in others if row.get("same_set")]
    of_earlier = [row for row in compared if row["planner"] in published and row["scope"] != EVERYWHERE]
    asked, of_those = (
        sum("same_set" in row for row in those)
        for those in (others, [row for row in others if row["planner"] in published and row["scope"] != EVERYWHERE])
    )
    for price in PRICES:

        def ratios(of: Rows, price: str = price) -> list[float]:
            return [row["usd_per_h_theirs"][price] / max(row["usd_per_h_ours"][price], 1e-9) for row in of]

        if of_earlier:
            seen = ratios(of_earlier)
            yield Figure(f"cost by {price}, earlier planners in their own tiers over ours, median",
                         float(np.median(seen)), 3.2, "higher", "times",
                         f"{len(seen)} of {of_those} sets that both keep; {span(seen)}")  # fmt: skip
        if compared:
            seen = ratios(compared)
            yield Figure(f"cost by {price}, anyone's over ours, least", min(seen), 1.0, "higher", "times",
                         f"{len(seen)} of {asked} sets that both keep; {sum(r < 1 for r in seen)} below 1")  # fmt: skip


def _time_figures(who: str, everywhere: Mapping[str, Mapping[str, Any]], others: Rows) -> Iterator[Figure]:
    def final_s(row: Mapping[str, Any]) -> float:
        return float(row["profiled_s"] + row["planning_s"])

    def profiled_s(row: Mapping[str, Any]) -> float:
        return float(row["profiled_s"])

    spent: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
        "profiled seconds": profiled_s,
        "time to the final plan, with profiling": final_s,
    }
    for name, seconds in spent.items():
        gains = [
            min(those) / max(seconds(row), 1e-9)
            for contest, row in everywhere.items()
            if (those := [seconds(other) for other in others if other["contest"] == contest])
        ]
        if gains:
            yield Figure(f"{name}: the {who} planner's over ours, median", float(np.median(gains)), 10.0,
                     "higher", "times", f"{len(gains)} contests, {min(gains):.2f} to {max(gains):.2f}")  # fmt: skip
