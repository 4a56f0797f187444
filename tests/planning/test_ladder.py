"""Ladders of random plans against enumeration of every chain, and of real frontiers."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listing import EXACT, small_instance

from budget import examples, seeds
from circinus.estimation import PlanCandidate
from circinus.planning import Ladder, plan_query
from circinus.planning.ladder import LadderSteps, ladder
from circinus.specification import AccuracySlo, LatencySlo, Query, Slos
from random_matchings import candidate, deployment, infrastructure, use

INFRA = infrastructure([("near", 4, 8.0, 64.0, 0.5), ("far", 4, 8.0, 64.0, 2.0)])
QUERY = Query(
    name="q",
    pipeline="p",
    source="home",
    rate="1/s",
    slos=Slos(latency=LatencySlo(limit_s=2.0), accuracy=AccuracySlo(threshold=0.4)),
)

_operator = st.tuples(st.integers(0, 2), st.sampled_from(["near", "far"]), st.sampled_from([0.2, 0.4, 0.8, 1.6]))
_plan = st.tuples(_operator, _operator, st.sampled_from([0.2, 0.5, 1.0, 1.7]), st.sampled_from([0.5, 0.6, 0.7, 0.8]))
_plans = st.lists(_plan, min_size=1, max_size=9, unique_by=lambda plan: (plan[0][:2], plan[1][:2]))


def _made(plan: tuple) -> PlanCandidate:
    (knob, pool, fluid), (other_knob, other, more), latency_s, accuracy = plan
    uses = [use(deployment("a", knob, pool), fluid, INFRA), use(deployment("b", other_knob, other), more, INFRA)]
    return candidate("q", uses, latency_s=latency_s, accuracy=accuracy)


def _length(steps: LadderSteps, chain: list[int]) -> float:
    return float(sum(steps.step_size[one, other] for one, other in pairwise(chain)))


def _assert_is_a_ladder(
    found: Ladder, query: Query, plans: list[PlanCandidate], chosen: PlanCandidate, most: int
) -> None:
    assert 1 <= len(found.rungs) <= most
    assert found.rungs[found.chosen].candidate == chosen
    assert not found.rungs[0].changes
    for upper, lower in pairwise(found.rungs):
        assert lower.candidate in plans or lower.candidate == chosen
        assert lower.cpu_s_per_request <= upper.cpu_s_per_request * (1 + 1e-9)
        assert lower.shared_usd_per_h <= upper.shared_usd_per_h * (1 + 1e-9)
        assert lower.cpu_s_per_request < upper.cpu_s_per_request or lower.shared_usd_per_h < upper.shared_usd_per_h
        if query.slos.accuracy is not None and query.slos.accuracy.comparison == ">=":
            assert lower.candidate.estimate.accuracy.value <= upper.candidate.estimate.accuracy.value
        changed = {change.operator for change in lower.changes}
        before = {used.deployment for used in upper.candidate.deployments}
        assert changed == {u.deployment.operator for u in lower.candidate.deployments if u.deployment not in before}
    for rung in found.rungs:
        assert not rung.candidate.estimate.violations(query.slos)


@settings(max_examples=examples(300))
@given(_plans, st.data())
def test_no_other_chain_has_smaller_steps(drawn: list[tuple], data: st.DataObject) -> None:
    plans = [_made(plan) for plan in drawn]
    chosen = data.draw(st.sampled_from(plans))
    most = data.draw(st.integers(3, 5))
    found = ladder(QUERY, plans, chosen, most)
    _assert_is_a_ladder(found, QUERY, plans, chosen, most)
    assert found == ladder(QUERY, plans, chosen, most)

    ordered = [chosen, *(plan for plan in plans if plan != chosen)]
    steps = LadderSteps.of(QUERY, ordered)
    usable = [index for index in range(len(ordered)) if steps.efficient[index] or index == 0]
    chain = [ordered.index(rung.candidate) for rung in found.rungs]
    assert set(chain) <= set(usable)
    above = [index for index in usable if steps.down[index, 0]]
    below = [index for index in usable if steps.down[0, index]]
    if above:
        assert steps.accuracy[chain[0]] == max(steps.accuracy[above])
    if below:
        assert steps.cost[chain[-1]] == min(steps.cost[below])
    ends = {chain[0], 0, chain[-1]}
    others = [index for index in usable if index not in ends]
    best = np.inf
    for count in range(len(others) + 1):
        for between in combinations(others, count):
            members = sorted({*ends, *between}, key=lambda i: (-steps.busy[i], -steps.cost[i]))
            if len(members) <= most and members[0] == chain[0] and members[-1] == chain[-1]:
                best = min(best, _length(steps, members))
    assert _length(steps, chain) == pytest.approx(best)


@given(_plans)
def test_a_dearer_plan_does_not_hide_the_steps_below_the_chosen_one(drawn: list[tuple]) -> None:
    """A selected plan with a step down has a ladder that reaches it."""
    plans = [_made(plan) for plan in drawn]
    for chosen in plans:
        steps = LadderSteps.of(QUERY, [chosen, *(plan for plan in plans if plan != chosen)])
        which = steps.efficient.copy()
        which[0] = True
        possible = steps.among(which)
        found = ladder(QUERY, plans, chosen)
        assert (found.chosen > 0) == bool(possible.down[:, 0].any())
        assert (found.chosen < len(found.rungs) - 1) == bool(possible.down[0].any())


@pytest.mark.parametrize("seed", seeds(60))
def test_ladders_of_frontiers(seed: int) -> None:
    instance = small_instance(seed)
    frontier = plan_query(instance.query, instance.pipeline, instance.profile, instance.network, EXACT)
    for chosen in frontier.candidates[:3]:
        found = ladder(instance.query, frontier.plans, chosen)
        _assert_is_a_ladder(found, instance.query, list(frontier.plans), chosen, 8)


def test_a_ladder_has_room_for_its_ends() -> None:
    plan = _made(((0, "near", 0.2), (0, "near", 0.2), 0.5, 0.8))
    with pytest.raises(ValueError, match="at least 3 rungs, got 2"):
        ladder(QUERY, [plan], plan, 2)
