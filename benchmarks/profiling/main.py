"""How little the profiler measures, and whether what it says is true: `make bench-profiling`.

Statistics on the published speech trace (25 configurations, 6,400 recordings) by the profiler's own decisions; the
same with 1, 10 and 100 queries; how often sequences and an ordinary interval miss under continuous peeking; profiling
that is killed again and again; and the meeting pipeline, whose real models are measured on everything once, against
what the profiler would have measured of that.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.baselines.fixed_size_sampling import sizes_by_normal_intervals, sizes_with_known_margins
from benchmarks.harness.results import Figure, print_figures, write_results
from benchmarks.profiling.coverage import coverage
from benchmarks.profiling.crash_recovery import kills
from benchmarks.profiling.meeting import meeting
from benchmarks.profiling.simulated_runs import RISK, Outcome, Population, Variant, simulate
from benchmarks.workloads.published.speech import SpeechTrace, TracesAbsentError, read_speech_trace, traces_folder

ROOT = Path(__file__).parent.parent.parent
ITEMS = 6_400
AUTHORS_ITEMS = 300
"""A configuration, by the trace's authors."""
THRESHOLDS = tuple(np.linspace(0.35, 0.85, 6).tolist())
MASK_WIDTHS = (500,)
"""One choice of the dead knob, so that the 25 configurations are distinct."""
WATCHED = (500, 937, 2_000, 5_000)

ALL = Variant("all of it")
ABLATIONS = (
    Variant("without strata", strata=False),
    Variant("without pairing", pairing=False),
    Variant("without pruning", pruning=False, pairing=False),
    Variant("without strata, pairing, pruning", strata=False, pruning=False, pairing=False),
    Variant("with a partner measured on everything", partner=8),
)


Part = tuple[list[Figure], list[dict[str, Any]]]


@dataclass(frozen=True)
class Job:
    """One simulated run."""

    variant: Variant
    thresholds: tuple[float, ...]
    seed: int
    items: int = ITEMS


