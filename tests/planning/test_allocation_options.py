from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from budget import half_share_of, seeds, share_of
from circinus.estimation import Estimator, MergedLoad, merge_loads
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.merged_load import replicas_for
from circinus.planning.allocation_options import OptionTable, option_table
from circinus.planning.profile_arrays import ProfileArrays, compile_profile
from circinus.planning.resource_columns import ResourceColumns
from circinus.planning.search_space import compile_query, utilization_targets
from circinus.planning.settings import DEFAULT_SETTINGS as SETTINGS
from circinus.planning.settings import RunningLoad
from circinus.specification import (
    Allocation,
    AnyArrivals,
    BurstyArrivals,
    Deployment,
    PeriodicArrivals,
    PoissonArrivals,
    QueryPlan,
    SloKind,
)
from planning_instances import Instance, all_plans, corrected, interrupted, measured_there, random_instance

NOBODY_BEATS = -1e15

ONE_OPERATOR_SEEDS = (29, 12, 25, 65, 58, 60, 11, 8, 2, 36, 44, 30)
"""Instances of one operator; operators of odd seeds wait for batches to fill."""


def _tables(instance: Instance, slack_s: float) -> tuple[ProfileArrays, ResourceColumns, list[OptionTable]]:
    arrays = compile_profile(instance.pipeline, instance.profile, latency_percentile(instance.query))
    columns = ResourceColumns(instance.network.pools_for(instance.query.source), (), 0.7)
    targets = utilization_targets(instance.query, instance.network.infrastructure)
    tables = [
        option_table(rows, columns, arrays.percentile.grid, query=instance.query, utilization_targets=targets)
        .of_rows(np.ones(len(rows.mean_s), dtype=np.bool_))
        .without_dominated(slack_s)
        for rows in arrays.operators
    ]
    return arrays, columns, tables


@pytest.mark.parametrize("seed", range(half_share_of(30)))
def test_dropped_options_are_beaten_by_kept_ones(seed: int) -> None:
    instance = random_instance(seed)
    _, everything, tables = _tables(instance, slack_s=0.0)
    unpruned = _tables(instance, slack_s=NOBODY_BEATS)[2]
    for table, full in zip(tables, unpruned, strict=True):
        assert (table.usable == full.usable).all()
        for row, pool, option in np.argwhere(full.available & ~table.available):
            assert any(
                (table.resources[row, pool, kept] <= table.resources[row, pool, option] * (1 + 1e-8)).all()
                and (table.node_s[row, pool, kept] <= table.node_s[row, pool, option] + 1e-12).all()
                for kept in np.flatnonzero(table.available[row, pool])
            )
        assert table.dominated == full.dominated + int((full.available & ~table.available).sum())
    assert everything.count == 8 * len(everything.pools) + 2


@pytest.mark.parametrize("seed", range(half_share_of(30)))
def test_when_latency_does_not_matter_no_option_beats_another_in_resources(seed: int) -> None:
    for table in _tables(random_instance(seed), slack_s=np.inf)[2]:
        for row, pool in np.argwhere(table.usable):
            taken = table.resources[row, pool, table.available[row, pool]]
            beats = (taken[:, None] <= taken[None] * (1 + 1e-9)).all(axis=2)
            assert beats.sum() == len(taken)


@pytest.mark.parametrize("seed", range(half_share_of(30)))
def test_the_extremes_bound_every_option(seed: int) -> None:
    for table in _tables(random_instance(seed), slack_s=0.0)[2]:
        for row, pool, option in np.argwhere(table.available):
            node_s, taken = table.node_s[row, pool, option], table.resources[row, pool, option]
            assert (table.fastest_s[row, pool] <= node_s).all()
            assert (node_s <= table.slowest_s[row, pool]).all()
            assert (table.min_resources[row, pool] <= taken).all()
            assert table.available[row, pool, table.cheapest[row, pool]]


ARRIVALS = (PoissonArrivals(), PeriodicArrivals(), BurstyArrivals(peak=2.0, burst_s=2.0, every_s=10.0))


@pytest.mark.parametrize("arrivals", ARRIVALS, ids=lambda arrivals: arrivals.kind)
@pytest.mark.parametrize("known", ["declared", "corrected", "measured"])
@pytest.mark.parametrize("seed", ONE_OPERATOR_SEEDS[: share_of(len(ONE_OPERATOR_SEEDS))])
def test_options_are_what_the_estimator_computes(seed: int, known: str, arrivals: AnyArrivals) -> None:
    """A pipeline of one operator at its source has no other latency and no other resources.

    A dominated option may have a lower bound of its time.
    """
    instance = random_instance(seed)
    if known != "declared":
        instance = corrected(instance) if known == "corrected" else measured_there(interrupted(instance))
    instance = _waiting(instance, 0.1 * (seed % 2))
    instance = replace(instance, query=instance.query.model_copy(update={"arrivals": arrivals}))
    arrays, columns, (table,) = _tables(instance, slack_s=0.0)
    fitting = _tables(instance, slack_s=NOBODY_BEATS)[2][0].available
    compared = 0
    for plan in all_plans(instance):
        (_, pool_name), (_, allocation) = plan.placement[0], plan.allocations[0]
        pool = next(i for i, pool in enumerate(columns.pools) if pool.name == pool_name)
        if columns.pools[pool].site != instance.query.source:
            continue
        position, row = _row_of(arrays, plan)
        option = table.allocations.index(allocation)
        if not fitting[row, pool, option]:
            continue
        estimator = Estimator(instance.query, instance.pipeline, arrays.configurations[position], instance.network)
        estimated_s = estimator.latency_s(plan, cautious=True)
        assert (table.node_s[row, pool, option] <= estimated_s * (1 + 1e-12)).all()
        if table.available[row, pool, option]:
            np.testing.assert_allclose(estimated_s, table.node_s[row, pool, option], rtol=1e-12)
        cost = estimator.candidate(plan).estimate.cost_usd_per_h
        assert table.resources[row, pool, option, columns.shared_cost] == pytest.approx(cost.lower)
        assert table.resources[row, pool, option, columns.dedicated_cost] == pytest.approx(cost.upper)
        compared += 1
    assert compared


