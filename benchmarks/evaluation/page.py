"""The page of the documentation about the evaluation, its plot, and the lines of the README, from the result file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.baselines.planners import BASELINES
from benchmarks.evaluation import ablations, llm_deployments, sensitivity, workloads
from benchmarks.evaluation.goodput import EVERYWHERE, OURS, SATURATED
from benchmarks.evaluation.judging import MIN_REQUESTS, PRICES
from benchmarks.harness.benchmark import Rows
from benchmarks.harness.markdown import figures_table, number, table
from benchmarks.harness.results import ROOT, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE, PLOT, README = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "evaluation.svg", ROOT / "README.md"
BEGIN, END = "<!-- evaluation: begin -->\n", "<!-- evaluation: end -->\n"
_GLUE = "\0"
"""Stands for a space at which lines do not end."""
Row = Mapping[str, Any]

_HEAD = """# Evaluation

All planners get the same queries, pools and links, and buy their own measurements. What they promise is judged by one
simulation with the true times of each item: a query counts if its latency percentile, its accuracy and its cost hold.
Accuracy is the mean over all recorded items, and latency a percentile of at least {requests:,} requests; it is missed
if it is beyond the limit by more than chance (5 %).

This page is written by {command}, from `benchmarks/results/evaluation.json` (commit `{commit}`).
"""
_AIMS = """## Aims

Figures on cost, time and growth without aims are in the result file only.

"""
_GOODPUT = """## Goodput

Share of the offered weight whose objectives held, with all tiers. {ours} kept {kept} of {served} promises. The
certified bound is that of plans of measured configurations that hold by formula at their utilization targets; where
anyone keeps more, it is that weight.

"""
_IN_TIERS = """## Goodput by planner and tiers

Medians of the workloads at {load:g} times the load that all tiers can serve: share of the offered weight whose
objectives held. Promises and causes are sums over the same plans.

"""
_COST = """## Cost of the same queries

Cost over that of {ours} with all tiers, for queries that a planner kept in its tiers and both keep when they are all;
medians and ranges, by what is paid: {prices}.

"""
_PLANNING = """## Profiling and planning

Medians over all contests with all tiers. Profiled seconds are those of measurements; planning includes the decisions
what to measure.

"""
_GROWTH = """## From one query to many

Seconds of planning with complete profiles, on pools that grow with the queries; `-` beyond the limit, or not tried as
fewer queries took more than half of it.

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
    write_whole(README, f"{before}{BEGIN}{readme_lines(document['figures'])}{END}{after}")


def readme_lines(figures: Sequence[Row]) -> str:
    """Return what the evaluation shows, in three lines."""
    seen = {figure["name"]: figure for figure in figures}
    goodput = seen["goodput at saturation over the best earlier planner's, median"]
    cost = seen[f"cost by {PRICES[0]}, earlier planners in their own tiers over ours, median"]
    cheapest_rival = seen[f"cost by {PRICES[0]}, anyone's over ours, least"]
    profiled, broken = (
        seen["profiled seconds: the quickest earlier planner's over ours, median"],
        seen["promises broken"],
    )
    possible = seen["goodput that is possible over the best earlier planner, median"]
    lines = (
        f"- Goodput at saturation is {number(goodput['value'])} times that of the best earlier planner (medians of "
        f"contests); at most {number(possible['value'])} times is possible.",
        f"- Earlier planners in their own tiers pay {number(cost['value'])} times as much for the same queries (anyone "
        f"at least {number(cheapest_rival['value'])} times). The quickest of them profiles for "
        f"{number(profiled['value'])} times as long.",
        f"- {broken['note'].split(' queries')[0]} promises were broken. [All figures, planners and misses]"
        f"(docs/evaluation.md): `python{_GLUE}-m{_GLUE}benchmarks{_GLUE}evaluation`.",
    )
    filled = (textwrap.fill(line, 118, subsequent_indent="  ") for line in lines)
    return "".join(f"{text}\n" for text in filled).replace(_GLUE, " ")


def page(document: Row) -> str:
    """Return the page's text.

    Args:
        document: the result file.
    """
    rows = document["rows"]
    goodput = _of_part(rows, "goodput")
    sections = (
        _HEAD.format(command="`python -m benchmarks evaluation`", commit=document["commit"], requests=MIN_REQUESTS),
        _AIMS + figures_table([figure for figure in document["figures"] if _is_shown(figure)]),
        "![Goodput of each contest, and over load](evaluation.svg)\n",
        _by_workload(goodput),
        _by_planner(goodput),
        _costs(goodput),
        _times(goodput),
        _growth(_of_part(rows, "growth")),
        ablations.section(rows),
        sensitivity.section(rows),
        llm_deployments.section(rows),
        "## Workloads\n\n" + _text(workloads.__doc__ or ""),
        "## The other planners\n\n" + "\n".join(dict.fromkeys(_text(planner.description) for planner in BASELINES)),
    )
    return "\n".join(section for section in sections if section)


def _is_shown(figure: Row) -> bool:
    """Return whether a figure has an aim, or says what is possible."""
    return figure["aim"] is not None or figure["name"].startswith("goodput")


