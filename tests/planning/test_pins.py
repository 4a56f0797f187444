"""Pinned queries use only the pinned pools and knob values, and the search within them is exact."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from listing import EXACT, Listed, list_plans, point_of, small_instance, undominated

from budget import share_of
from circinus.planning import plan_query
from circinus.planning.pool_eligibility import matches_pins
from circinus.planning.sampler.feasibility import classify_feasibility
from circinus.planning.sampler.plan_costs import min_plan_costs
from circinus.specification import PinnedKnob, PinnedOperator
from planning_instances import Instance

KNOB_SEEDS = (17, 43, 33, 66, 4, 40, 49, 90, 60, 103, 10, 25, 27, 29, 37, 65, 73, 121, 127, 130)
"""Small instances in which `_pinned` pins a knob, and mostly a pool: several plans satisfy the pins and several do not.
"""

POOL_SEEDS = (18, 5, 26, 0, 77, 86, 98, 143, 2, 8, 20, 21, 30, 51, 64, 100, 101, 102, 113, 131, 134, 140, 153, 156)
"""Instances in which `_pinned` pins a pool only."""


@cache
def _pinned(seed: int) -> tuple[Instance, list[Listed]]:
    """Return the instance pinned to a pool and knobs of one of its plans, and all plans that meet its SLOs."""
    instance, rng = small_instance(seed), np.random.default_rng(seed)
    plans = [plan for plan in list_plans(instance) if not plan.violations(instance.query.slos)]
    plan = plans[rng.integers(len(plans))].candidate.plan
    operator = str(rng.choice([operator for operator, _ in plan.placement]))
    knobs = tuple(PinnedKnob(name=k, value=v) for k, v in plan.configuration[operator].values if rng.random() < 0.7)
    pool = plan.pool_of(operator) if rng.random() < 0.7 else None
    query = instance.query.model_copy(update={"pin": (PinnedOperator(name=operator, pool=pool, knobs=knobs),)})
    return replace(instance, query=query), plans


def _kept(instance: Instance, plan: Listed) -> bool:
    chosen = plan.candidate.plan
    pools = ((p.pool, chosen.pool_of(p.name)) for p in instance.query.pin or ())
    return matches_pins(instance.query, chosen.configuration) and all(pool in (None, has) for pool, has in pools)


@pytest.mark.parametrize("seed", [*KNOB_SEEDS[: share_of(len(KNOB_SEEDS))], *POOL_SEEDS[: share_of(len(POOL_SEEDS))]])
def test_the_frontier_is_that_of_all_plans_that_keep_the_pins(seed: int) -> None:
    instance, plans = _pinned(seed)
    frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network, EXACT)
    kept = [plan for plan in plans if _kept(instance, plan)]
    assert 0 < len(kept) < len(plans)
    expected = np.array([plan.point for plan in undominated(kept)])
    found = np.array([point_of(instance, candidate) for candidate in frontier.candidates])
    assert len(found) == len(expected) > 0
    for point in expected:
        assert np.isclose(found, point, rtol=1e-7, atol=1e-12).all(axis=1).any()


@pytest.mark.parametrize("seed", KNOB_SEEDS[: share_of(len(KNOB_SEEDS))])
def test_configurations_that_the_pins_rule_out_are_not_worth_measuring_for_the_query(seed: int) -> None:
    instance, _ = _pinned(seed)
    listed = [found.configuration for found in instance.profile.configurations]
    kept = np.array([matches_pins(instance.query, configuration) for configuration in listed])
    assert not kept.all()
    (costs,) = min_plan_costs(instance.pipeline, [instance.query], instance.profile, [instance.network], listed)
    assert not np.isfinite(costs[~kept]).any()
    sure, out = classify_feasibility([instance.query], listed, {}, population=100)
    assert (out[:, 0] >= ~kept).all()
    assert not sure[~kept].any()


def test_says_what_was_not_measured_yet() -> None:
    instance = small_instance(KNOB_SEEDS[0])
    operator = next(o for o in instance.pipeline.operators if o.knobs)
    knob = operator.knobs[0]
    values = {c.configuration[operator.name].as_dict().get(knob.name) for c in instance.profile.configurations}
    value = next(iter(values))
    pin = (PinnedOperator(name=operator.name, knobs=(PinnedKnob(name=knob.name, value=value),)),)
    query = instance.query.model_copy(update={"pin": pin})
    others = tuple(c for c in instance.profile.configurations if not matches_pins(query, c.configuration))
    profile = replace(instance.profile, configurations=others)
    frontier = plan_query(query, instance.pipeline, profile, instance.network)
    assert not frontier.candidates
    assert f"the query is pinned to {operator.name}.{knob.name}={value}, but" in frontier.reason
    assert f"none of the {len(others)} configurations" in frontier.reason
