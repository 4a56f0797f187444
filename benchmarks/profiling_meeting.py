"""The meeting pipeline: everything measured on real models once, and what the profiler would have measured of it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.results import Figure
from circinus.matching import Matching, plan_all
from circinus.profiling import (
    PipelineProfile,
    SimulatedClock,
    TraceSource,
    load_profile,
    profile_pipeline,
    record_trace,
)
from circinus.reporting.progress import profile_bar
from circinus.spec import Specification
from circinus.spec.document import load_specification
from circinus.spec.spoken import duration

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "meeting"
PIPELINE = "meeting"


def meeting(state: Path, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Seconds from nothing to settled verdicts over those of everything, and whether the plans are the same.

    The models really run on every item under every configuration, once; a store that has that already is gone on
    with. Both ways of profiling then count the very same recorded seconds, so that no noise of the machine is between
    them.
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
    trace = record_trace(specification, PIPELINE, store)
    with tempfile.TemporaryDirectory(prefix="circinus-meeting-") as folder:
        all_s, whole = _profiled(specification, TraceSource(trace, clock := SimulatedClock()), clock, folder, True)
        our_s, ours = _profiled(specification, TraceSource(trace, clock := SimulatedClock()), clock, folder, False)
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
        console.print(f"{row['way']}: {duration(row['seconds'])}, {row['items']} items", highlight=False)
    note = f"{duration(all_s)} with shared beginnings, {duration(naive_s)} without; recorded seconds of one real run"
    return [
        Figure("meeting: everything over settled", all_s / our_s, 10.0, "higher", "times", note),
        Figure("meeting: everything without shared beginnings over settled", naive_s / our_s, None, "higher", "times",
               "what a profiler without a prefix cache takes"),
        Figure("meeting: time to settled verdicts", our_s, None, "lower", "s", "recorded seconds, one core"),
        Figure("meeting: chosen configurations that are the same", same / max(len(full_plans), 1), 1.0, "higher",
               "share", f"{same} of {len(full_plans)} queries; total cost "
               f"{plan_all_cost(specification, ours):.4g} against {plan_all_cost(specification, whole):.4g} $/h"),
    ], rows  # fmt: skip


def _profiled(
    specification: Specification, source: TraceSource, clock: SimulatedClock, folder: str, exhaustive: bool
) -> tuple[float, PipelineProfile]:
    """(recorded seconds, profile) from nothing."""
    store = Path(folder) / f"{'everything' if exhaustive else 'settled'}.sqlite"
    began_s = clock()
    profile_pipeline(specification, PIPELINE, store, source=source, exhaustive=exhaustive)
    return clock() - began_s, load_profile(specification, PIPELINE, store, source=source, judged=True)


def _matching(specification: Specification, profile: PipelineProfile) -> Matching:
    return plan_all(specification, {PIPELINE: profile})[0]


def _plans(specification: Specification, profile: PipelineProfile) -> dict[str, str]:
    """Query -> the configuration chosen for it, or why there is none."""
    matching = _matching(specification, profile)
    chosen = {a.query: str(a.chosen.plan.configuration) for a in matching.assignments}
    return chosen | {rejection.query: "not served" for rejection in matching.rejections}


def plan_all_cost(specification: Specification, profile: PipelineProfile) -> float:
    """US dollars per hour of all plans."""
    return _matching(specification, profile).cost_usd_per_h


def _items(profile: PipelineProfile) -> int:
    return sum(len(c.items) for c in profile.configurations)
