"""What a query is pinned to is all that it may have; within that nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from listing import EXACT, Listed, list_plans, point_of, small_seeds, undominated

from circinus.planning import plan_query
from circinus.planning.exploration.keeping import decided
from circinus.planning.exploration.plan_costs import least_costs
from circinus.planning.pins import keeps_pins
from circinus.spec import PinnedKnob, PinnedOperator
from instances import Instance, random_instance

SEEDS = small_seeds(120, 400)


def _pinned(seed: int) -> Instance | None:
    """The instance pinned to a pool and knobs of one of its plans; None where it has none."""
    instance, rng = random_instance(seed), np.random.default_rng(seed)
    plans = [plan for plan in list_plans(instance) if not plan.violations(instance.query.slos)]
    if not plans:
        return None
    plan = plans[rng.integers(len(plans))].candidate.plan
    operator = str(rng.choice([operator for operator, _ in plan.placement]))
    knobs = tuple(PinnedKnob(name=k, value=v) for k, v in plan.configuration[operator].values if rng.random() < 0.7)
    pool = plan.pool_of(operator) if rng.random() < 0.7 else None
    query = instance.query.model_copy(update={"pin": (PinnedOperator(name=operator, pool=pool, knobs=knobs),)})
    return replace(instance, query=query)


def _kept(instance: Instance, plan: Listed) -> bool:
    chosen = plan.candidate.plan
    pools = ((p.pool, chosen.pool_of(p.name)) for p in instance.query.pin or ())
    return keeps_pins(instance.query, chosen.configuration) and all(pool in (None, has) for pool, has in pools)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_frontier_is_that_of_all_plans_that_keep_the_pins(seed: int) -> None:
    instance = _pinned(seed)
    if instance is None:
        return
    frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network, EXACT)
    kept = [plan for plan in list_plans(instance) if _kept(instance, plan) and not plan.violations(instance.query.slos)]
    expected = np.array([plan.point for plan in undominated(kept)])
    found = np.array([point_of(instance, candidate) for candidate in frontier.candidates])
    assert len(found) == len(expected) > 0
    for point in expected:
        assert np.isclose(found, point, rtol=1e-7, atol=1e-12).all(axis=1).any()


@pytest.mark.parametrize("seed", SEEDS[:20])
def test_configurations_that_the_pins_rule_out_are_not_worth_measuring_for_the_query(seed: int) -> None:
    instance = _pinned(seed)
    if instance is None:
        return
    listed = [found.configuration for found in instance.profile.configurations]
    kept = np.array([keeps_pins(instance.query, configuration) for configuration in listed])
    (costs,) = least_costs(instance.pipeline, [instance.query], instance.profile, instance.network, listed)
    assert not np.isfinite(costs[~kept]).any()
    sure, out = decided([instance.query], listed, {}, population=100)
    assert (out[:, 0] >= ~kept).all()
    assert not sure[~kept].any()


def test_says_what_was_not_measured_yet() -> None:
    drawn = (random_instance(seed) for seed in SEEDS)
    instance, operator = next((i, o) for i in drawn for o in i.pipeline.operators if o.knobs)
    knob = operator.knobs[0]
    values = {c.configuration[operator.name].as_dict().get(knob.name) for c in instance.profile.configurations}
    value = next(iter(values))
    pin = (PinnedOperator(name=operator.name, knobs=(PinnedKnob(name=knob.name, value=value),)),)
    query = instance.query.model_copy(update={"pin": pin})
    others = tuple(c for c in instance.profile.configurations if not keeps_pins(query, c.configuration))
    profile = replace(instance.profile, configurations=others)
    frontier = plan_query(query, instance.pipeline, profile, instance.network)
    assert not frontier.candidates
    assert f"pinned to {operator.name}.{knob.name}={value}" in frontier.reason
    assert f"none of the {len(others)} configurations" in frontier.reason
