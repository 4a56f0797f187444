"""Planners of the literature keep within capacities, and within the objectives that they see."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from benchmarks.baselines.by_hand import UTILIZATION_TARGET
from benchmarks.baselines.planners.jellybean import JellyBean
from benchmarks.baselines.planners.proteus import Proteus
from benchmarks.baselines.planners.videostorm import VideoStorm
from benchmarks.evaluation.contest import Contest, Planned, Planner
from benchmarks.possible.promises import overfull

from budget import seeds
from circinus.profiling import MeasurementTrace, PipelineProfile
from circinus.profiling.store.store_queries import StoredReplica
from circinus.profiling.trace.measurement_trace import prefix_rows
from circinus.specification import KnobValues, Pipeline
from circinus.testing.random_instances import random_specification

SEEDS = seeds(8)
PLANNERS: tuple[Planner, ...] = (JellyBean(), Proteus(), VideoStorm())


def _trace(pipeline: Pipeline, profile: PipelineProfile) -> MeasurementTrace:
    configurations = tuple(measured.configuration for measured in profile.configurations)
    rows, _ = prefix_rows(pipeline, configurations)
    service_s = np.zeros((int(rows.max()) + 1, profile.population))
    output_bytes, replicas = np.zeros_like(service_s), dict[tuple[str, KnobValues], StoredReplica]()
    names = [operator.name for operator in pipeline.topological_order()]
    for own, measured in zip(rows, profile.configurations, strict=True):
        for row, name in zip(own, names, strict=True):
            operator = measured.operators[name]
            service_s[row], output_bytes[row] = operator.service_s, operator.output_bytes
            peak_bytes = int(operator.peak_memory_bytes)
            replicas[name, measured.configuration[name]] = StoredReplica(0.0, peak_bytes, startup_s=0.0)
    keys = tuple(map(str, range(profile.population)))
    return MeasurementTrace(
        pipeline=pipeline,
        configurations=configurations,
        rows=rows,
        service_s=service_s,
        output_bytes=output_bytes,
        scores=np.array([measured.scores for measured in profile.configurations]),
        replicas=replicas,
        item_keys=keys,
        item_addresses=keys,
        strata=tuple({} for _ in keys),
        input_bytes=profile.configurations[0].input_bytes,
        dataset_fingerprint="random",
    )


@cache
def _contest(seed: int) -> Contest:
    specification, profiles = random_specification(seed, queries=8, cpus=3.0)
    truth = {name: replace(profile, dataset_items=20, held_out_items=0) for name, profile in profiles.items()}
    traces = {name: _trace(specification.pipelines[name], profile) for name, profile in truth.items()}
    return Contest("random", specification, truth, traces)


@cache
def _planned(planner: Planner, seed: int) -> Planned:
    return planner.plan(_contest(seed), seed)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
@pytest.mark.parametrize("seed", SEEDS)
def test_plans_keep_within_capacities_and_visible_objectives(planner: Planner, seed: int) -> None:
    contest, planned = _contest(seed), _planned(planner, seed)
    matching = planned.matching
    assert not list(overfull(contest.specification, matching))
    assert all(sized.utilization <= UTILIZATION_TARGET + 1e-6 for sized in matching.deployments)
    queries = {query.name: query for query in contest.specification.queries}
    assert {a.query for a in matching.assignments} | {r.query for r in matching.rejections} == set(queries)
    scores = {
        (name, measured.configuration): float(measured.scores.mean())
        for name, profile in contest.truth.items()
        for measured in profile.configurations
    }
    for assignment in matching.assignments:
        slos, chosen = queries[assignment.query].slos, assignment.chosen
        score = sum(part.share * scores[chosen.plan.pipeline, part.plan.configuration] for part in chosen.plan.parts)
        assert slos.accuracy is None or slos.accuracy.margin(score) >= -1e-9
        assert slos.cost is None or slos.cost.is_met_by(chosen.estimate.cost_usd_per_h.value)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_plans_are_the_same_again_and_measurements_are_paid(planner: Planner) -> None:
    first, again = _planned(planner, 0), planner.plan(_contest(0), 0)
    plans = [[(a.query, a.chosen.plan) for a in planned.matching.assignments] for planned in (first, again)]
    assert plans[0] == plans[1]
    assert first.profiled_s == again.profiled_s > 0
    everything_s = sum(float(trace.service_s.sum()) for trace in _contest(0).traces.values())
    assert first.profiled_s <= everything_s * (1 + 1e-9)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: planner.name)
def test_some_queries_are_served(planner: Planner) -> None:
    served = sum(len(_planned(planner, seed).matching.assignments) for seed in SEEDS)
    assert 0 < served < 8 * len(SEEDS)


def test_jellybean_divides_the_traffic_that_no_place_can_take_alone() -> None:
    contest = _contest(0)
    divided = 0
    for factor in (2.0, 5.0, 10.0, 20.0):
        queries = tuple(
            query.model_copy(update={"rate_per_s": factor * query.rate_per_s})
            for query in contest.specification.queries
        )
        busier = replace(contest, specification=replace(contest.specification, queries=queries))
        divided += sum(a.chosen.plan.is_split for a in JellyBean().plan(busier, 0).matching.assignments)
    assert divided
