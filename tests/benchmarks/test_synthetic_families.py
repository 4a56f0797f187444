"""Computed optima of synthetic pipelines are optimal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from benchmarks.workloads.synthetic.families import (
    EXPONENTS,
    FAMILIES,
    Family,
    SyntheticCase,
    everywhere,
    synthetic_case,
)
from benchmarks.workloads.synthetic.ground_truth import cheapest_plan, true_profile, true_verdict
from benchmarks.workloads.synthetic.optimum import cheapest_choices, undominated
from hypothesis import given
from hypothesis import strategies as st

from budget import seeds
from circinus.planning import SearchSettings, plan_query
from circinus.specification import Configuration, configurations

_SMALL = {
    "smooth": everywhere(2, 1, 2), "plateau": everywhere(2, 2, 1), "interacting": everywhere(2, 1, 2),
    "needle": everywhere(1, 1, 3), "dead knobs": everywhere(3, 1, 1),
}  # fmt: skip


def _small(family: Family, seed: int) -> SyntheticCase:
    return synthetic_case(
        dataclasses.replace(family, choices={0: _SMALL[family.name]}, dead={0: int(family.name == "dead knobs")}),
        0,
        seed,
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("seed", seeds(4))
def test_no_plan_of_any_configuration_is_cheaper(family: Family, seed: int) -> None:
    case = _small(family, seed)
    everything = tuple(configurations(case.model.pipeline))
    assert len(everything) == case.configurations
    exact = SearchSettings(tolerance=0.0, max_plans=100_000)
    for slos in (case.query.slos, case.query.slos.model_copy(update={"latency": None, "cost": None})):
        query = case.query.model_copy(update={"slos": slos})
        profile = true_profile(case.model, everything)
        found = plan_query(query, case.model.pipeline, profile, case.network, exact).candidates
        least = min(candidate.estimate.cost_usd_per_h.lower for candidate in found)
        assert least == pytest.approx(case.optimum.cost_usd_per_h, rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_sizes_are_those_that_are_said_and_the_optimum_keeps_what_is_asked(family: Family) -> None:
    for exponent in EXPONENTS:
        case = synthetic_case(family, exponent, 3)
        assert 0.8 * 10**exponent <= case.configurations <= 2 * 10**exponent
        plan = cheapest_plan(case.model, case.query, case.network, [case.optimum.configuration])
        assert plan is not None
        verdict = true_verdict(case.model, case.query, case.network, plan.plan)
        assert verdict.kept
        assert verdict.cost_usd_per_h == pytest.approx(case.optimum.cost_usd_per_h, rel=1e-6)


def test_a_plan_that_is_not_accurate_or_too_slow_or_too_dear_is_found_out() -> None:
    case = _small(next(family for family in FAMILIES if family.limits_cost), 0)
    slos = case.query.slos
    assert slos.latency is not None
    assert slos.cost is not None
    plan = cheapest_plan(case.model, case.query, case.network, [case.optimum.configuration])
    assert plan is not None
    for tighter in (
        {"latency": slos.latency.model_copy(update={"limit_s": plan.estimate.latency_s.lower / 2})},
        {"cost": slos.cost.model_copy(update={"limit_usd_per_h": 0.99 * case.optimum.cost_usd_per_h})},
    ):
        query = case.query.model_copy(update={"slos": slos.model_copy(update=tighter)})
        assert not true_verdict(case.model, query, case.network, plan.plan).kept
    means = {configuration: case.model.mean_score(configuration) for configuration in _all(case)}
    worst = min(means, key=means.__getitem__)
    anything = case.query.model_copy(update={"slos": slos.model_copy(update={"accuracy": None, "cost": None})})
    cheap = cheapest_plan(case.model, anything, case.network, [worst])
    assert cheap is not None
    assert not true_verdict(case.model, case.query, case.network, cheap.plan).kept


def test_what_a_family_promises() -> None:
    by_name = {family.name: family for family in FAMILIES}
    dead = synthetic_case(by_name["dead knobs"], 6, 0).model
    assert len(dead.dead_knobs) == 10
    one = next(configurations(dead.pipeline))
    values = {name: one[name].as_dict() for name in one}
    switched = Configuration.of({
        name: type(one[name]).of({k: "on" if (name, k) in dead.dead_knobs else v for k, v in values[name].items()})
        for name in one
    })  # fmt: skip
    assert switched != one
    np.testing.assert_array_equal(dead.scores(switched), dead.scores(one))
    assert all((dead.service_s(name, switched) == dead.service_s(name, one)).all() for name in one)
    needle = synthetic_case(by_name["needle"], 3, 0)
    threshold = needle.query.slos.accuracy
    assert threshold is not None
    good = [c for c in _all(needle) if threshold.is_met_by(needle.model.mean_score(c))]
    assert len({tuple(c[name].as_dict()["variant"] for name in ("find", "hear", "answer")) for c in good}) == 1
    for joint in synthetic_case(by_name["interacting"], 3, 0).model.joints:
        assert joint.losses[0, 0] + joint.losses[0, 1] == joint.losses[1, 0] + joint.losses[1, 1]


def _all(case: SyntheticCase) -> list[Configuration]:
    return list(configurations(case.model.pipeline))


@given(st.integers(0, 2**32 - 1))
def test_the_cheapest_choices_are_those_of_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(int(rng.integers(1, 4))):
        cost, loss = rng.integers(1, 9, 5).astype(float), rng.integers(0, 9, 5).astype(float)
        kept = undominated(cost, loss)
        assert all(
            (cost[kept] <= c).any() and ((cost[kept] <= c) & (loss[kept] <= x)).any()
            for c, x in zip(cost, loss, strict=True)
        )
        parts.append((cost[kept], loss[kept]))
    budget = float(rng.integers(0, 20))
    grids = np.meshgrid(*(np.arange(len(cost)) for cost, _ in parts), indexing="ij")
    costs = sum(cost[grid] for (cost, _), grid in zip(parts, grids, strict=True))
    losses = sum(loss[grid] for (_, loss), grid in zip(parts, grids, strict=True))
    fits = losses <= budget
    found = cheapest_choices(parts, budget)
    if found is None:
        assert not fits.any()
        return
    assert losses[found] <= budget
    assert costs[found] == costs[fits].min()
