"""Queries planned in isolation and admitted in order of arrival."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from benchmarks.baselines.by_hand import BEST_IN_THE_CLOUD, CHEAPEST_ON_THE_DEVICE, UTILIZATION_TARGET
from benchmarks.baselines.first_come_plans import first_come, fixed, vulcan_style
from benchmarks.baselines.vulcan_plans import Sizes, mean_latency_s, placements, useful_sizes, utility, vulcan_plan

from budget import seeds
from circinus.estimation import Estimator, merge_loads
from circinus.matching import Matching
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, Slos, Specification
from circinus.testing.random_instances import random_specification

SEEDS = seeds(12)


def _network(specification: Specification) -> Network:
    assert specification.infrastructure is not None
    return Network(specification.infrastructure)


@cache
def _admitted(seed: int) -> list[tuple[Specification, dict[str, PipelineProfile], Matching]]:
    specification, profiles = random_specification(seed, queries=8, cpus=3.0)
    return [
        (specification, profiles, first_come(specification, profiles, plan_of))
        for plan_of in (
            fixed(specification, profiles, BEST_IN_THE_CLOUD),
            fixed(specification, profiles, CHEAPEST_ON_THE_DEVICE),
            vulcan_style(specification, profiles),
        )
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_let_in_fits_on_nodes_and_is_not_too_busy(seed: int) -> None:
    for specification, _, matching in _admitted(seed):
        assert specification.infrastructure is not None
        cpus: defaultdict[tuple[str, int], float] = defaultdict(float)
        for sized in matching.deployments:
            assert sized.utilization <= UTILIZATION_TARGET + 1e-9
            for node in sized.nodes:
                cpus[sized.deployment.pool, node] += sized.demand.cpus
        for (pool, _), used in cpus.items():
            assert used <= specification.infrastructure.pool(pool).cpus + 1e-9
        served = {assignment.query for assignment in matching.assignments}
        refused = {rejection.query for rejection in matching.rejections}
        assert served | refused == {query.name for query in specification.queries}
        assert not served & refused


@pytest.mark.parametrize("seed", SEEDS)
def test_who_comes_later_takes_nothing_from_those_before(seed: int) -> None:
    specification, profiles, whole = _admitted(seed)[2]
    fewer = replace(specification, queries=specification.queries[:4])
    first = first_come(fewer, profiles, vulcan_style(fewer, profiles))
    names = {query.name for query in fewer.queries}
    assert {a.query for a in first.assignments} == {a.query for a in whole.assignments} & names


def test_some_are_let_in_and_some_refused() -> None:
    counts = [(len(m.assignments), len(m.rejections)) for seed in SEEDS for _, _, m in _admitted(seed)]
    assert any(served for served, _ in counts)
    assert any(refused for _, refused in counts)


def _query(specification: Specification) -> Query:
    return specification.queries[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_plan_of_greatest_utility_is_found_and_keeps_its_objectives(seed: int) -> None:
    specification, profiles = random_specification(seed)
    network, query = _network(specification), _query(specification)
    pipeline, profile = specification.pipelines[query.pipeline], profiles[query.pipeline]
    all_utilities = {
        (measured.configuration, tuple(sorted((name, pool.name) for name, pool in placement.items()))): value
        for measured in profile.usable
        for placement in placements(query, pipeline, network)
        if (value := utility(query, pipeline, measured, placement, network)) is not None
    }
    plan = vulcan_plan(query, pipeline, profile, network)
    if plan is None:
        assert not all_utilities
        return
    assert all_utilities[plan.configuration, plan.placement] == max(all_utilities.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_sizes_are_the_fewest_cpus_and_those_of_least_work_and_time(seed: int) -> None:
    specification, profiles = random_specification(seed)
    rng, network, query = np.random.default_rng(seed), _network(specification), _query(specification)
    pipeline, measured = specification.pipelines[query.pipeline], profiles[query.pipeline].configurations[0]
    cpus = 0.5, 1.0, 2.0, 100.0
    assert all(pool.cpus < cpus[-1] for pool in network.infrastructure.pools)
    operators = tuple(operator.model_copy(update={"cpus": cpus}) for operator in pipeline.operators)
    pipeline = pipeline.model_copy(update={"operators": operators})
    ratios = {name: {(c, 1): float(rng.uniform(0.1, 1.5)) for c in cpus} for name in measured.operators}
    profiled = {name: replace(own, batch_ratio=ratios[name]) for name, own in measured.operators.items()}
    measured = replace(measured, operators=profiled)

    def work(sizes: Sizes) -> float:
        return sum(sizes[name] * ratios[name][sizes[name], 1] for name in sizes)

    for placement in placements(query, pipeline, network):
        names = list(placement)
        fitting = [[c for c in cpus if c <= placement[name].cpus] for name in names]
        everything = [dict(zip(names, sizes, strict=True)) for sizes in product(*fitting)]
        useful = useful_sizes(pipeline, measured, placement)
        latencies_s = [
            [mean_latency_s(query, pipeline, measured, placement, network, sizes=sizes) for sizes in several]
            for several in (useful, everything)
        ]
        assert useful[0] == dict.fromkeys(names, min(cpus))
        assert len(useful) == len({tuple(sorted(sizes.items())) for sizes in useful}) <= 3
        assert all(sizes in everything for sizes in useful)
        assert min(map(work, useful)) == pytest.approx(min(map(work, everything)))
        assert min(latencies_s[0]) == pytest.approx(min(latencies_s[1]))


@pytest.mark.parametrize("seed", SEEDS)
def test_its_latency_is_that_of_the_estimator_where_nobody_waits(seed: int) -> None:
    """Return a profile of one item at a negligible rate, so that the mean is the latency of every request."""
    specification, profiles = random_specification(seed, queries=1)
    network = _network(specification)
    query = _query(specification).model_copy(update={"rate_per_s": 1e-9})
    pipeline, profile = specification.pipelines[query.pipeline], profiles[query.pipeline]
    first = profile.configurations[0]
    alike = replace(
        first,
        input_bytes=np.full_like(first.input_bytes, first.input_bytes.mean()),
        operators={
            name: replace(
                operator,
                service_s=np.full_like(operator.service_s, operator.service_s.mean()),
                output_bytes=np.full_like(operator.output_bytes, operator.output_bytes.mean()),
            )
            for name, operator in first.operators.items()
        },
    )
    plan = vulcan_plan(
        query.model_copy(update={"slos": Slos()}), pipeline, replace(profile, configurations=(alike,)), network
    )
    assert plan is not None
    placement = {name: network.infrastructure.pool(pool) for name, pool in plan.placement}
    estimator = Estimator(query, pipeline, alike, network)
    alone = merge_loads([estimator.candidate(plan)])
    expected_s = estimator.candidate(plan, alone).estimate.latency_s.value
    assert mean_latency_s(query, pipeline, alike, placement, network) == pytest.approx(expected_s, rel=0.01)
