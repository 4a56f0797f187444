"""Ground truth of a synthetic pipeline's plans: planned and estimated from all items, with exact mean scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.workloads.synthetic.pipeline_model import SyntheticModel
from circinus.estimation import Estimator, PlanCandidate
from circinus.planning import plan_query
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.profiling.batch_time_ratios import allowed_allocations
from circinus.specification import Configuration, Network, Query, QueryPlan, prefix_configuration
from circinus.statistics.interval import Interval


@dataclass(frozen=True)
class TrueVerdict:
    """Comparison of a plan with the ground truth."""

    kept: bool
    """True if the plan meets every SLO: mean score, percentile of latency over all items, cost."""
    cost_usd_per_h: float
    """Fully shared cost."""


def true_profile(model: SyntheticModel, configurations: Sequence[Configuration]) -> PipelineProfile:
    """Return the profile after measuring configurations on all items, with all allocations."""
    return PipelineProfile(
        pipeline=model.pipeline.name,
        dataset_fingerprint="all items",
        dataset_items=len(model.items.work),
        held_out_items=0,
        hardware_class="local",
        risk=0.0,
        configurations=tuple(_configuration(model, configuration) for configuration in configurations),
        unmeasured=0,
        profiled_s=0.0,
        saved_s=0.0,
    )


def cheapest_plan(
    model: SyntheticModel, query: Query, network: Network, configurations: Sequence[Configuration]
) -> PlanCandidate | None:
    """Return the plan of these configurations that meets the SLOs at the lowest cost, fully shared."""
    if not configurations:
        return None
    frontier = plan_query(query, model.pipeline, true_profile(model, configurations), network)
    return cheapest_of(frontier.candidates)


def cheapest_of(candidates: Sequence[PlanCandidate]) -> PlanCandidate | None:
    """Return the candidate with the lowest cost, fully shared; None if empty."""
    return min(candidates, key=lambda candidate: candidate.estimate.cost_usd_per_h.lower, default=None)


def true_verdict(model: SyntheticModel, query: Query, network: Network, plan: QueryPlan) -> TrueVerdict:
    """Return whether a plan meets its SLOs, and its cost."""
    profile = _configuration(model, plan.configuration)
    estimate = Estimator(query, model.pipeline, profile, network).candidate(plan).estimate
    cost = estimate.cost_usd_per_h.lower
    met = query.slos.attained(estimate.latency_s.value, estimate.accuracy.value, cost)
    return TrueVerdict(all(met.values()), cost)


def _configuration(model: SyntheticModel, configuration: Configuration) -> ConfigurationProfile:
    mean = model.mean_score(configuration)
    return ConfigurationProfile(
        configuration=configuration,
        items=np.arange(len(model.items.work)),
        scores=model.scores(configuration),
        accuracy=Interval(mean, mean, mean),
        input_bytes=model.items.sizes(model.input_bytes),
        operators={name: _operator(model, name, configuration) for name in configuration},
    )


def _operator(model: SyntheticModel, name: str, configuration: Configuration) -> OperatorProfile:
    allowed = allowed_allocations(model.pipeline.operator(name))
    values = configuration[name]
    return OperatorProfile(
        operator=name,
        prefix=prefix_configuration(model.pipeline, configuration, name),
        service_s=model.service_s(name, configuration),
        output_bytes=model.output_bytes(name, configuration),
        peak_memory_bytes=float(model.memory_bytes(name, values)),
        load_s=model.operators[name].load_s,
        batch_ratio={pair: model.batch_ratio(name, values, *pair) for pair in allowed},
        measured_allocations=frozenset(allowed),
        startup_s=model.operators[name].load_s,
    )