@pytest.mark.parametrize("arrivals", ARRIVALS, ids=lambda arrivals: arrivals.kind)
@pytest.mark.parametrize("seed", ONE_OPERATOR_SEEDS[: share_of(len(ONE_OPERATOR_SEEDS))])
def test_options_at_final_sizes_are_what_the_estimator_computes(seed: int, arrivals: AnyArrivals) -> None:
    """Every second deployment runs for a Poisson query of a third of the rate, with a replica more than it needs."""
    instance = random_instance(seed) if seed % 2 else interrupted(random_instance(seed))
    instance = _waiting(instance, 0.1 * (seed % 2))
    query = instance.query.model_copy(update={"arrivals": arrivals})
    other = instance.query.model_copy(update={"name": "other", "rate_per_s": instance.query.rate_per_s / 3})
    arrays = compile_profile(instance.pipeline, instance.profile, latency_percentile(query))
    (rows,), grid = arrays.operators, arrays.percentile.grid
    columns = ResourceColumns(instance.network.pools_for(query.source), (), 0.7)
    pools = {pool.name: index for index, pool in enumerate(columns.pools)}
    running: dict[Deployment, tuple[int, float]] = {}
    expected: list[tuple[tuple[int, int], QueryPlan, Estimator, MergedLoad]] = []
    targets = utilization_targets(query, instance.network.infrastructure)
    for number, plan in enumerate(all_plans(replace(instance, query=query))):
        pool, allocation = pools[plan.placement[0][1]], plan.allocations[0][1]
        if columns.pools[pool].site != query.source:
            continue
        position, row = _row_of(arrays, plan)
        profile = arrays.configurations[position]
        own, its = (Estimator(q, instance.pipeline, profile, instance.network) for q in (query, other))
        plans, replicas = [own.candidate(plan)], dict[Deployment, int]()
        (use,) = its.candidate(plan).deployments
        if number % 2:
            plans.append(its.candidate(plan))
            spare = use.demand.spare_replicas
            count = replicas_for(use.busy_replicas, allocation.utilization_target) + spare + 1
            running[use.deployment] = count, use.busy_replicas
            together = sum(candidate.deployments[0].busy_replicas for candidate in plans)
            replicas[use.deployment] = max(count, replicas_for(together, allocation.utilization_target) + spare)
        expected.append(((row, pool), plan, own, merge_loads(plans, replicas)))
    table = option_table(
        rows, columns, grid, query=query, utilization_targets=targets, running=RunningLoad(running, {}, {})
    ).of_rows(np.ones(len(rows.mean_s), dtype=np.bool_))
    compared = 0
    for (row, pool), plan, own, conditions in expected:
        option = row, pool, table.allocations.index(plan.allocations[0][1])
        if table.available[option]:
            np.testing.assert_allclose(table.node_s[option], own.latency_s(plan, conditions, cautious=True), rtol=1e-9)
            compared += 1
    assert compared > 1


def _waiting(instance: Instance, batch_wait_s: float) -> Instance:
    """Return an instance of one operator with a time that its batches wait to fill."""
    (operator,) = instance.pipeline.operators
    waiting = operator.model_copy(update={"batch_wait_s": batch_wait_s})
    return replace(instance, pipeline=instance.pipeline.model_copy(update={"operators": (waiting,)}))


def _row_of(arrays: ProfileArrays, plan: QueryPlan) -> tuple[int, int]:
    for position, profile in enumerate(arrays.configurations):
        if profile.configuration == plan.configuration:
            return position, int(arrays.rows[position, 1])
    raise AssertionError


def test_allocations_cover_every_size_and_target() -> None:
    instance = random_instance(4)
    for operator, table in zip(instance.pipeline.topological_order(), _tables(instance, 0.0)[2], strict=True):
        assert set(table.allocations) == {
            Allocation(cpus, batch, target)
            for cpus in operator.cpus
            for batch in operator.batch_sizes
            for target in (0.4, 0.7)
        }


@pytest.mark.parametrize("seed", seeds(8))
def test_a_space_for_other_slos_is_that_of_fresh_arrays_and_shares_their_times(seed: int) -> None:
    instance = random_instance(seed)
    slos = instance.query.slos.replaced(SloKind.COST, None).replaced(SloKind.ACCURACY, None)
    relaxed = instance.query.model_copy(update={"slos": slos, "name": "relaxed", "weight": 2.0})
    busier = relaxed.model_copy(update={"rate_per_s": 2 * relaxed.rate_per_s})
    arrays, fresh = (
        compile_profile(instance.pipeline, instance.profile, latency_percentile(instance.query)) for _ in range(2)
    )
    first, second = (compile_query(query, instance.network, arrays, SETTINGS) for query in (instance.query, relaxed))
    expected = compile_query(relaxed, instance.network, fresh, SETTINGS)
    assert second.query == relaxed
    for before, after, table in zip(first.options, second.options, expected.options, strict=True):
        assert after.node_s is before.node_s
        np.testing.assert_array_equal(after.available, table.available)
        np.testing.assert_array_equal(after.node_s, table.node_s)
        assert (after.ineligible, after.dominated) == (table.ineligible, table.dominated)
    assert compile_query(busier, instance.network, arrays, SETTINGS).options[0].node_s is not second.options[0].node_s
