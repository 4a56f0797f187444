"""What serving adds, and how it changes: `make bench-serving`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks.control.bursts import bursts
from benchmarks.control.crash_recovery import kills
from benchmarks.control.drift import DriftOptions, drifts
from benchmarks.control.drift_false_alarms import QuietOptions, false_alarms
from benchmarks.control.simulated_day import DayOptions, day
from benchmarks.harness.checkpoints import KeptPart
from benchmarks.harness.results import Figure, print_figures, write_results
from benchmarks.serving.engine_overhead import HopOptions, hops
from benchmarks.serving.node_loss import lost_nodes
from benchmarks.serving.plan_changes import changes
from benchmarks.workloads.burst_shop import Scene, prepared
from benchmarks.workloads.drifting_till import prepared as drift_prepared
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder
from circinus.specification.formatting import format_duration

ROOT = Path(__file__).parent.parent.parent
PARTS = ("hops", "changes", "bursts", "kills", "lost-node", "drift", "day")

Found = tuple[list[Figure], list[dict[str, Any]]]


def main() -> None:
    """Run all parts, or some; those that have ended are kept, so that a run which was broken off goes on."""
    chosen = _options()
    console, began_s, wall_s = Console(), perf_counter(), 0.0
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    options = {name: value for name, value in vars(chosen).items() if name not in ("state", "without")}
    with tempfile.TemporaryDirectory(prefix="circinus-serving-") as folder:
        scene = cache(lambda: prepared(Path(folder)))
        for name, part in _parts(chosen, scene, console).items():
            if name in chosen.without:
                continue
            console.rule(name)
            kept = KeptPart.of(chosen.state, f"serving-{name}", options)
            try:
                more, more_rows = kept.run(part)
            except TracesAbsentError as error:
                console.print(f"skipped: {error}", style="yellow")
                continue
            figures, rows, wall_s = [*figures, *more], [*rows, *more_rows], wall_s + kept.wall_s
            write_results("serving", figures=figures, rows=rows, seeds=[chosen.seed], wall_s=wall_s)
    print_figures(figures, console)
    console.print(
        f"benchmarks/results/serving.json written in {format_duration(perf_counter() - began_s)}", highlight=False
    )


def _parts(chosen: argparse.Namespace, scene: Callable[[], Scene], console: Console) -> dict[str, Callable[[], Found]]:
    return {
        "hops": lambda: hops(HopOptions(chosen.requests, chosen.repeats), console),
        "changes": lambda: changes(chosen.repeats, console),
        "bursts": lambda: bursts(scene(), chosen.repeats, console),
        "kills": lambda: kills(scene(), chosen.kills, chosen.seed, console),
        "lost-node": lambda: lost_nodes(chosen.repeats, console),
        "drift": lambda: _drift(chosen, console),
        "day": lambda: day(DayOptions(traces_folder(), seed=chosen.seed), console),
    }


def _drift(chosen: argparse.Namespace, console: Console) -> Found:
    """What moves, and for long what does not."""
    with tempfile.TemporaryDirectory(prefix="circinus-drift-") as folder:
        scene = drift_prepared(Path(folder))
        figures, rows = drifts(scene, DriftOptions(repeats=chosen.drifts, seed=chosen.seed), console)
        quiet = QuietOptions(chosen.quiet_days, chosen.quiet_hours, chosen.seed)
        more, more_rows = false_alarms(scene.opened, quiet, console)
    return [*figures, *more], [*rows, *more_rows]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.main", description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="one by one, of every way to run the pipeline")
    parser.add_argument("--repeats", type=int, default=3, help="of everything, of which medians are given")
    parser.add_argument("--kills", type=int, default=20, help="of controllers, and of replicas")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which they are killed, and of drift")
    parser.add_argument(
        "--drifts", type=int, default=1, help="of data, and of operators; three and a half minutes together"
    )
    parser.add_argument("--quiet-days", type=float, default=100.0, help="simulated, in which nothing moves")
    parser.add_argument("--quiet-hours", type=float, default=2.0, help="simulated with the whole controller")
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "serving", help="for parts that ended")
    parser.add_argument(
        "--without", nargs="*", default=(), choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
