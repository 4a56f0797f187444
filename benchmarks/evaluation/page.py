"""The pages of the documentation about the evaluation, its plot, and the lines of the README, from the result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.baselines.planners import PUBLISHED
from benchmarks.evaluation import ablations, goodput, llm_deployments, method, sensitivity, summary
from benchmarks.evaluation.goodput import EVERYWHERE, OURS, SATURATED
from benchmarks.evaluation.growth import LIMIT_S, OUR_LIMIT_S
from benchmarks.evaluation.judging import MIN_REQUESTS, PRICES
from benchmarks.evaluation.outcomes import grouped, span
from benchmarks.evaluation.plot import draw
from benchmarks.harness.benchmark import Rows
from benchmarks.harness.markdown import figures_table, list_item, number, table
from benchmarks.harness.results import ROOT, Figure, write_whole

PAGE, PLOT, README = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "evaluation.svg", ROOT / "README.md"
PLANNERS = ROOT / "docs" / "evaluation_planners.md"
BEGIN, END = "<!-- evaluation: begin -->\n", "<!-- evaluation: end -->\n"
Row = Mapping[str, Any]

_HEAD = """# Evaluation

All planners get the same queries, pools and links, and each is charged for its own measurements. What they promise is
judged by one simulation of all queries with recorded times, by the simulator of Circinus: a query counts if its latency
percentile, its accuracy and its cost hold. Accuracy is the mean over all recorded items, and latency a percentile of at
least {requests:,} requests; it is missed if it is beyond the limit by more than chance (5 %).

- Times are those of each item for `meeting` and `documents`, and one mean for each configuration in published data.
- How close the simulator is to real engines is measured in [estimates](estimates.md) and over [real links](links.md).
- Limits of latency and cost are drawn by the formulas of Circinus, so that each query can be served alone.
- The other planners are [our own versions](evaluation_planners.md), after what was published about them.

