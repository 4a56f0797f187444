"""Number of items that profiling measures, and correctness of its verdicts.

Parts: simulated profiling runs on the published speech trace (25 configurations, 6,400 recordings), for one set of
thresholds and for 1, 10 and 100 queries; miss rates of confidence sequences and of an ordinary interval under
continuous monitoring; crash recovery; and the meeting pipeline, whose models run once on everything, compared with the
part of it that profiling would have measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.baselines.fixed_size_sampling import sizes_by_normal_intervals, sizes_with_known_margins
from benchmarks.harness.benchmark import Benchmark, Option, Part, PartResult, Rows
from benchmarks.harness.results import Figure, records_table
from benchmarks.profiling.coverage import coverage
from benchmarks.profiling.crash_recovery import kills
from benchmarks.profiling.meeting import meeting
from benchmarks.profiling.simulated_runs import RISK, Outcome, Population, Variant, simulate
from benchmarks.workloads.published.speech import SpeechTrace, read_speech_trace, traces_folder

ITEMS = 6_400
AUTHORS_ITEMS = 300
"""Number of items per configuration that the authors of the trace measured."""
THRESHOLDS = tuple(np.linspace(0.35, 0.85, 6).tolist())
MASK_WIDTHS = (500,)
"""A single choice of the knob without effect, so that the 25 configurations are distinct."""
WATCHED = (500, 937, 2_000, 5_000)

ALL = Variant("all of it")
ABLATIONS = (
    Variant("without strata", strata=False),
    Variant("without pairing", pairing=False),
    Variant("without pruning", pruning=False, pairing=False),
    Variant("without strata, pairing, pruning", strata=False, pruning=False, pairing=False),
    Variant("with a partner measured on everything", partner=8),
)


@dataclass(frozen=True)
class Job:
    """Simulated profiling run."""

    variant: Variant
    thresholds: tuple[float, ...]
    seed: int
    items: int = ITEMS


def trace_part(seeds: int, ablation_seeds: int, jobs: int, console: Console) -> PartResult:
    """Simulate the items until all is decided, with ablations, and compare with fixed sampling."""
    speech = _speech()
    outcomes = {ALL: _simulated([Job(ALL, THRESHOLDS, seed) for seed in range(seeds)], jobs, "speech trace")}
    for variant in ABLATIONS:
        outcomes[variant] = _simulated(
            [Job(variant, THRESHOLDS, seed) for seed in range(ablation_seeds)], jobs, variant.name
        )
    means = speech.trace.scores.mean(axis=1)
    fixed = float(sizes_with_known_margins(means, np.array(THRESHOLDS), ITEMS, RISK).sum())
    normal = float(sizes_by_normal_intervals(speech.trace.scores, np.array(THRESHOLDS), RISK).sum())
    rows = [_row(variant, runs) for variant, runs in outcomes.items()]
    console.print(records_table(rows))
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


def queries_part(seeds: int, jobs: int, console: Console) -> PartResult:
    """Simulate profiling for 10 and 100 queries, relative to one."""
    low, high = 0.34, 0.95
    seconds: dict[int, list[float]] = {}
    for count in (1, 10, 100):
        thresholds = [
            tuple(sorted(np.random.default_rng(1000 + seed).uniform(low, high, 100)[:count].tolist()))
            for seed in range(seeds)
        ]
        jobs_of_count = [Job(ALL, drawn, seed, 1_000) for seed, drawn in enumerate(thresholds)]
        seconds[count] = [outcome.seconds for outcome in _simulated(jobs_of_count, jobs, f"{count} queries")]
    mean_s = {count: float(np.mean(runs)) for count, runs in seconds.items()}
    rows: Rows = [
        {"part": "queries", "queries": count, "profiled_s": mean, "over_one": mean / mean_s[1]}
        for count, mean in mean_s.items()
    ]
    console.print(records_table(rows))
    note = f"mean of {seeds} runs, {1000} items, thresholds at random"
    return [
        Figure("profiling for 10 queries over one", mean_s[10] / mean_s[1], None, "lower", "times", note),
        Figure("profiling for 100 queries over one", mean_s[100] / mean_s[1], 1.5, "lower", "times", note),
        Figure(
            "100 runs for one query each over one for all", 100 * mean_s[1] / mean_s[100], None, "higher", "times", note
        ),
    ], rows


def _simulated(jobs: Sequence[Job], processes: int, title: str) -> list[Outcome]:
    with ProcessPoolExecutor(processes) as pool:
        return list(track(pool.map(_run, jobs), title, total=len(jobs)))


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


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _share(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


BENCHMARK = Benchmark(
    options=(
        Option("seeds", 200, "runs of each statistic", quick=4),
        Option("ablation_seeds", 50, "runs of each ablation", quick=1),
        Option("coverage_runs", 600, "orders of each population", quick=40),
        Option("kills", 50, "number of killed profiling runs", quick=4),
        Option("jobs", os.cpu_count() or 1, "number of processes"),
    ),
    parts=(
        Part(
            "trace",
            lambda o, console: trace_part(o.seeds, o.ablation_seeds, o.jobs, console),
            ("seeds", "ablation_seeds"),
        ),
        Part("queries", lambda o, console: queries_part(o.ablation_seeds, o.jobs, console), ("ablation_seeds",)),
        Part("coverage", lambda o, console: coverage(o.coverage_runs, console), ("coverage_runs",)),
        Part("kills", lambda o, console: kills(o.kills, console), ("kills",)),
        Part("meeting", lambda o, console: meeting(o.state, console), quick=False),
    ),
)
