"""The page of the documentation about the evaluation, written from the result file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.baselines.planners import BASELINES
from benchmarks.evaluation.goodput import EVERYWHERE, OURS
from benchmarks.evaluation.judging import MIN_REQUESTS, PRICES
from benchmarks.harness.results import ROOT, write_whole

PAGE, PLOT = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "evaluation.svg"
Row = Mapping[str, Any]


def page(document: Mapping[str, Any]) -> str:
    """Return the page's text.

    Args:
        document: the result file.
    """
    rows = document["rows"]
    sections = (
        _HEAD.format(command="`python -m benchmarks evaluation`", commit=document["commit"], requests=MIN_REQUESTS),
        _aims(document["figures"]),
        "![Goodput over load](evaluation.svg)\n",
        _goodput_table(rows),
        _cost_table(rows),
        _planning_table(rows),
        _simplified(),
    )
    return "\n".join(sections)


_HEAD = """# Evaluation

All planners get the same queries, pools and links, and buy their own measurements. What they promise is judged by one
simulation with the true times of each item: a query counts if its latency percentile, its accuracy and its cost hold.
Accuracy is the mean over all recorded items, and latency a percentile of at least {requests:,} requests; it is missed
if it is beyond the limit by more than chance (5 %).

This page is written by {command}, from `benchmarks/results/evaluation.json` (commit `{commit}`).
"""


def _aims(figures: Sequence[Row]) -> str:
    rows = [(figure["name"], _number(figure["value"]), _aim(figure), figure["note"]) for figure in figures]
    return "## Aims\n\n" + _table(("figure", "seen", "aim", "of"), rows)


def _aim(figure: Row) -> str:
    if figure["aim"] is None:
        return "-"
    bound = "at least" if figure["better"] == "higher" else "at most"
    is_met = figure["value"] >= figure["aim"] if figure["better"] == "higher" else figure["value"] <= figure["aim"]
    return f"{bound} {_number(figure['aim'])}{'' if is_met else ', **missed**'}"


def _goodput_table(rows: Sequence[Row]) -> str:
    """Return goodput by planner and scope, as a share of the offered weight, in the median over contests of a load."""
    loads = sorted({_load(row) for row in rows})
    lines = []
    for (planner, scope), own in _grouped(rows, lambda row: (row["planner"], row["scope"])).items():
        by_load = [[row["goodput"] / row["offered"] for row in own if _load(row) == load] for load in loads]
        served, kept = sum(row["served"] for row in own), sum(len(row["kept"]) for row in own)
        broken = f"{served - kept} of {served}"
        causes = ", ".join(f"{sum(row[what] for row in own)} {label}" for what, label in _CAUSES)
        lines.append(
            (planner, scope, *(f"{median(shares):.0%}" if shares else "" for shares in by_load), broken, causes)
        )
    head = (
        "planner",
        "tiers",
        *(f"load {load:g}" for load in loads),
        "promises broken",
        "too late, inaccurate, too dear",
    )
    return "## Goodput\n\nShare of the offered weight whose objectives held, median of the workloads.\n\n" + _table(
        head, lines
    )


_GOODPUT = "## Goodput\n\nShare of the offered weight whose objectives held, median of the workloads.\n\n"
_COST = f"""## Cost of the same queries

Cost over that of {OURS.name} for the queries that a planner kept, where both keep them; medians, by what is paid.

"""
_PLANNING = "## Profiling and planning\n\nMedians over all contests with all tiers.\n\n"
_SPENT = {
    "touched": "configurations measured",
    "profiled_s": "profiled seconds",
    "first_plan_s": "seconds to the first plan",
    "planning_s": "to the final plan",
}
_CAUSES = (("late", "late"), ("inaccurate", "inaccurate"), ("too_dear", "too dear"))


def _cost_table(rows: Sequence[Row]) -> str:
    others = [row for row in rows if row["planner"] != OURS.name]
    lines = []
    for (planner, scope), own in _grouped(others, lambda row: (row["planner"], row["scope"])).items():
        same = [row for row in own if row["same_set"] and row["usd_per_h_ours"][PRICES[0]] > 0]
        ratios = [[row["usd_per_h_theirs"][price] / row["usd_per_h_ours"][price] for row in same] for price in PRICES]
        lines.append((planner, scope, f"{len(same)} of {len(own)}", *(f"{median(r):.2f}" if r else "" for r in ratios)))
    return f"{_COST}{_table(('planner', 'tiers', 'sets that both keep', *PRICES), lines)}"


def _planning_table(rows: Sequence[Row]) -> str:
    everywhere = [row for row in rows if row["scope"] == EVERYWHERE]
    lines = [
        (planner, *(f"{median(row[spent] for row in own):.3g}" for spent in _SPENT))
        for planner, own in _grouped(everywhere, lambda row: row["planner"]).items()
    ]
    return f"{_PLANNING}{_table(('planner', *_SPENT.values()), lines)}"


def _simplified() -> str:
    """Return what each planner says of itself; some share a description."""
    texts = dict.fromkeys(planner.description for planner in BASELINES)
    return "## The other planners\n\n" + "\n".join(texts)


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _load(row: Row) -> float:
    return float(row["contest"].split("load ")[1].split(",")[0])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float) -> str:
    return f"{value:.3g}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw goodput over load with all tiers, the share of the offered weight in the median over workloads.

    Args:
        rows: of the result file.
        path: of the SVG file, which is reproducible.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    everywhere = [row for row in rows if row["scope"] == EVERYWHERE]
    loads = sorted({_load(row) for row in everywhere})

    def curve(own: Sequence[Row], of: str) -> list[float]:
        return [100 * median(row[of] / row["offered"] for row in own if _load(row) == load) for load in loads]

    for planner, own in _grouped(everywhere, lambda row: row["planner"]).items():
        is_ours = planner == OURS.name
        axes.plot(loads, curve(own, "goodput"), marker="o", ms=4, lw=3 if is_ours else 1.2, label=planner,
                  color="tab:blue" if is_ours else None)  # fmt: skip
        if is_ours:
            axes.plot(loads, curve(own, "bound"), ls="--", color="0.5", lw=1.0, label="certified bound")
    axes.set(xscale="log", xlabel="load, as a multiple of what all tiers can serve", ylabel="goodput (% of the weight)")
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small", ncols=2)
    with matplotlib.rc_context({"svg.hashsalt": "circinus"}):
        unfinished = path.with_suffix(".tmp")
        figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


def write_page(result: Path) -> None:
    """Write the page and its plot from a result file."""
    document = json.loads(result.read_text(encoding="utf-8"))
    write_whole(PAGE, page(document))
    draw(document["rows"], PLOT)
