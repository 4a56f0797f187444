"""The page of the documentation about the evaluation, its plot, and the lines of the README, from the result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.baselines.planners import BASELINES, PUBLISHED
from benchmarks.evaluation import ablations, goodput, llm_deployments, sensitivity, summary, workloads
from benchmarks.evaluation.goodput import EVERYWHERE, OURS, SATURATED
from benchmarks.evaluation.growth import LIMIT_S, OUR_LIMIT_S
from benchmarks.evaluation.judging import MIN_REQUESTS, PRICES
from benchmarks.evaluation.outcomes import grouped
from benchmarks.evaluation.plot import draw
from benchmarks.harness.benchmark import Rows
from benchmarks.harness.markdown import figures_table, number, table
from benchmarks.harness.results import ROOT, write_whole

PAGE, PLOT, README = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "evaluation.svg", ROOT / "README.md"
BEGIN, END = "<!-- evaluation: begin -->\n", "<!-- evaluation: end -->\n"
Row = Mapping[str, Any]

_HEAD = """# Evaluation

All planners get the same queries, pools and links, and each is charged for its own measurements. What they promise is
judged by one simulation of all queries with the true times of each item, by Circinus's
[simulator](estimates.md): a query counts if its latency percentile, its accuracy and its cost hold. Accuracy is the
mean over all recorded items, and latency a percentile of at least {requests:,} requests; it is missed if it is beyond
the limit by more than chance (5 %).

This page is written by {command}, which took {minutes:.0f} minutes (commit `{commit}`), from
`benchmarks/results/evaluation.json`. It needs the published traces (the end of the page says whose) in the folder that
the environment variable `CIRCINUS_TRACES` names.
"""
_WORDS = """
| word | meaning |
| --- | --- |
| goodput | weight of the queries whose objectives all held in the simulation; `offered` is that of all queries |
| promised, broken | a planner says that a query's objectives will hold; they did not |
| load 1 | as many queries as can just be served, by formula; from load 2 on the pools are saturated |
| earlier planners | the {published} published ones, without the paper's own, Optuna and choices by hand |
| in their own tiers | those planners of the above that were made for one tier, in the cloud |
| certified bound | the most that plans of measured configurations keep, each fast enough by itself, by the formulas of \
Circinus; or what anyone kept, if that is more, as replicas that many queries share can be faster |
| cost by share, by node | pay for the reserved share of each node, or for whole nodes |
| cost by busy seconds | pay for the time that replicas are busy, as the paper's prototype |
"""
_AIMS = """## All other figures with aims

Figures without aims are in the result file only.

"""
_GOODPUT = """## Goodput

Share of the offered weight whose objectives held, with all tiers. {ours} kept {kept} of {served} promises. It measures
once for all loads of a workload, at the greatest.

"""
_IN_TIERS = """## Goodput by planner and tiers

Medians of the workloads at {load:g} times the load that all tiers can serve: share of the offered weight whose
objectives held. Promises and causes are sums over the same plans.

"""
_COST = """## Cost of the same queries

What a planner pays over what {ours} pays with all tiers, when both plan the same queries and nothing else: those that
the planner kept in its tiers, as far as both keep them. Medians and ranges, by what is paid: {prices}. A replica's
share of a node is that of its scarcest resource: shares of replicas that complement each other can exceed the node.

"""
_PLANNING = """## Profiling and planning

Medians over all contests with all tiers. Profiled seconds are those of measurements; planning includes the decisions
what to measure.

"""
_GROWTH = """## From one query to many

Seconds of planning with complete profiles, on pools that grow with the queries. {ours} is stopped after
{our_limit:g} s and others after {limit:g} s (`>`), to keep the time of the whole within bounds; `-` was not tried, as
fewer queries took more than a quarter of that.

"""
_SPENT = {
    "touched": "configurations measured",
    "profiled_s": "profiled seconds",
    "first_plan_s": "seconds to the first plan",
    "planning_s": "to the final plan",
}
_CAUSES = (("late", "late"), ("inaccurate", "inaccurate"), ("too_dear", "too dear"))


def write_page(result: Path) -> None:
    """Write the page, its plot and the lines of the README from a result file."""
    document = json.loads(result.read_text(encoding="utf-8"))
    write_whole(PAGE, page(document))
    draw(_of_part(document["rows"], "goodput"), PLOT)
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    write_whole(README, f"{before}{BEGIN}{summary.readme_lines(document['figures'])}{END}{after}")


def page(document: Row) -> str:
    """Return the page's text.

    Args:
        document: the result file.
    """
    rows = document["rows"]
    of_goodput = _of_part(rows, "goodput")
    main = {figure.name for figure in goodput.figures(of_goodput)}
    shown = [figure for figure in document["figures"] if _is_shown(figure)]
    sections = (
        _HEAD.format(
            command="`python -m benchmarks evaluation`",
            commit=document["commit"],
            minutes=document["wall_s"] / 60,
            requests=MIN_REQUESTS,
        ),
        "## In short\n\n" + figures_table([figure for figure in shown if figure["name"] in main]),
        _WORDS.format(published=len(PUBLISHED)).lstrip("\n"),
        summary.misses(rows),
        "![Goodput of each contest, and over load](evaluation.svg)\n",
        _by_workload(of_goodput),
        _by_planner(of_goodput),
        _costs(of_goodput),
        _times(of_goodput),
        _growth(_of_part(rows, "growth")),
        ablations.section(rows),
        sensitivity.section(rows),
        llm_deployments.section(rows),
        _AIMS + figures_table([figure for figure in shown if figure["name"] not in main]),
        "## Workloads\n\n" + _text(workloads.__doc__ or ""),
        "## The other planners\n\n" + "\n".join(dict.fromkeys(_text(planner.description) for planner in BASELINES)),
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
        causes = ", ".join(f"{sum(row[what] for row in own)} {label}" for what, label in _CAUSES)
        shares = [row["goodput"] / row["offered"] for row in own]
        spread = f"{median(shares):.0%}", f"{min(shares):.0%} to {max(shares):.0%}"
        lines.append((planner, scope, *spread, f"{served - kept} of {served}", causes))
    head = ("planner", "tiers", "goodput", "range", "promises broken", "too late, inaccurate, too dear")
    return _IN_TIERS.format(load=SATURATED) + table(head, lines)


def _costs(rows: Sequence[Row]) -> str:
    asked, lines = [row for row in rows if "same_set" in row], []
    for (planner, scope), own in grouped(asked, lambda row: (row["planner"], row["scope"])).items():
        same = [row for row in own if row["same_set"]]
        cells = []
        for price in PRICES:
            ratios = [row["usd_per_h_theirs"][price] / max(row["usd_per_h_ours"][price], 1e-9) for row in same]
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "")
        queries = sum(row["same_set"] for row in same)
        lines.append((planner, scope, f"{len(same)} of {len(own)}", str(queries), *cells))
    intro = _COST.format(ours=OURS.name, prices=", ".join(PRICES))
    left_out = "".join(
        f"- left out, {row['contest']}, {row['planner']} in {row['scope']}: of {row['asked']} queries, {OURS.name} "
        f"keeps {row['ours_kept']} and the other {row['theirs_kept']}\n"
        for row in asked
        if "ours_kept" in row
    )
    text = intro + table(("planner", "tiers", "sets that both keep", "queries", *PRICES), lines)
    return f"{text}\n{left_out}" if left_out else text


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


def _text(docstring: str) -> str:
    """Return a docstring without its first line's break."""
    return docstring.strip() + "\n"