This page is written by {command} from `benchmarks/results/evaluation.json` (commit `{commit}`).
"""
_WORDS = """
| word | meaning |
| --- | --- |
| goodput | weight of the queries whose objectives all held in the simulation, not requests per second |
| offered weight | that of all queries, served or not |
| promised, broken | a planner says that a query's objectives will hold; they did not |
| load 1 | as many queries as could be served if replicas could be divided; from load 2 on the pools are saturated |
| tight, medium, loose, mixed | latency limits, see [workloads](#workloads) |
| earlier planners | the {published} published ones, without the paper's own, Optuna and choices by hand |
| in their own tiers | those planners of the above that were made for one tier, in the cloud |
| certified bound | the most that plans of measured configurations keep, each fast enough by itself, by formulas of \
Circinus; or what a planner kept, if that is more, as replicas that many queries share can be faster: nothing is \
proved then, and the figure over the bound leaves such contests out |
| with everything measured | plans of Circinus from complete profiles; more than 100 %, as matching is heuristic |
| cost by share, by node | pay for the reserved share of each node, or for whole nodes |
| cost by busy seconds | pay for the time that replicas are busy, as the paper's prototype |
"""
_AIMS = """## Other aims that were missed

{met} further figures meet their aims; the result file has all of them.

"""
_GOODPUT = """## Goodput

Share of the offered weight whose objectives held: {ours} with all tiers, and the best of the others in any. {ours}
kept {kept} of {served} promises. It measures once for all loads of a workload, at the greatest. Each contest has one
seed; [below](#sensitivity) is one contest over ten.

"""
_IN_TIERS = """## Goodput by planner and tiers

Medians of contests at {load:g} times the load that all tiers can serve: share of the offered weight whose objectives
held, and the range. Rows of different numbers of contests are not comparable. Promises and causes are sums over these
plans; a query can have several causes.

"""
_COST = """## Cost of the same queries

What a planner pays over what {ours} pays with all tiers, when both plan the same queries and nothing else: those that
the planner kept in its tiers, as far as both keep them. Planners with one tier pay for that tier; how much cheaper
others are is [an assumption](#workloads). Medians and ranges, by what is paid: {prices}.
A replica's share of a node is that of its scarcest resource, so that shares of replicas that complement each other can
exceed the node.

"""
_PLANNING = """## Profiling and planning

Medians over all contests with all tiers. Profiled seconds are those that the measurements took when they were recorded,
common prefixes once where a planner shares them (not Vulcan-style and choices by hand). The others measure
configurations on all items, some as we simplified them. Planning is in seconds of this machine with two contests at
once, and includes decisions about what to measure.

"""
_GROWTH = """## From one query to many

Seconds of planning with complete profiles, on pools that grow with the queries. {ours} is stopped after
{our_limit:g} s and others after {limit:g} s (`>`), to keep the time of the whole within bounds; `-` was not tried, as
fewer queries took too much of that.

"""
_SPENT = {
    "touched": "configurations measured",
    "profiled_s": "profiled seconds",
    "first_plan_s": "seconds to the first plan",
    "planning_s": "to the final plan",
}
_CAUSES = (("late", "late"), ("inaccurate", "inaccurate"), ("too_dear", "over its cost limit"))


def write_page(result: Path) -> None:
    """Write the page, its plot and the lines of the README from a result file."""
    document = json.loads(result.read_text(encoding="utf-8"))
    write_whole(PAGE, page(document))
    write_whole(PLANNERS, method.planners_page())
    draw(_of_part(document["rows"], "goodput"), PLOT)
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    write_whole(README, f"{before}{BEGIN}{summary.readme_lines(document)}{END}{after}")


def page(document: Row) -> str:
    """Return the page's text.

    Args:
        document: the result file.
    """
    rows = document["rows"]
    of_goodput = _of_part(rows, "goodput")
    main = {figure.name for figure in goodput.figures(of_goodput)}
    shown = [figure for figure in document["figures"] if _is_shown(figure)]
    short = [figure for figure in shown if figure["name"] in main and not figure["name"].startswith("cost")]
    others = [Figure(**figure) for figure in shown if figure["name"] not in main]
    missed, met = [vars(figure) for figure in others if figure.met is False], sum(bool(f.met) for f in others)
    sections = (
        _HEAD.format(
            command="`python -m benchmarks evaluation`",
            commit=document["commit"],
            requests=MIN_REQUESTS,
        ),
        "## In short\n\n" + figures_table(short),
        _WORDS.format(published=len(PUBLISHED)).lstrip("\n"),
        summary.misses(rows),
        "![Goodput of each contest, and over load](evaluation.svg)\n",
        _by_workload(of_goodput),
        _by_planner(of_goodput),
        _costs(of_goodput, [figure for figure in shown if figure["name"].startswith("cost")]),
        _times(of_goodput),
        _growth(_of_part(rows, "growth")),
        ablations.section(rows),
        sensitivity.section(rows),
        llm_deployments.section(rows),
        _AIMS.format(met=met) + figures_table(missed),
        method.workloads_section(),
        method.reproduce_section(document),
    )
    return "\n".join(section for section in sections if section)


def _is_shown(figure: Row) -> bool:
    """Return whether a figure has an aim, or says what is possible."""
    return figure["aim"] is not None or figure["name"].startswith("goodput ")


def _by_workload(rows: Sequence[Row]) -> str:
    """Return the table of each contest: the product, the best of the others, and the certified bound."""
    lines = []
    for contest, own in grouped(rows, lambda row: row["contest"]).items():
        everywhere = [row for row in own if row["scope"] == EVERYWHERE]
        ours = next(row for row in everywhere if row["planner"] == OURS.name)
        best = max((row for row in own if row["planner"] != OURS.name), key=lambda row: row["goodput"])
        bound = max(ours["bound"], ours["goodput"], best["goodput"])
        shares = [f"{value / ours['offered']:.0%}" for value in (ours["goodput"], best["goodput"], bound)]
        others = f"{shares[1]}, {best['planner']}, {best['scope']}"
        lines.append((contest, str(ours["queries"]), shares[0], others, shares[2]))
    product = [row for row in rows if row["planner"] == OURS.name and row["scope"] == EVERYWHERE]
    served, kept = sum(row["served"] for row in product), sum(len(row["kept"]) for row in product)
    head = ("workload", "queries", OURS.name, "best of the others", "certified bound")
    return _GOODPUT.format(ours=OURS.name, kept=kept, served=served) + table(head, lines)


def _by_planner(rows: Sequence[Row]) -> str:
    lines = []
    at_load = [row for row in rows if row["load"] == SATURATED]
    for (planner, scope), own in grouped(at_load, lambda row: (row["planner"], row["scope"])).items():
        served, kept = sum(row["served"] for row in own), sum(len(row["kept"]) for row in own)
        counts = ((sum(row[what] for row in own), label) for what, label in _CAUSES)
        causes = ", ".join(f"{count} {label}" for count, label in counts if count)
        shares = [row["goodput"] / row["offered"] for row in own]
        spread = f"{median(shares):.0%}", f"{min(shares):.0%} to {max(shares):.0%}"
        lines.append((planner, scope, str(len(own)), *spread, f"{served - kept} of {served}", causes))
    head = ("planner", "tiers", "contests", "goodput", "range", "promises broken", "causes")
    return _IN_TIERS.format(load=SATURATED) + table(head, lines)


def _costs(rows: Sequence[Row], figures: Sequence[Row]) -> str:
    asked, lines = [row for row in rows if "same_set" in row], []
    for (planner, scope), own in grouped(asked, lambda row: (row["planner"], row["scope"])).items():
        same = [row for row in own if row["same_set"]]
        cells = []
        for price in PRICES:
            ratios = [row["usd_per_h_theirs"][price] / max(row["usd_per_h_ours"][price], 1e-9) for row in same]
            spread = f" ({span(ratios)})" if len(ratios) > 1 else ""
            cells.append(f"{median(ratios):.2f}{spread}" if ratios else "")
        queries = sum(row["same_set"] for row in same)
        lines.append((planner, scope, f"{len(same)} of {len(own)}", str(queries), *cells))
    intro = _COST.format(ours=OURS.name, prices=", ".join(PRICES))
    left_out = "".join(
        list_item(
            f"left out, {row['contest']}, {row['planner']} in {row['scope']}: of {row['asked']} queries, {OURS.name} "
            f"keeps {row['ours_kept']} and the other {row['theirs_kept']}"
        )
        for row in asked
        if "ours_kept" in row
    )
    text = intro + table(("planner", "tiers", "sets that both keep", "queries", *PRICES), lines)
    return "\n".join(filter(None, (text, left_out, figures_table(figures))))


def _times(rows: Sequence[Row]) -> str:
    everywhere = [row for row in rows if row["scope"] == EVERYWHERE]
    lines = [
        (planner, *(number(median(row[spent] for row in own)) for spent in _SPENT))
        for planner, own in grouped(everywhere, lambda row: row["planner"]).items()
    ]
    return _PLANNING + table(("planner", *_SPENT.values()), lines)


def _growth(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    counts = sorted({row["queries"] for row in rows})
    lines = []
    for planner, own in grouped(rows, lambda row: row["planner"]).items():
        limit_s = OUR_LIMIT_S if planner == OURS.name else LIMIT_S
        taken = {row["queries"]: row["planning_s"] for row in own}
        cells = {
            count: f">{limit_s:g}" if seconds is None or seconds > limit_s else number(seconds)
            for count, seconds in taken.items()
        }
        lines.append((planner, *(cells.get(count, "-") for count in counts)))
    head = _GROWTH.format(ours=OURS.name, our_limit=OUR_LIMIT_S, limit=LIMIT_S)
    return head + table(("planner", *(f"{count:,}" for count in counts)), lines)


def _of_part(rows: Sequence[Row], part: str) -> Rows:
    return [dict(row) for row in rows if row.get("part") == part]
