"""Plot of the evaluation: goodput of each contest, and over load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.goodput import EVERYWHERE, OURS
from benchmarks.evaluation.outcomes import grouped
from benchmarks.harness.pictures import save_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
_OTHERS = 2
"""Number of the other planners in each contest, the best ones."""
_LINES = 4
"""Number of the other planners over load, those that keep most at the greatest."""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw goodput with all tiers, as a share of the offered weight: of each contest, and over load.

    Args:
        rows: of the part `goodput`.
        path: of the SVG file, which is reproducible.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["scope"] == EVERYWHERE]
    figure = Figure(figsize=(12.0, 7.5), layout="constrained")
    by_contest, over_load = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_contests(by_contest, rows)
    _draw_loads(over_load, [row for row in rows if row["tightness"] == "mixed"])
    save_svg(figure, path)


def _draw_contests(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a group of bars for each contest: the product, and the best of the others."""
    contests = sorted(grouped(rows, lambda row: row["contest"]).items(), reverse=True)
    signs = []
    for position, (_, own) in enumerate(contests):
        ours = next(row for row in own if row["planner"] == OURS.name)
        others = sorted((row for row in own if row is not ours), key=lambda row: -row["goodput"])[:_OTHERS]
        for shift, row, color in zip((0.28, 0.0, -0.28), (ours, *others), ("C0", "0.72", "0.86"), strict=False):
            share = 100 * row["goodput"] / row["offered"]
            axes.barh(position + shift, share, height=0.27, color=color)
            label = f"{row['planner']} {share:.0f}"
            axes.text(1, position + shift, label, va="center", fontsize=7.5, color="w" if row is ours else "k")
        best = max((row["goodput"] for row in others), default=0.0)
        signs.append((ours["goodput"] > best) - (ours["goodput"] < best))
        bound = 100 * max(ours["bound"], ours["goodput"], best) / ours["offered"]
        axes.plot([bound, bound], [position - 0.43, position + 0.43], color="0.2", lw=1.2, ls=":")
    axes.set_yticks(range(len(contests)), [name for name, _ in contests])
    axes.set(
        xlim=(0, 100), xlabel="goodput, % of the offered weight (dotted: certified bound, or most that anyone kept)"
    )
    ahead, level, behind = (signs.count(sign) for sign in (1, 0, -1))
    axes.set_title(f"{OURS.name} and the best of the others: ahead in {ahead}, level in {level}, behind in {behind}")


def _draw_loads(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw goodput over load of the workload with most loads: the product, and the best of the others."""
    by_workload = grouped(rows, lambda row: row["workload"])
    shown = max(by_workload, key=lambda name: len({row["load"] for row in by_workload[name]}))
    by_planner = {
        planner: sorted(own, key=lambda row: row["load"])
        for planner, own in grouped(by_workload[shown], lambda row: row["planner"]).items()
    }
    best = sorted((name for name in by_planner if name != OURS.name), key=lambda name: -by_planner[name][-1]["goodput"])
    loads = [row["load"] for row in by_planner[OURS.name]]
    for number, planner in enumerate((OURS.name, *best[:_LINES])):
        own, is_ours = by_planner[planner], planner == OURS.name
        axes.plot(loads, [100 * row["goodput"] / row["offered"] for row in own], marker="o",
                  lw=3.5 if is_ours else 1.8, label=planner, color=f"C{number}",
                  zorder=3 if is_ours else 2)  # fmt: skip
    axes.set(xscale="log", xlabel="load (1: all tiers can just serve it)", ylabel="goodput, % of the offered weight")
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title(f"workload {shown}, the best of the others")
    axes.legend(frameon=False)