def _by_workload(rows: Sequence[Row]) -> str:
    """Return the table of each contest: the product, the best of the others, and the certified bound."""
    lines = []
    for contest, own in _grouped(rows, lambda row: row["contest"]).items():
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
    for (planner, scope), own in _grouped(at_load, lambda row: (row["planner"], row["scope"])).items():
        served, kept = sum(row["served"] for row in own), sum(len(row["kept"]) for row in own)
        causes = ", ".join(f"{sum(row[what] for row in own)} {label}" for what, label in _CAUSES)
        shares = [row["goodput"] / row["offered"] for row in own]
        spread = f"{median(shares):.0%}", f"{min(shares):.0%} to {max(shares):.0%}"
        lines.append((planner, scope, *spread, f"{served - kept} of {served}", causes))
    head = ("planner", "tiers", "goodput", "range", "promises broken", "too late, inaccurate, too dear")
    return _IN_TIERS.format(load=SATURATED) + table(head, lines)


def _costs(rows: Sequence[Row]) -> str:
    asked, lines = [row for row in rows if "same_set" in row], []
    for (planner, scope), own in _grouped(asked, lambda row: (row["planner"], row["scope"])).items():
        same = [row for row in own if row["same_set"]]
        cells = []
        for price in PRICES:
            ratios = [row["usd_per_h_theirs"][price] / max(row["usd_per_h_ours"][price], 1e-9) for row in same]
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "")
        queries = sum(row["same_set"] for row in same)
        lines.append((planner, scope, f"{len(same)} of {len(own)}", str(queries), *cells))
    intro = _COST.format(ours=OURS.name, prices=", ".join(PRICES))
    return intro + table(("planner", "tiers", "sets that both keep", "queries", *PRICES), lines)


def _times(rows: Sequence[Row]) -> str:
    everywhere = [row for row in rows if row["scope"] == EVERYWHERE]
    lines = [
        (planner, *(f"{median(row[spent] for row in own):.3g}" for spent in _SPENT))
        for planner, own in _grouped(everywhere, lambda row: row["planner"]).items()
    ]
    return _PLANNING + table(("planner", *_SPENT.values()), lines)


def _growth(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    counts = sorted({row["queries"] for row in rows})
    lines = []
    for planner, own in _grouped(rows, lambda row: row["planner"]).items():
        by_count = {row["queries"]: row["planning_s"] for row in own}
        cells = [by_count.get(count) for count in counts]
        lines.append((planner, *("-" if seconds is None else f"{seconds:.2g}" for seconds in cells)))
    return _GROWTH + table(("planner", *(f"{count:,}" for count in counts)), lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw goodput with all tiers, as a share of the offered weight: of each contest, and over load.

    Args:
        rows: of the part `goodput`.
        path: of the SVG file, which is reproducible.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 5.8), layout="constrained")
    by_contest, over_load = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_contests(by_contest, [row for row in rows if row["scope"] == EVERYWHERE])
    _draw_loads(over_load, [row for row in rows if row["scope"] == EVERYWHERE and row["tightness"] == "mixed"])
    with matplotlib.rc_context({"svg.hashsalt": "circinus"}):
        unfinished = path.with_suffix(".tmp")
        figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


def _draw_contests(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a group of bars for each contest: the product, and the two best of the others."""
    contests = sorted(_grouped(rows, lambda row: row["contest"]).items(), reverse=True)
    for position, (_, own) in enumerate(contests):
        ours = next(row for row in own if row["planner"] == OURS.name)
        others = sorted((row for row in own if row is not ours), key=lambda row: -row["goodput"])[:2]
        for shift, row, color in zip((0.27, 0.0, -0.27), (ours, *others), ("C0", "0.7", "0.85"), strict=False):
            share = 100 * row["goodput"] / row["offered"]
            axes.barh(position + shift, share, height=0.26, color=color)
            label = f"{row['planner']} {share:.0f}"
            axes.text(1, position + shift, label, va="center", fontsize=5.5, color="w" if row is ours else "k")
        bound = 100 * max(ours["bound"], *(row["goodput"] for row in own)) / ours["offered"]
        axes.plot([bound, bound], [position - 0.42, position + 0.42], color="0.2", lw=1.0, ls=":")
    axes.set_yticks(range(len(contests)), [name for name, _ in contests], fontsize="x-small")
    axes.set(xlim=(0, 100), xlabel="goodput (% of the weight); dotted: certified bound, or the most that anyone kept")
    axes.xaxis.label.set_fontsize("small")


def _draw_loads(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw goodput over load of the workload with most loads."""
    by_workload = _grouped(rows, lambda row: row["workload"])
    shown = max(by_workload, key=lambda name: len({row["load"] for row in by_workload[name]}))
    by_planner = _grouped(by_workload[shown], lambda row: row["planner"])
    colors = cycle((*(f"C{number}" for number in range(1, 10)), "k"))  # C0 is the product's
    for planner, own in by_planner.items():
        own, is_ours = sorted(own, key=lambda row: row["load"]), planner == OURS.name
        loads = [row["load"] for row in own]
        axes.plot(loads, [100 * row["goodput"] / row["offered"] for row in own], marker="o", ms=4,
                  lw=3 if is_ours else 1.2, label=planner, color="C0" if is_ours else next(colors),
                  zorder=3 if is_ours else 2)  # fmt: skip
    axes.set(xscale="log", xlabel=f"load of workload {shown} (1: all tiers can just serve it)", ylabel="goodput (%)")
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="x-small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    axes.xaxis.label.set_fontsize("small")


def _of_part(rows: Sequence[Row], part: str) -> Rows:
    return [dict(row) for row in rows if row.get("part") == part]


def _text(docstring: str) -> str:
    """Return a docstring without its first line's break."""
    return docstring.strip() + "\n"


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
