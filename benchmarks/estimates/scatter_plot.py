"""Scatter plot of predicted over measured latencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.estimates.error_figures import NEAR
from benchmarks.harness.pictures import save_svg

_SHOWN = ("measured_p95_s", "predicted_p95_s", "without_queueing_p95_s", "corrected_p95_s")


def draw_scatter(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw p95 as predicted over p95 as measured, on logarithmic axes, one point for each plan and level.

    Args:
        rows: rows of `real_part`; rows without a measured percentile are left out.
        path: path of the SVG file, which is reproducible.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    axes = figure.subplots()
    measured = [row for row in rows if row["measured_p95_s"] is not None]
    shown = [row[name] for row in measured for name in _SHOWN if row.get(name)]
    ends = (min(shown) * 0.8, max(shown) * 1.25)
    axes.fill_between(ends, [s * (1 - NEAR) for s in ends], [s * (1 + NEAR) for s in ends], color="0.9", lw=0,
                      label=f"within {NEAR:.0%}")  # fmt: skip
    axes.plot(ends, ends, color="0.6", lw=0.8)
    kinds = (
        ("replay", "without_queueing_p95_s", "x", "tab:orange", "without queueing"),
        ("replay", "predicted_p95_s", "o", "tab:blue", "Circinus"),
        ("computing", "predicted_p95_s", "s", "tab:green", "Circinus, replicas compute"),
        ("computing", "corrected_p95_s", "D", "tab:red", "the same, corrected"),
    )
    for part, predicted, marker, color, label in kinds:
        points = [(r["measured_p95_s"], r[predicted]) for r in measured if r["part"] == part and r[predicted]]
        if points:
            observed, expected = zip(*points, strict=True)
            axes.scatter(observed, expected, s=18, marker=marker, color=color, lw=1.0, alpha=0.8, label=label)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set(xlabel="measured p95 (s)", ylabel="predicted p95 (s)", title="Predicted over observed latency")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper left", frameon=False, fontsize="small")
    save_svg(figure, path)
