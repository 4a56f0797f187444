"""Summary of the evaluation in few lines: for the README, and at the top of its page, with what was missed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.baselines.planners import BASELINES, PUBLISHED
from benchmarks.evaluation import ablations, sensitivity
from benchmarks.evaluation.goodput import EVERYWHERE, OURS
from benchmarks.evaluation.judging import PRICES
from benchmarks.evaluation.outcomes import grouped
from benchmarks.harness.benchmark import Rows
from benchmarks.harness.markdown import list_item, number
from benchmarks.harness.results import FOLDER

_OVER_ALL = "goodput at saturation over the best of all others, median"
_GLUE = "\0"
"""Stands for a space at which lines do not end."""
Row = Mapping[str, Any]

_MISSES = """The aims of 2.4 times the goodput, 3.2 times the cost and 10 times the time are gains as claimed in the
paper that Circinus grew out of (arXiv 2504.16397). What was missed, and where others are better:

"""


def readme_lines(document: Row, links: Path = FOLDER / "links.json") -> str:
    """Return what the evaluation shows, in three lines.

    Args:
        document: the result file.
        links: result file of the benchmark over real links.
    """
    seen = {figure["name"]: figure for figure in document["figures"]}
    over_links = {figure["name"]: figure for figure in json.loads(links.read_text(encoding="utf-8"))["figures"]}

    def value(name: str) -> str:
        return f"{seen[name]['value']:.2f}"

    earlier = value("goodput at saturation over the best earlier planner's, median")
    everyone = value(_OVER_ALL)
    possible = value("goodput that is possible over the best earlier planner, median")
    shares, nodes, busy = (
        value(f"cost by {price}, earlier planners in their own tiers over ours, median") for price in PRICES
    )
    quickest, paper = (
        value(f"time to the final plan, with profiling: the {who} planner's over ours, median")
        for who in ("quickest earlier", "paper's")
    )
    command, minutes = "python -m benchmarks evaluation".replace(" ", _GLUE), document["wall_s"] / 60
    broken = seen["promises broken, all tiers"]["note"].split(" queries")[0]
    broken_over_links, close = over_links["promises of Circinus broken"]["note"].split(" at all loads; ")
    is_chance = abs(seen[_OVER_ALL]["value"] - 1) <= ablations.chance(document["rows"])
    tie, count, others = ", within chance" if is_chance else "", len(PUBLISHED), len(BASELINES)
    lines = (
        f"Goodput at saturation is {earlier} times that of the best of {count} published planners, rebuilt from their "
        f"papers; {possible} times is the most that plans allow which are fast enough by themselves. It is {everyone} "
        f"times that of the best of all {others} others{tie} (median contests).",
        f"Planners for the cloud, in the cloud alone, pay {shares} times as much as Circinus with all tiers for the "
        f"same queries, by shares of nodes ({nodes} by whole nodes, {busy} by busy seconds), at prices that we assume. "
        f"From nothing to the final plan, the quickest of the {count} takes {quickest} times as long with all tiers, "
        f"the Circinus paper's own {paper} times. The aims of 2.4, 3.2 and 10 times are missed.",
        f"{broken} promises were broken in simulations with recorded times, {broken_over_links} on Ray over [shaped "
        f"links](docs/links.md) and two busy cores ({close}). [All figures, planners and misses](docs/evaluation.md): "
        f"`{command}`, {minutes:.0f} minutes with the published traces.",
    )
    return "".join(map(list_item, lines)).replace(_GLUE, " ")


def misses(rows: Rows) -> str:
    """Return where others are better and what breaks promises, in Markdown.

    Args:
        rows: of the result file.
    """
    own, chance = [row for row in rows if row.get("part") == "goodput"], ablations.chance(rows)
    lines = (
        _behind([row for row in own if row["scope"] == EVERYWHERE], "With all tiers", chance),
        _behind([row for row in own if row["scope"] != EVERYWHERE], "With fewer tiers", chance),
        _dearer(own),
        _slower([row for row in own if row["scope"] == EVERYWHERE]),
        *_broken([row for row in rows if row.get("part") == sensitivity.PART]),
    )
    return _MISSES + "".join(map(list_item, filter(None, lines)))


def _behind(rows: Rows, where: str, chance: float) -> str:
    """Return in which contests another planner keeps more, and in how many less by more than chance."""
    contests = grouped(rows, lambda row: (row["contest"], row["scope"]))
    contested = {key: own for key, own in contests.items() if len(own) > 1}
    better, behind = 0, []
    for (contest, scope), own in contested.items():
        ours = next(row for row in own if row["planner"] == OURS.name)["goodput"]
        best = max((row for row in own if row["planner"] != OURS.name), key=lambda row: row["goodput"])
        better += ours > best["goodput"] * (1 + chance)
        if ours < best["goodput"]:
            label = contest if scope == EVERYWHERE else f"{contest}, {scope}"
            behind.append(f"{label}: {ours:g} ({best['planner']} {best['goodput']:g})")
    if not contested:
        return ""
    text = f"{where}, {OURS.name} is ahead by more than chance ({chance:.1%}) in {better} of {len(contested)} contests"
    if not behind:
        return f"{text} and behind in none."
    return f"{text} and behind in {len(behind)}, by weight kept: {'; '.join(behind)}."


def _dearer(rows: Rows) -> str:
    """Return for which planners' queries the product pays more."""
    compared = [row for row in rows if row.get("same_set")]

    def ratio(row: Row, price: str) -> float:
        return float(row["usd_per_h_theirs"][price] / max(row["usd_per_h_ours"][price], 1e-9))

    cheaper = {price: [row for row in compared if ratio(row, price) < 1] for price in PRICES}
    counts = ", ".join(f"by {price} for {len(own)}" for price, own in cheaper.items())
    named = "; ".join(
        f"{row['contest']}, {row['planner']} in {row['scope']} ({ratio(row, PRICES[0]):.2f} of what {OURS.name} pays)"
        for row in cheaper[PRICES[0]]
    )
    if not any(cheaper.values()):
        return ""
    return f"Of {len(compared)} sets of queries, others pay less {counts}. By {PRICES[0]}: {named or 'none'}."


def _slower(rows: Rows) -> str:
    """Return the seconds of planning, without those of measurements."""
    by_planner = grouped(rows, lambda row: row["planner"])
    medians = {planner: median(row["planning_s"] for row in own) for planner, own in by_planner.items()}
    ours = medians.pop(OURS.name, 0.0)
    if not medians:
        return ""
    return (
        f"Decisions about what to measure and planning take {number(ours)} s in the median contest, others' planning "
        f"{number(min(medians.values()))} to {number(max(medians.values()))} s."
    )


def _broken(rows: Rows) -> Iterator[str]:
    """Yield what makes the product break promises."""
    for name, broken, served, risk in sensitivity.broken_by(rows):
        if broken > risk * served:
            yield f"{name[:1].upper()}{name[1:]}: {broken} of {served} promises are broken."
