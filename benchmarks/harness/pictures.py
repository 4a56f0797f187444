"""Files of plots, equal for equal plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_svg(figure: Figure, path: Path) -> None:
    """Write a plot without its date, and with the same names of its parts each time."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "circinus"}):
        unfinished = path.with_suffix(".tmp")
        figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)
