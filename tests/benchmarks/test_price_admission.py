"""A single query is let in where it fits, makes room where that gains, and learns what it lacks."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.matching.price_admission import AdmissionRefused, AdmissionRequest, Admitted, OnlineAdmission
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.matching.lagrangian import RelaxedProblem, solve_relaxed
from random_fluid import crowd


def _applicants(problem: RelaxedProblem) -> list[AdmissionRequest]:
    return [
        AdmissionRequest(
            float(problem.weight[row]), problem.cost_usd_per_h[row], problem.amounts[row], int(problem.site[row])
        )
        for row in range(problem.classes)
    ]


@pytest.mark.slow
@settings(max_examples=examples(80))
@given(st.integers(0, 10**6))
def test_what_is_let_in_fits_and_gains(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = crowd(rng, 240, load=3.0, sites=3, local=2, shared=2)
    runs = np.sort(rng.choice(240, 200, replace=False))
    answer = solve_relaxed(whole.part(runs))
    admissions = OnlineAdmission(answer)
    weight, used = answer.weight, answer.problem.usage_of(answer.chosen)
    came = whole.part(np.setdiff1d(np.arange(240), runs))
    for asked in _applicants(came):
        decision = admissions.admit(asked)
        if isinstance(decision, AdmissionRefused):
            assert decision.missing_capacity.max() > 0
            assert len(decision.binding)
            assert ((asked.amounts[decision.plan] - decision.missing_capacity) >= -1e-12).all()
            continue
        before = weight
        weight += asked.weight
        own = np.concatenate([2 * asked.site + np.arange(2), 6 + np.arange(2)])
        used[own] += asked.amounts[decision.plan]
        for query, option in decision.moved:
            row = answer.problem.class_of[query]
            weight -= whole.part(runs).weight[row] * (option < 0)
            assert admissions.chosen[query] == option
        assert weight - before >= -1e-6
        assert admissions.usage.max() <= 1.0 + 1e-6
    used += answer.problem.usage_of(admissions.chosen) - answer.problem.usage_of(answer.chosen)
    np.testing.assert_allclose(admissions.usage, used, atol=1e-9)


def _alone(amounts: list[list[list[float]]], weight: list[float]) -> RelaxedProblem:
    count = len(amounts)
    shape = np.array(amounts)
    return RelaxedProblem(np.ones(count), np.array(weight), np.ones(shape.shape[:2]), shape, np.zeros(count, int), 1, 0)


def test_the_best_plan_that_fits_is_taken_and_its_room_comes_back() -> None:
    admissions = OnlineAdmission(solve_relaxed(_alone([[[0.5, 0.1], [0.1, 0.5]]], [1.0])))
    asked = AdmissionRequest(1.0, np.array([1.0, 1.0, np.inf]), np.array([[0.6, 0.0], [0.3, 0.3], [0.0, 0.0]]), 0)
    decisions = [admissions.admit(asked) for _ in range(4)]
    served = [decision for decision in decisions if isinstance(decision, Admitted)]
    assert len(served) < 4
    assert all(decision.plan in (0, 1) for decision in served)
    for decision in served:
        admissions.leave(asked.amounts[decision.plan], 0)
    assert isinstance(admissions.admit(asked), Admitted)


def test_a_heavier_query_takes_the_place_of_a_lighter_one() -> None:
    answer = solve_relaxed(_alone([[[0.9]]], [1.0]))
    heavy = AdmissionRequest(3.0, np.array([1.0]), np.array([[0.8]]), 0)
    assert OnlineAdmission(answer).admit(heavy) == Admitted(0, ((0, -1),))
    light = AdmissionRequest(0.5, np.array([1.0]), np.array([[0.8]]), 0)
    refused = OnlineAdmission(answer).admit(light)
    assert isinstance(refused, AdmissionRefused)
    assert refused.missing_capacity == pytest.approx([0.7])
    assert refused.binding.tolist() == [0]


def test_a_query_without_a_plan_is_refused() -> None:
    answer = solve_relaxed(_alone([[[0.9]]], [1.0]))
    refused = OnlineAdmission(answer).admit(AdmissionRequest(3.0, np.array([np.inf]), np.array([[0.0]]), 0))
    assert isinstance(refused, AdmissionRefused)
    assert refused.plan == -1
    assert not len(refused.binding)


def test_free_plans_do_not_make_costs_dear() -> None:
    free = _alone([[[0.9]]], [1.0])
    answer = solve_relaxed(
        RelaxedProblem(free.multiplicity, free.weight, np.zeros((1, 1)), free.amounts, free.site, 1, 0)
    )
    heavy = AdmissionRequest(3.0, np.array([0.01, np.inf]), np.array([[0.8], [0.0]]), 0)
    assert OnlineAdmission(answer).admit(heavy) == Admitted(0, ((0, -1),))


def test_a_resource_that_is_overfull_by_rounding_keeps_nobody_out_who_does_not_use_it() -> None:
    problem = _alone([[[0.10000001, 0.0]]] * 10, [1.0] * 10)
    assert isinstance(
        OnlineAdmission(solve_relaxed(problem)).admit(AdmissionRequest(1.0, np.ones(1), np.array([[0.0, 0.5]]), 0)),
        Admitted,
    )
