"""What serving adds, and how it changes: `make bench-serving`."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

from rich.console import Console

from benchmarks.results import print_figures, write_results
from benchmarks.serving_changes import changes
from benchmarks.serving_hops import HopOptions, hops
from circinus.spec.spoken import duration

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="one by one, of every way to run the pipeline")
    parser.add_argument("--repeats", type=int, default=3, help="of everything, of which medians are given")
    chosen = parser.parse_args()
    console, began_s = Console(), perf_counter()
    figures, rows = hops(HopOptions(chosen.requests, chosen.repeats), console)
    more, more_rows = changes(chosen.repeats, console)
    figures, rows = [*figures, *more], [*rows, *more_rows]
    print_figures(figures, console)
    wall_s = perf_counter() - began_s
    path = write_results("serving", figures=figures, rows=rows, seeds=[0], wall_s=wall_s)
    console.print(f"written to {path.relative_to(ROOT)} in {duration(wall_s)}", highlight=False)


if __name__ == "__main__":
    main()
