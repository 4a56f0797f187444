"""The real pipelines: the frontiers found by exploring against those from measuring everything, on recorded seconds."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

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
"""Up to which factor of what a plan takes another counts as good: what exploring stops at."""


@dataclass(frozen=True)
class Real:
    """An example and how much of its data is measured on."""

    pipeline: str
    held_out: float | None = None
    """Share of the items that is left out; None: as the example says."""


REAL = (Real("meeting"), Real("documents", held_out=0.5))
"""Everything of documents takes 108 configurations of half a second an item: half of the pages suffice."""


def real(state: Path, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Both pipelines. The models really run on every item under every configuration, once.

    Args:
        state: folder of the stores that have that; what they have already is gone on with.
        console: for progress.
    """
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    state.mkdir(parents=True, exist_ok=True)
    for one in REAL:
        specification = _specification(one)
        with profile_bar(console, f"everything of {one.pipeline}") as bar:
            store = state / f"{one.pipeline}.sqlite"
            everything = profile_pipeline(specification, one.pipeline, store, exhaustive=True, observer=bar)
        if everything.interrupted:
            raise KeyboardInterrupt
        of_one, row = compare(specification, one.pipeline, export_trace(specification, one.pipeline, store))
        figures += of_one
        rows.append(row)
    return figures, rows


def compare(
    specification: Specification, pipeline: str, trace: MeasurementTrace
) -> tuple[list[Figure], dict[str, Any]]:
    """What exploring finds of the frontiers of a recorded pipeline, and in which part of the time."""
    ours, our_s = _profiled(specification, pipeline, trace, exhaustive=False)
    whole, whole_s = _profiled(specification, pipeline, trace, exhaustive=True)
    ours_of, whole_of = (plan_queries(specification, {pipeline: profile}) for profile in (ours, whole))
    factors: list[float] = []
    dearer: list[float] = []
    for name, frontier in whole_of.items():
        if frontier.candidates:
            found = factors_to(ours_of[name].candidates, frontier.candidates)
            factors += found.tolist()
            least, best = _cheapest(ours_of[name].candidates), _cheapest(frontier.candidates)
            dearer.append(1.0 if least <= best else least / best if best > 0 else np.inf)
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


def factors_to(found: Sequence[PlanCandidate], wanted: Sequence[PlanCandidate]) -> FloatArray:
    """(w,) for each plan wanted the least factor by which some found plan takes more of anything.

    The multiplicative epsilon indicator, plan by plan (Zitzler et al., Performance assessment of multiobjective
    optimizers, 2003). Infinite where nothing was found.
    """
    if not found:
        return np.full(len(wanted), np.inf)
    names = sorted({key for candidate in (*found, *wanted) for key in taken(candidate)})
    mine, its = (np.array([[taken(c).get(n, 0.0) for n in names] for c in those]) for those in (found, wanted))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(mine[None, :, :] <= its[:, None, :], 1.0, mine[None, :, :] / its[:, None, :])
    return np.asarray(ratios.max(axis=2).min(axis=1))


def taken(candidate: PlanCandidate) -> dict[str, float]:
    """What a plan takes: fully shared CPUs and memory of each pool, bytes a second of each link, cost both ways."""
    found: defaultdict[str, float] = defaultdict(float)
    for use in candidate.deployments:
        found[f"cpus {use.deployment.pool}"] += use.fractional_replicas * use.demand.cpus
        found[f"memory {use.deployment.pool}"] += use.fractional_replicas * use.demand.memory_bytes
    for link in candidate.links:
        found[f"bytes {link.link}"] += link.bytes_per_s
    cost = candidate.estimate.cost_usd_per_h
    return {**found, "shared cost": cost.lower, "cost alone": cost.upper}


def _specification(one: Real) -> Specification:
    """Only one pipeline of the example and its queries."""
    found = load_specification([ROOT / "examples" / one.pipeline])
    pipeline = found.pipelines[one.pipeline]
    if one.held_out is not None:
        dataset = pipeline.dataset.model_copy(update={"held_out": one.held_out})
        pipeline = pipeline.model_copy(update={"dataset": dataset})
    queries = tuple(query for query in found.queries if query.pipeline == one.pipeline)
    return replace(found, pipelines={one.pipeline: pipeline}, queries=queries)


def _profiled(
    specification: Specification, pipeline: str, trace: MeasurementTrace, *, exhaustive: bool
) -> tuple[PipelineProfile, float]:
    """(profile, recorded seconds) from nothing."""
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
    """Weight served and US dollars per hour of all queries together."""
    matching, _ = plan_all_queries(specification, {pipeline: profile})
    weights = {query.name: query.weight for query in specification.queries}
    return sum(weights[assignment.query] for assignment in matching.assignments), matching.cost_usd_per_h
