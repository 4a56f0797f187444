"""Plot of what the cascade of the driving example wins over each of its readers."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from benchmarks.fanout.driving import by_reader, frontier
from benchmarks.harness.benchmark import Rows
from benchmarks.harness.pictures import save_svg

_STYLES = {"cascade": ("o", "tab:blue"), "small alone": ("s", "tab:orange"), "large alone": ("D", "tab:red")}


def draw_frontiers(rows: Rows, file: Path, console: Console) -> None:
    """Draw accuracy over seconds a clip: all configurations, and the frontiers of the cascade and of each reader."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, own in by_reader(rows).items():
        marker, color = _STYLES[name]
        axes.scatter([r["seconds"] for r in own], [r["accuracy"] for r in own], s=14, marker=marker, color=color,
                     alpha=0.35, lw=0)  # fmt: skip
        seconds, accuracy = zip(*frontier(own), strict=True)
        axes.step(seconds, accuracy, where="post", marker=marker, ms=5, color=color, label=name)
    axes.set(xlabel="processing a clip (s)", ylabel="F1 of read plates", title="Cascade and each of its readers alone")
    axes.legend(loc="lower right", frameon=False, fontsize="small")
    picture = file.with_suffix(".svg")
    save_svg(figure, picture)
    console.print(f"{picture}", highlight=False, soft_wrap=True)
