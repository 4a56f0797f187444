"""Sensitivity of the product to risk, noisy measurements, tiers, wrong speeds, drift of the items, and the seed.

The price of caution is the goodput of plans at a risk of 0.5 over that of plans at the default risk. Speeds are wrong
if pools are slower or faster than they declare. Items drift if the harder half of all recorded items gets a greater
share: plans are judged before and after the pipelines are profiled again. Published seconds are equal for all items, so
that a drift changes accuracies alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import mean, median, stdev
from typing import Any

from rich.console import Console

from benchmarks.baselines.planners import PUBLISHED
from benchmarks.evaluation.ablations import LOAD
from benchmarks.evaluation.contest import Contest
from benchmarks.evaluation.outcomes import grouped, in_two_processes, outcome, span, spread
from benchmarks.evaluation.product import Product
from benchmarks.evaluation.variations import with_hard_items, with_noise, with_risk, with_tiers, with_true_speed
from benchmarks.evaluation.workloads import contests
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.markdown import table
from benchmarks.harness.results import Figure
from circinus.specification import Query
from circinus.statistics.student_t import student_t_quantile

PART = "sensitivity"
RISK = Query.model_fields["risk"].default
CAUTIONLESS = 0.5
"""Risk of plans that go by medians."""
RISKS = (0.01, 0.2, CAUTIONLESS)
NOISE = (0.1, 0.3)
TIER_COUNTS = (1, 2, 4)
SPEEDS = (0.7, 0.9, 1.1, 1.3)
"""True over declared speed."""
HARD_SHARES = (0.6, 0.75)
"""Share of the harder half of all items after a drift; before it is 0.5."""
WORKLOADS = ("video-nuscenes",)
_INTERVAL_RISK = 0.05
_UNCHANGED = "as specified"
_DRIFTED, _PROFILED_AGAIN = "harder items", "harder items, profiled again"
_SEEDS = "seed"
_REPEATED = "video-nuscenes"
"""Workload of the contest over seeds."""


def sensitivity(seeds: int, names: Sequence[str], console: Console) -> PartResult:
    """Vary contests of one seed in one way at a time, and one contest over seeds.

    Args:
        seeds: number of seeds of one contest; fewer than 2: none.
        names: of the workloads that are varied.
        console: of the progress.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """

    def report(own: Rows) -> None:
        shown = (f"{row['varied']} {row['value']:g}: {row['goodput']:g} of {row['promised']:g}" for row in own)
        console.print(f"{own[0]['contest']}: {'; '.join(shown)}", highlight=False)

    rows = in_two_processes(_jobs(seeds, names), report)
    return list(figures(rows)), rows


def _jobs(seeds: int, names: Sequence[str]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    for name in names:
        for contest in contests(name, (LOAD,), 0):
            yield of_one_plan, (contest, 0)
            yield of_variations, (contest, 0)
    if seeds > 1:
        for seed in range(seeds):
            for contest in contests(_REPEATED, (LOAD,), seed):
                yield of_seed, (contest, seed)


def of_one_plan(contest: Contest, seed: int) -> Rows:
    """Return what plans of a contest reach as specified, with other true speeds, and after drifts of the items."""
    product = Product()
    planned = product.plan(contest, seed)
    rows = [_row(_UNCHANGED, 0.0, outcome(contest, planned, seed))]
    rows += [_row("true speed", f, outcome(with_true_speed(contest, f), planned, seed)) for f in SPEEDS]
    for share in HARD_SHARES:
        drifted = with_hard_items(contest, share)
        rows.append(_row(_DRIFTED, share, outcome(drifted, planned, seed)))
        rows.append(_row(_PROFILED_AGAIN, share, outcome(drifted, product.plan(drifted, seed), seed)))
    return rows


def of_variations(contest: Contest, seed: int) -> Rows:
    """Return what the product reaches at other risks, with noisy measurements, and with other numbers of tiers."""
    product, rows = Product(), list[dict[str, Any]]()
    for risk in RISKS:
        cautious = with_risk(contest, risk)
        rows.append(_row("risk", risk, outcome(cautious, product.plan(cautious, seed), seed)))
    for deviation in NOISE:
        planned = product.plan(with_noise(contest, deviation, seed), seed)
        rows.append(_row("noise", deviation, outcome(contest, planned, seed)))
    for count in TIER_COUNTS:
        within = with_tiers(contest, count)
        rows.append(_row("tiers", count, outcome(within, product.plan(within, seed), seed)))
    return rows


def of_seed(contest: Contest, seed: int) -> Rows:
    """Return what the product and the earlier planners reach in a contest of one seed."""
    row = _row(_SEEDS, seed, outcome(contest, Product().plan(contest, seed), seed))
    others = [outcome(contest, planner.plan(contest, seed), seed)["goodput"] for planner in PUBLISHED]
    return [row | {"best_earlier": max(others)}]


def _row(varied: str, value: float, reached: dict[str, Any]) -> dict[str, Any]:
    return {"part": PART, "varied": varied, "value": value, **reached}


def figures(rows: Rows) -> Iterator[Figure]:
    """Yield the price of caution, what each variation leaves of the goodput, and the interval over seeds."""
    unchanged = {row["contest"]: row for row in rows if row["varied"] == _UNCHANGED}
    for (varied, value), own in _groups(rows).items():
        if varied in (_UNCHANGED, _SEEDS):
            continue
        ratios = _ratios(own, unchanged)
        is_price = varied == "risk" and value == CAUTIONLESS
        name = f"price of caution: goodput at a risk of {value:g}" if is_price else f"{_named(varied, value)}: goodput"
        yield Figure(f"{name}, relative, median", median(ratios), _aim(varied, value), "higher", "times",
                     spread(ratios))  # fmt: skip
        risk = value if varied == "risk" else RISK
        aim = risk if varied not in ("true speed", _DRIFTED) else None
        share, text = _broken(own)
        yield Figure(f"{_named(varied, value)}: promises broken", share, aim, "lower", "share", text)
    of_seeds = [row for row in rows if row["varied"] == _SEEDS]
    if len(of_seeds) > 1:
        ratios = [row["goodput"] / max(row["best_earlier"], 1.0) for row in of_seeds]
        center, half = _interval(ratios)
        note = f"{len(ratios)} seeds of one contest; 95 % interval {center - half:.2f} to {center + half:.2f}"
        yield Figure("goodput over the best earlier planner's, mean of seeds", center, None, "higher", "times", note)
        name = "goodput over the best earlier planner's, lower end of the interval"
        yield Figure(name, center - half, 1.0, "higher", "times", note)


def _aim(varied: str, value: float) -> float | None:
    """Return the aim of a goodput relative to that of three tiers as specified."""
    return 1.0 if varied == "tiers" and value > 3 else None


def _groups(rows: Rows) -> dict[tuple[str, float], Rows]:
    return grouped(rows, lambda row: (row["varied"], row["value"]))


def _ratios(own: Rows, unchanged: dict[str, dict[str, Any]]) -> list[float]:
    return [row["goodput"] / max(unchanged[row["contest"]]["goodput"], 1.0) for row in own]


def broken_by(rows: Rows) -> Iterator[tuple[str, int, int, float]]:
    """Yield each variation with the number of its broken promises, of all, and its risk.

    Args:
        rows: of this part.
    """
    for (varied, value), own in _groups(rows).items():
        if varied not in (_UNCHANGED, _SEEDS):
            broken, served = (sum(row[what] for row in own) for what in ("broken", "served"))
            yield _named(varied, value), broken, served, value if varied == "risk" else RISK


def _broken(own: Rows) -> tuple[float, str]:
    broken, served = (sum(row[what] for row in own) for what in ("broken", "served"))
    return broken / max(served, 1), f"{broken} of {served} queries"


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its confidence interval by Student's t."""
    count = len(values)
    return mean(values), student_t_quantile(_INTERVAL_RISK / 2, count - 1) * stdev(values) / math.sqrt(count)


