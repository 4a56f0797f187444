"""Many queries matched by prices, against what else chooses for them: `make bench-matching`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks.harness.checkpoints import KeptPart
from benchmarks.harness.results import Figure, print_figures, write_results
from benchmarks.matching.goodput_over_load import SEEDS, load_curve
from benchmarks.matching.online_admission import RUNNING, online
from benchmarks.matching.scaling import SIZES, sizes
from benchmarks.workloads.published.speech import TracesAbsentError
from benchmarks.workloads.random.small_matchings import equal_share
from circinus.specification.formatting import format_duration

ROOT = Path(__file__).parent.parent.parent
Part = tuple[list[Figure], list[dict[str, Any]]]


def main() -> None:
    """Run all parts, print tables, write the results; a part that has ended is kept for the same code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching.main", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="queries of the largest matching")
    parser.add_argument("--small", type=int, default=3_000, help="small matchings that are compared with all answers")
    parser.add_argument("--load-seeds", type=int, default=SEEDS, help="seeds of goodput over load")
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "matching")
    chosen = parser.parse_args()
    console, began_s = Console(), perf_counter()
    running, load_seeds = min(RUNNING, chosen.largest), chosen.load_seeds
    parts: dict[str, tuple[dict[str, Any], Callable[[], Part]]] = {
        "small": ({"count": chosen.small}, lambda: _small(chosen.small)),
        "sizes": (
            {"seeds": chosen.seeds, "largest": chosen.largest},
            lambda: sizes(range(chosen.seeds), chosen.largest, console),
        ),
        "online": ({"running": running}, lambda: online(running, console)),
        "load": ({"seeds": load_seeds}, lambda: load_curve(range(load_seeds), console)),
    }
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    wall_s = 0.0
    for name, (options, part) in parts.items():
        kept = KeptPart.of(chosen.state, f"matching-{name}", options)
        try:
            found, listed = kept.run(part)
        except TracesAbsentError as error:
            console.print(f"skipped: {error}", style="yellow")
            continue
        figures, rows, wall_s = [*figures, *found], [*rows, *listed], wall_s + kept.wall_s
        path = write_results("matching", figures=figures, rows=rows, seeds=[0, chosen.seeds - 1], wall_s=wall_s)
    print_figures(figures, console)
    console.print(
        f"written to {path.relative_to(ROOT)} in {format_duration(perf_counter() - began_s)}", highlight=False
    )


def _small(count: int) -> Part:
    share = equal_share(range(count))
    note = f"of {count:,} random ones, in weight and in cost"
    return [Figure("small matchings equal to the best of all answers", share, 1.0, "higher", "share", note)], []


if __name__ == "__main__":
    main()