def main() -> None:
    """Run all parts that this machine can, print tables, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling.main", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="runs of each statistic")
    parser.add_argument("--ablation-seeds", type=int, default=50, help="runs of each ablation")
    parser.add_argument("--coverage-runs", type=int, default=600, help="orders of each population")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "profiling", help="folder of the real store")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    console, began = Console(), perf_counter()
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    parts: tuple[Callable[[], Part], ...] = (
        lambda: trace_part(chosen.seeds, chosen.ablation_seeds, chosen.jobs, console),
        lambda: queries_part(chosen.ablation_seeds, chosen.jobs, console),
        lambda: coverage(chosen.coverage_runs, console),
        lambda: kills(chosen.kills, console),
        lambda: meeting(chosen.state, console),
    )
    for part in parts:
        try:
            found, listed = part()
        except TracesAbsentError as error:
            console.print(f"skipped: {error}", style="yellow")
            continue
        figures += found
        rows += listed
    print_figures(figures, console)
    path = write_results(
        "profiling", figures=figures, rows=rows, seeds=[0, chosen.seeds - 1], wall_s=perf_counter() - began
    )
    console.print(f"written to {path.relative_to(ROOT)}", highlight=False)


def trace_part(seeds: int, ablation_seeds: int, jobs: int, console: Console) -> Part:
    """Items until all is decided, what each means saves, and against fixed sampling."""
    speech = _speech()
    outcomes = {ALL: _simulated([Job(ALL, THRESHOLDS, seed) for seed in range(seeds)], jobs, "speech trace")}
    for variant in ABLATIONS:
        outcomes[variant] = _simulated(
            [Job(variant, THRESHOLDS, seed) for seed in range(ablation_seeds)], jobs, variant.name
        )
    means = speech.trace.scores.mean(axis=1)
    fixed = float(sizes_with_known_margins(means, np.array(THRESHOLDS), ITEMS, RISK).sum())
    normal = float(sizes_by_normal_intervals(speech.trace.scores, np.array(THRESHOLDS), RISK).sum())
    rows = [_row(variant, found) for variant, found in outcomes.items()]
    _print(rows, console)
    ours, authors = outcomes[ALL], AUTHORS_ITEMS * len(means)
    settled, until_right = _median([o.items for o in ours]), _median([o.items_until_right for o in ours])
    right_at = {at: float(np.mean([o.right_after[at] for o in ours])) for at in WATCHED}
    return [
        Figure("whole runs with a wrong verdict", _share(o.wrong for o in ours), RISK, "lower", "share",
               f"{sum(o.wrong for o in ours)} of {len(ours)} runs; the rate promised"),
        Figure("(a) items until all is settled, median", settled, None, "lower", "items"),
        Figure("(a) fixed sampling with margins known over that", fixed / settled, 5.0, "higher", "times",
               f"{fixed:.0f} items, Hoeffding-Serfling"),
        Figure("(a) normal intervals, margins and variances known, over that", normal / settled, None, "higher",
               "times", f"{normal:.0f} items; without a guarantee"),
        Figure("(b) items until the recommended plans are right, median", until_right,
               None, "lower", "items", "all six thresholds, and from then on"),
        Figure("(b) the authors' items over that", authors / until_right, 8.0, "higher",
               "times", f"{authors} items"),
        Figure("(b) runs that end with the right plan everywhere", _share(bool(o.right.all()) for o in ours), 0.95,
               "higher", "share"),
        *(
            Figure(f"(b) recommended plans right after {at} items", share, None, "higher", "share",
                   "an eighth of the authors' items" if at == 937 else "")
            for at, share in right_at.items()
        ),
    ], rows  # fmt: skip


def queries_part(seeds: int, jobs: int, console: Console) -> Part:
    """What 10 and 100 queries cost over one."""
    low, high = 0.34, 0.95
    seconds: dict[int, list[float]] = {}
    for count in (1, 10, 100):
        thresholds = [
            tuple(sorted(np.random.default_rng(1000 + seed).uniform(low, high, 100)[:count].tolist()))
            for seed in range(seeds)
        ]
        found = _simulated(
            [Job(ALL, asked, seed, 1_000) for seed, asked in enumerate(thresholds)], jobs, f"{count} queries"
        )
        seconds[count] = [outcome.seconds for outcome in found]
    mean_s = {count: float(np.mean(found)) for count, found in seconds.items()}
    rows: list[dict[str, Any]] = [
        {"part": "queries", "queries": count, "profiled_s": found, "over_one": found / mean_s[1]}
        for count, found in mean_s.items()
    ]
    _print(rows, console)
    note = f"mean of {seeds} runs, {1000} items, thresholds at random"
    return [
        Figure("profiling for 10 queries over one", mean_s[10] / mean_s[1], None, "lower", "times", note),
        Figure("profiling for 100 queries over one", mean_s[100] / mean_s[1], 1.5, "lower", "times", note),
        Figure(
            "100 runs for one query each over one for all", 100 * mean_s[1] / mean_s[100], None, "higher", "times", note
        ),
    ], rows


def _simulated(jobs: Sequence[Job], processes: int, what: str) -> list[Outcome]:
    with ProcessPoolExecutor(processes) as pool:
        return list(track(pool.map(_run, jobs), what, total=len(jobs)))


def _run(job: Job) -> Outcome:
    speech = _speech()
    population = Population.draw(speech.trace, job.items, np.random.default_rng(job.seed))
    return simulate(speech.trace, speech.pipeline.metric, job.thresholds, job.variant, population, watched=WATCHED)


@cache
def _speech() -> SpeechTrace:
    return read_speech_trace(traces_folder(), mask_widths=MASK_WIDTHS)


def _row(variant: Variant, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "part": "speech trace",
        "variant": variant.name,
        "runs": len(outcomes),
        "items_median": _median([o.items for o in outcomes]),
        "profiled_s_median": _median([o.seconds for o in outcomes]),
        "wrong_runs": sum(o.wrong for o in outcomes),
        "right_at_the_end": _share(bool(o.right.all()) for o in outcomes),
        "items_until_right_median": _median([o.items_until_right for o in outcomes]),
    }


def _print(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _share(found: Any) -> float:
    return float(np.mean(list(found)))


if __name__ == "__main__":
    main()
