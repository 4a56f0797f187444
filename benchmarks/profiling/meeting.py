"""Profiling of the meeting pipeline, replayed on a complete measurement of its real models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.matching import Matching, plan_all_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import (
    MeasurementTrace,
    PipelineProfile,
    SimulatedClock,
    TraceBackend,
    export_trace,
    load_profile,
    profile_pipeline,
)
from circinus.reporting.progress import profile_bar
from circinus.specification import Query, Slos, Specification
from circinus.specification.formatting import format_duration
from circinus.specification.loader import load_specification

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "meeting"
PIPELINE = "meeting"
QUERIES = {1: 8, 10: 3, 100: 1}
"""Number of runs per number of queries on the pipeline."""
ACCURACIES = (0.75, 0.92)
LIMITS_S = (0.6, 6.0)
"""Range of random latency limits."""


def meeting(state: Path, console: Console) -> PartResult:
    """Compare profiling until verdicts are settled with measuring everything: seconds and chosen plans.

    The models run once on every item under every configuration, unless the store in `state` already has the
    measurements. Both ways of profiling then count the same recorded seconds, without noise of the machine.
    """
    specification = load_specification([EXAMPLE])
    queries = tuple(query for query in specification.queries if query.pipeline == PIPELINE)
    specification = replace(specification, queries=queries)
    state.mkdir(parents=True, exist_ok=True)
    store = state / "meeting.sqlite"
    with profile_bar(console, "everything") as bar:
        everything = profile_pipeline(specification, PIPELINE, store, exhaustive=True, observer=bar)
    if everything.interrupted:
        raise KeyboardInterrupt
    trace = export_trace(specification, PIPELINE, store)
    with tempfile.TemporaryDirectory(prefix="circinus-meeting-") as folder:
        all_s, whole = _profiled(specification, TraceBackend(trace, clock := SimulatedClock()), clock, folder, True)
        our_s, ours = _profiled(specification, TraceBackend(trace, clock := SimulatedClock()), clock, folder, False)
    plans, full_plans = _plans(specification, ours), _plans(specification, whole)
    same = sum(plans[name] == full_plans[name] for name in full_plans)
    naive_s = sum(
        float(operator.service_s.sum()) for c in everything.configurations for operator in c.operators.values()
    )
    rows: list[dict[str, Any]] = [
        {"part": "meeting", "way": "until settled", "seconds": our_s, "items": _items(ours)},
        {"part": "meeting", "way": "everything", "seconds": all_s, "items": _items(whole)},
        {"part": "meeting", "way": "everything, no shared beginnings", "seconds": naive_s, "items": _items(whole)},
    ]
    for row in rows:
        console.print(f"{row['way']}: {format_duration(row['seconds'])}, {row['items']} items", highlight=False)
    note = (
        f"{format_duration(all_s)} with shared prefixes, {format_duration(naive_s)} without; "
        "recorded seconds of one real run"
    )
    return [
        Figure("meeting: everything over settled", all_s / our_s, 10.0, "higher", "times", note),
        Figure("meeting: everything without shared beginnings over settled", naive_s / our_s, None, "higher", "times",
               "what a profiler without a prefix cache takes"),
        Figure("meeting: time to settled verdicts", our_s, None, "lower", "s", "recorded seconds, one core"),
        Figure("meeting: chosen configurations that are the same", same / max(len(full_plans), 1), 1.0, "higher",
               "share", f"{same} of {len(full_plans)} queries; total cost "
               f"{plan_all_cost(specification, ours):.4g} against {plan_all_cost(specification, whole):.4g} $/h"),
        *_queries_figures(specification, trace, rows),
    ], rows  # fmt: skip


def _queries_figures(specification: Specification, trace: MeasurementTrace, rows: list[dict[str, Any]]) -> list[Figure]:
    """Return the cost of profiling for 10 and 100 queries with random SLOs, relative to one."""
    mean_s: dict[int, float] = {}
    for count, seeds in QUERIES.items():
        seconds = []
        for seed in range(seeds):
            queries = queries_at_random(specification.queries, np.random.default_rng(seed), count)
            drawn = replace(specification, queries=queries)
            with tempfile.TemporaryDirectory(prefix="circinus-meeting-") as folder:
                clock = SimulatedClock()
                seconds.append(_profiled(drawn, TraceBackend(trace, clock), clock, folder, False)[0])
        mean_s[count] = float(np.mean(seconds))
        rows.append({"part": "meeting queries", "queries": count, "runs": seeds, "seconds": mean_s[count]})
    note = f"means of {', '.join(f'{seeds} runs for {count}' for count, seeds in QUERIES.items())}; random SLOs"
    return [
        Figure(f"meeting: profiling for {count} queries over one", mean_s[count] / mean_s[1],
               1.5 if count == 100 else None, "lower", "times", note)
        for count in QUERIES if count > 1
    ]  # fmt: skip


def queries_at_random(like: Sequence[Query], rng: np.random.Generator, count: int) -> tuple[Query, ...]:
    """Return queries with the sources and rates of existing ones and random latency and accuracy SLOs."""
    queries = []
    for number in range(count):
        accuracy, limit_s = rng.uniform(*ACCURACIES), np.exp(rng.uniform(*np.log(LIMITS_S)))
        slos = Slos.parse([f"latency p95 <= {limit_s:.3f}s", f"accuracy >= {accuracy:.3f}"])
        model = like[int(rng.integers(len(like)))]
        queries.append(model.model_copy(update={"name": f"q{number}", "slos": slos}))
    return tuple(queries)


def _profiled(
    specification: Specification, source: TraceBackend, clock: SimulatedClock, folder: str, exhaustive: bool
) -> tuple[float, PipelineProfile]:
    """Profile from an empty store; return recorded seconds and the profile."""
    store = Path(folder) / f"{'everything' if exhaustive else 'settled'}.sqlite"
    began_s = clock()
    explorer = None if exhaustive else make_sampler(specification, PIPELINE)
    profile_pipeline(specification, PIPELINE, store, source=source, exhaustive=exhaustive, explorer=explorer)
    return clock() - began_s, load_profile(specification, PIPELINE, store, source=source, with_verdicts=True)


def _matching(specification: Specification, profile: PipelineProfile) -> Matching:
    return plan_all_queries(specification, {PIPELINE: profile})[0]


def _plans(specification: Specification, profile: PipelineProfile) -> dict[str, str]:
    """Return the chosen configuration per query, or `not served`."""
    matching = _matching(specification, profile)
    chosen = {a.query: str(a.chosen.plan.configuration) for a in matching.assignments}
    return chosen | {rejection.query: "not served" for rejection in matching.rejections}


def plan_all_cost(specification: Specification, profile: PipelineProfile) -> float:
    """Return the cost of all plans in US dollars per hour."""
    return _matching(specification, profile).cost_usd_per_h


def _items(profile: PipelineProfile) -> int:
    return sum(len(c.items) for c in profile.configurations)
