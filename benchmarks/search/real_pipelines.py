"""Frontiers of the real pipelines after exploring, compared with measuring everything, on recorded seconds."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.arrays import FloatArray
from circinus.estimation import PlanCandidate
from circinus.matching import plan_all_queries
from circinus.planning import plan_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import (
    MeasurementTrace,
    PipelineProfile,
    SimulatedClock,
    TraceBackend,
    export_trace,
    profile_pipeline,
)
from circinus.reporting.progress import profile_bar
from circinus.specification import Specification
from circinus.specification.loader import load_specification

ROOT = Path(__file__).parent.parent.parent
NEAR = 1.05
"""Factor of resource usage up to which plans count as equal, and at which exploring stops."""


@dataclass(frozen=True)
class Real:
    """Example with the share of its data that is measured."""

    pipeline: str
    held_out: float | None = None
    """Share of the items that is left out; None: as specified by the example."""


REAL = (Real("meeting"), Real("documents", held_out=0.5))
"""Real pipelines. Documents has 108 configurations of half a second per item, so half of the pages are left out."""


def real(state: Path, console: Console) -> PartResult:
    """Compare both pipelines; their models run once on every item under every configuration.

    Args:
        state: folder of the profile stores, whose measurements are reused.
        console: console of progress bars.
    """
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    for example in REAL:
        more, row = compare(*measured_completely(example, state, console))
        figures += more
        rows.append(row)
    return figures, rows


def measured_completely(example: Real, state: Path, console: Console) -> tuple[Specification, MeasurementTrace]:
    """Return an example with every configuration measured on every item by the real models."""
    specification, store = _specification(example), state / f"{example.pipeline}.sqlite"
    state.mkdir(parents=True, exist_ok=True)
    with profile_bar(console, f"everything of {example.pipeline}") as bar:
        everything = profile_pipeline(specification, example.pipeline, store, exhaustive=True, observer=bar)
    if everything.interrupted:
        raise KeyboardInterrupt
    return specification, export_trace(specification, example.pipeline, store)


def compare(specification: Specification, trace: MeasurementTrace) -> tuple[list[Figure], dict[str, Any]]:
    """Compare exploring a recorded pipeline with measuring everything: frontiers, costs and seconds."""
    pipeline = trace.pipeline.name
    ours, our_s = _profiled(specification, pipeline, trace, exhaustive=False)
    whole, whole_s = _profiled(specification, pipeline, trace, exhaustive=True)
    ours_of, whole_of = (plan_queries(specification, {pipeline: profile}) for profile in (ours, whole))
    factors: list[float] = []
    dearer: list[float] = []
    for name, frontier in whole_of.items():
        if frontier.candidates:
            factors += factors_to(ours_of[name].candidates, frontier.candidates).tolist()
            cost, best = _cheapest(ours_of[name].candidates), _cheapest(frontier.candidates)
            dearer.append(1.0 if cost <= best else cost / best if best > 0 else np.inf)
    our_cost, whole_cost = (_matched(specification, pipeline, profile) for profile in (ours, whole))
    row = {
        "part": "real pipelines",
        "pipeline": pipeline,
        "configurations": len(whole.configurations),
        "touched": len(ours.configurations),
        "seconds": our_s,
        "seconds_everything": whole_s,
        "plans_of_full_frontiers": len(factors),
        "factor_median": float(np.median(factors)),
        "factor_p90": float(np.quantile(factors, 0.9)),
        "factor_max": float(np.max(factors)),
        "cheapest_over_best_max": float(np.max(dearer)),
        "served": our_cost[0],
        "served_everything": whole_cost[0],
        "cost_usd_per_h": our_cost[1],
        "cost_usd_per_h_everything": whole_cost[1],
    }
    touched = f"{len(ours.configurations)} of {len(whole.configurations)} configurations touched"
    return [
        Figure(f"{pipeline}: plans of the full frontiers that a found one matches to 5 %",
               float(np.mean(np.array(factors) <= NEAR)), None, "higher", "share",
               f"in every resource and in cost; of {len(factors)} plans of {len(dearer)} queries; {touched}"),
        Figure(f"{pipeline}: cheapest plan found over the cheapest of all, worst query", float(np.max(dearer)), NEAR,
               "lower", "times", "cost alone, each query with the pools to itself"),
        Figure(f"{pipeline}: cost of all queries together over that with everything measured",
               our_cost[1] / whole_cost[1], None, "lower", "times",
               f"{our_cost[0]:g} of weight served against {whole_cost[0]:g}"),
        Figure(f"{pipeline}: everything over exploring", whole_s / our_s, None, "higher", "times",
               "recorded seconds of one real run, shared beginnings run once in both"),
    ], row  # fmt: skip


def factors_to(approximation: Sequence[PlanCandidate], reference: Sequence[PlanCandidate]) -> FloatArray:
    """Return the (w,) multiplicative epsilon indicators of the reference plans.

    The indicator is the least factor by which a plan of the approximation takes more of any resource (Zitzler et al.,
    Performance assessment of multiobjective optimizers, 2003); infinite for an empty approximation.
    """
    if not approximation:
        return np.full(len(reference), np.inf)
    names = sorted({key for candidate in (*approximation, *reference) for key in taken(candidate)})
    mine, its = (
        np.array([[taken(c).get(n, 0.0) for n in names] for c in those]) for those in (approximation, reference)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(mine[None, :, :] <= its[:, None, :], 1.0, mine[None, :, :] / its[:, None, :])
    return np.asarray(ratios.max(axis=2).min(axis=1))


def taken(candidate: PlanCandidate) -> dict[str, float]:
    """Return the resource usage of a plan: fully shared CPUs and memory of pools, bytes per second of links, costs."""
    usage: defaultdict[str, float] = defaultdict(float)
    for use in candidate.deployments:
        usage[f"cpus {use.deployment.pool}"] += use.fractional_replicas * use.demand.cpus
        usage[f"memory {use.deployment.pool}"] += use.fractional_replicas * use.demand.memory_bytes
    for link in candidate.links:
        usage[f"bytes {link.link}"] += link.bytes_per_s
    cost = candidate.estimate.cost_usd_per_h
    return {**usage, "shared cost": cost.lower, "cost alone": cost.upper}


def _specification(example: Real) -> Specification:
    """Return the example with a single pipeline and its queries."""
    specification = load_specification([ROOT / "examples" / example.pipeline])
    pipeline = specification.pipelines[example.pipeline]
    if example.held_out is not None:
        dataset = pipeline.dataset.model_copy(update={"held_out": example.held_out})
        pipeline = pipeline.model_copy(update={"dataset": dataset})
    queries = tuple(query for query in specification.queries if query.pipeline == example.pipeline)
    return replace(specification, pipelines={example.pipeline: pipeline}, queries=queries)


def _profiled(
    specification: Specification, pipeline: str, trace: MeasurementTrace, *, exhaustive: bool
) -> tuple[PipelineProfile, float]:
    """Profile from an empty store; return the profile and recorded seconds."""
    clock = SimulatedClock()
    with tempfile.TemporaryDirectory(prefix="circinus-real-") as folder:
        profile = profile_pipeline(
            specification,
            pipeline,
            Path(folder) / "store.sqlite",
            source=TraceBackend(trace, clock),
            explorer=None if exhaustive else make_sampler(specification, pipeline),
            exhaustive=exhaustive,
        )
    return profile, clock()


def _cheapest(candidates: Sequence[PlanCandidate]) -> float:
    return min((candidate.estimate.cost_usd_per_h.upper for candidate in candidates), default=np.inf)


def _matched(specification: Specification, pipeline: str, profile: PipelineProfile) -> tuple[float, float]:
    """Return served weight and cost in US dollars per hour of all queries together."""
    matching, _ = plan_all_queries(specification, {pipeline: profile})
    weights = {query.name: query.weight for query in specification.queries}
    return sum(weights[assignment.query] for assignment in matching.assignments), matching.cost_usd_per_h
