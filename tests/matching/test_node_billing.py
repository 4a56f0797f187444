"""Pools whose nodes are chosen or paid whole: against enumeration, and admission beside running plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, examples
from circinus.matching import Matching, MatchSettings, match
from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.planning.bin_packing import pack, pack_on_fewest
from random_matchings import Instance, best_answer, checked_cost, frontiers_of, random_instance, reestimate


def checked(instance: Instance, found: Matching) -> float:
    """Return the cost of a matching after checking nodes, prices and shares."""
    plans = {}
    for assignment in found.assignments:
        (plan,) = [c for c in instance.candidates[assignment.query] if c.plan == assignment.chosen.plan]
        plans[assignment.query] = plan
    idle = 0.0
    for pool in instance.infrastructure.pools:
        used = {node for d in found.deployments if d.deployment.pool == pool.name for node in d.nodes}
        nodes = found.nodes.get(pool.name, pool.nodes)
        assert nodes == max(pool.base_nodes, len(used)) if pool.is_elastic else nodes == pool.nodes
        replicas = sum(d.cost_usd_per_h for d in found.deployments if d.deployment.pool == pool.name)
        if pool.bills_nodes and used:
            assert replicas == pytest.approx(pool.price_usd_per_h * nodes)
        elif pool.bills_nodes:
            idle += pool.price_usd_per_h * nodes
    shares = sum(a.chosen.estimate.cost_usd_per_h.value for a in found.assignments)
    assert shares + idle == pytest.approx(found.cost_usd_per_h)
    cost = checked_cost(instance, tuple(plans.values()))
    assert cost is not None
    return cost


@pytest.mark.parametrize("exact", [True, False])
@settings(max_examples=examples(12))
@given(seed=st.integers(0, 2**31), spot=st.booleans())
def test_as_few_nodes_run_as_enumeration_finds(exact: bool, seed: int, spot: bool) -> None:
    instance = random_instance(seed, elastic=True, spot=spot)
    limits = MatchSettings(time_limit_s=HANG_LIMIT_S)
    solver = None if exact else LagrangianSolver()
    found = match(frontiers_of(instance), instance.infrastructure, reestimate, solver=solver, settings=limits)
    weight, cost = best_answer(instance)
    assert found.satisfied_weight == pytest.approx(weight)
    assert found.cost_usd_per_h == pytest.approx(checked(instance, found)) == pytest.approx(cost)
    assert found.cost_bound_usd_per_h <= cost + 1e-6
    assert found.optimal


@settings(max_examples=examples(12))
@given(seed=st.integers(0, 2**31), spot=st.booleans())
def test_an_admission_pays_for_the_nodes_that_it_opens(seed: int, spot: bool) -> None:
    instance = random_instance(seed, elastic=True, queries=3, spot=spot)
    (*before, last) = instance.queries
    first = replace(instance, queries=tuple(before), candidates=instance.candidates | {last.name: ()})
    found = match(frontiers_of(first), instance.infrastructure, reestimate)
    plans = {
        a.query: next(c for c in instance.candidates[a.query] if c.plan == a.chosen.plan) for a in found.assignments
    }
    served = [query for query in before if query.name in plans]
    running = AdmissionControl(served, plans, found.deployments, instance.infrastructure, reestimate)
    prepared = running.prepare(last, instance.candidates[last.name])
    for position, fit in running.try_candidates(prepared, last.slos):
        if not isinstance(fit, AdmissionFit):
            continue
        final = {**running.affected_plans(fit), last.name: fit.final}
        chosen = (*found.assignments, replace(found.assignments[0], query=last.name)) if found.assignments else ()
        assignments = tuple(replace(a, chosen=final.get(a.query, a.chosen)) for a in chosen)
        after = replace(
            found,
            assignments=assignments,
            deployments=fit.deployments,
            nodes=fit.nodes,
            cost_usd_per_h=fit.cost_usd_per_h,
        )
        if assignments:
            checked(instance, after)
        assert all(after.nodes[pool] >= count for pool, count in found.nodes.items())
        assert fit.cost_usd_per_h >= found.cost_usd_per_h + prepared.marginal_costs.added_usd_per_h[position] - 1e-9


@settings(max_examples=examples(40))
@given(data=st.data())
def test_the_fewest_nodes_are_those_that_a_search_needs(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.tuples(*[st.sampled_from([0.2, 0.3, 0.5, 0.75, 1.0])] * 2), max_size=4))
    demand = np.array(kinds).reshape(len(kinds), 2)
    count = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(kinds), max_size=len(kinds))), dtype=np.int64)
    least, most = sorted(data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5))))
    enough = [nodes for nodes in range(least, most + 1) if pack(demand, count, np.ones(2), nodes).nodes is not None]
    fewest = pack_on_fewest(demand, count, np.ones(2), least, most)
    assert fewest.proved
    assert fewest.count == (enough[0] if enough else most)
    assert (fewest.packing.nodes is None) == (not enough)
    load = np.zeros((fewest.count, 2))
    for kind, nodes in enumerate(fewest.packing.nodes or ()):
        np.add.at(load, list(nodes), demand[kind])
    assert np.all(load <= 1 + 1e-6)
