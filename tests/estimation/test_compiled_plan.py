"""Compiled plans give the numbers of `Estimator.candidate` under the merged load."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate, QueryEstimators, merge_loads
from circinus.estimation.compiled_plan import CompiledPlan, QueueTimes
from planning_instances import Instance, all_plans, fanned_out, interrupted, measured_there, random_instance, restricted

VARIANTS = {
    "plain": lambda instance: instance,
    "lists": fanned_out,
    "links": restricted,
    "speeds": measured_there,
    "spot": interrupted,
}


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=examples(15))
@given(seed=st.integers(0, 10_000))
def test_equals_the_estimate_under_a_merged_load(variant: str, seed: int) -> None:
    instance = VARIANTS[variant](random_instance(seed))
    rng = np.random.default_rng(seed)
    rate_per_s = float(rng.choice([0.1, 1.0]))
    query = instance.query.model_copy(update={"rate_per_s": rate_per_s})
    instance = Instance(query, instance.pipeline, instance.profile, instance.network)
    estimators = QueryEstimators(query, instance.pipeline, instance.network)
    measured = {profile.configuration: profile for profile in instance.profile.configurations}
    plans = list(islice(all_plans(instance), 400))
    for number in rng.permutation(len(plans))[:5].tolist():
        plan = plans[number]
        profile = measured[plan.configuration]
        try:
            candidate = estimators.candidate(plan, measured.__getitem__)
            compiled = estimators.of(profile).compiled(plan)
        except PlanningError:
            continue  # no path, or links that must not carry it
        check_equal(estimators, compiled, candidate, profile, rng)


def check_equal(
    estimators: QueryEstimators, compiled: CompiledPlan, candidate: PlanCandidate, profile, rng: np.random.Generator
) -> None:
    assert compiled.deployments == candidate.deployments
    assert compiled.links == candidate.links
    assert compiled.transfer_cost_usd_per_h == pytest.approx(candidate.transfer_cost_usd_per_h)
    sized = merge_loads((candidate,))
    more = {deployment: load.replicas + int(rng.integers(0, 3)) for deployment, load in sized.deployments.items()}
    try:
        conditions = merge_loads((candidate,), more)
        expected = estimators.candidate(candidate.plan, lambda _: profile, conditions)
    except PlanningError:
        return  # a link or deployment is overloaded
    stations = {deployment: load.station for deployment, load in conditions.deployments.items()}
    bound_s = compiled.bound_s(stations.__getitem__, dict(conditions.links), QueueTimes())
    assert bound_s == pytest.approx(expected.estimate.latency_s.upper, rel=1e-9)