def _named(varied: str, value: float) -> str:
    if varied == "risk":
        return f"risk {value:g}"
    if varied == "noise":
        return f"noise of {value:.0%} on measured seconds"
    if varied == "tiers":
        return f"{value:g} tier{'s' if value > 1 else ''}"
    if varied == "true speed":
        return f"pools {abs(value - 1):.0%} {'faster' if value > 1 else 'slower'} than declared"
    again = ", profiled again" if varied == _PROFILED_AGAIN else ""
    return f"the harder half of the items in {value:.0%} of requests instead of 50%{again}"


_HEAD = """## Sensitivity

Changed in one way at a time: {contests}. Goodput is relative to that as specified: a risk of {risk:g}, exact seconds,
three tiers, declared speeds and the recorded items. The row of risk {cautionless:g} is the price of caution.

"""


def section(rows: Rows) -> str:
    """Return the section of the page about these rows, in Markdown."""
    rows = [row for row in rows if row.get("part") == PART]
    unchanged = {row["contest"]: row for row in rows if row["varied"] == _UNCHANGED}
    if not unchanged:
        return ""
    lines = []
    for (varied, value), own in _groups(rows).items():
        if varied != _SEEDS:
            ratios = _ratios(own, unchanged)
            name = _UNCHANGED if varied == _UNCHANGED else _named(varied, value)
            broken, seconds = _broken(own)[1].removesuffix(" queries"), median(row["profiled_s"] for row in own)
            lines.append((name, f"{median(ratios):.2f}", span(ratios), broken, f"{seconds:.3g}"))
    text = _HEAD.format(contests=", ".join(unchanged), risk=RISK, cautionless=CAUTIONLESS)
    text += table(("changed", "goodput", "range", "broken", "profiled seconds"), lines)
    return text + _seeds_text([row for row in rows if row["varied"] == _SEEDS])


def _seeds_text(rows: Rows) -> str:
    if len(rows) < 2:
        return ""
    ratios, broken = [row["goodput"] / max(row["best_earlier"], 1.0) for row in rows], _broken(rows)[1]
    center, half = _interval(ratios)
    return (
        f"\nOver {len(rows)} seeds of {rows[0]['contest']}, the quickest workload to repeat, goodput is {center:.2f} "
        f"times that of the best earlier planner (95 % interval {center - half:.2f} to {center + half:.2f}; least "
        f"{min(ratios):.2f}), and {broken} break. All other contests have one seed.\n"
    )
