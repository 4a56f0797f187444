"""Goodput over load on tiny workloads of the published traces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from benchmarks.baselines.matching.integer_replicas import whole_first_come
from benchmarks.matching.goodput_over_load import linear_bound, queries_at_capacity, runs_deployed, runs_in_shares
from benchmarks.matching.goodput_report import DEPLOYED, FIRST_COME, IN_SHARES, NEXT_BEST, LoadRun, figures, table
from benchmarks.matching.scaling import OURS
from benchmarks.workloads.published.profiles import without_dead_knob
from benchmarks.workloads.published.queries import MIXED, FluidWorkload, Workload, workloads
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder
from benchmarks.workloads.published.traces import read_arenas

from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.pool_packing import pack_pools
from circinus.matching.problem_builder import build_problem
from circinus.matching.sizing import evaluate_sizing

LOADS = 1.0, 3.0
BUSIER = 40.0


@pytest.fixture(scope="module")
def folder() -> Path:
    pytest.importorskip("pyarrow", reason="the published scores are in a Parquet file")
    try:
        return traces_folder()
    except TracesAbsentError as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Sequence[Workload]:
    return tuple(workloads(folder, seed=0, kinds=6, busier=BUSIER))


@pytest.fixture(scope="module")
def results(tiny: Sequence[Workload]) -> Sequence[LoadRun]:
    in_shares = [run for one in tiny for run in runs_in_shares(one, 0, LOADS)]
    return [*in_shares, *runs_deployed(tiny[2], 0, (2.0,))]


def test_the_dead_knob_has_one_choice_and_the_others_keep_what_was_measured(folder: Path) -> None:
    for arena in read_arenas(folder):
        lean = without_dead_knob(arena)
        numbers = [arena.space.configurations.index(configuration) for configuration in lean.space.configurations]
        assert len(numbers) == (30 if arena.space.name == "video-nuscenes" else 25)
        assert np.array_equal(lean.means, arena.means[numbers])
        assert np.array_equal(lean.latency_s, arena.latency_s[numbers])
        assert np.array_equal(lean.cost_usd_per_h, arena.cost_usd_per_h[numbers])


def test_every_kind_has_plans_that_promise_its_objectives(tiny: Sequence[Workload]) -> None:
    assert [workload.name for workload in tiny] == ["speech-voices", "speech-libri", "video-nuscenes", MIXED]
    for workload in tiny:
        for frontier in workload.frontiers:
            assert frontier.candidates
            assert not any(c.estimate.violations(frontier.query.slos) for c in frontier.candidates)
    assert {f.query.pipeline for f in tiny[3].frontiers} == {workload.name for workload in tiny[:3]}


def test_more_queries_begin_with_the_fewer(tiny: Sequence[Workload]) -> None:
    few, many = tiny[0].drawn(20, seed=3), tiny[0].drawn(50, seed=3)
    assert all(np.array_equal(one, other[:20]) for one, other in zip(few, many, strict=True))
    _, frontiers = tiny[0].queries(20, seed=3)
    rates = [tiny[0].frontiers[kind].query.rate_per_s for kind in few[0]]
    assert [frontier.query.rate_per_s for frontier in frontiers.values()] == rates


def test_classes_take_what_single_queries_would(tiny: Sequence[Workload]) -> None:
    for workload in tiny:
        specification, frontiers = workload.queries(30, seed=1)
        candidates = {name: frontier.candidates for name, frontier in frontiers.items()}
        single = build_problem(specification.queries, candidates, workload.infrastructure)
        fluid = FluidWorkload.of(workload).with_queries(*workload.drawn(30, seed=1))
        assert fluid.queries == 30
        assert fluid.total_weight == single.priority_levels.weight.sum()


def test_at_load_1_the_bound_stops_serving_everything(tiny: Sequence[Workload]) -> None:
    for workload in tiny:
        fluid = FluidWorkload.of(workload)
        capacity = queries_at_capacity(fluid)
        here, beyond = fluid.on_average(capacity), fluid.on_average(1.02 * capacity + 1)
        assert linear_bound(here) == pytest.approx(here.total_weight)
        assert linear_bound(beyond) < beyond.total_weight * (1 - 1e-6)


def test_no_answer_is_beyond_the_bound_or_what_was_offered(results: Sequence[LoadRun]) -> None:
    for run in results:
        assert 0 < run.weight <= run.weight_bound * (1 + 1e-9)
        assert run.weight_bound <= run.offered_weight * (1 + 1e-9)
        assert run.cost_usd_per_h > 0


def test_as_deployed_those_who_come_first_take_part_and_in_shares_everybody_does(results: Sequence[LoadRun]) -> None:
    assert {run.method for run in results if run.instance == DEPLOYED} == {OURS, FIRST_COME, NEXT_BEST}
    assert {FIRST_COME, NEXT_BEST, OURS} < {run.method for run in results if run.instance == IN_SHARES}


def test_whole_replicas_that_come_first_fit_pack_and_keep_what_is_promised(tiny: Sequence[Workload]) -> None:
    for workload in tiny:
        specification, frontiers = workload.queries(25, seed=2)
        candidates = {name: frontier.candidates for name, frontier in frontiers.items()}
        problem = build_problem(specification.queries, candidates, workload.infrastructure)
        plans = PlanEstimates(specification, workload.profiles)
        slos = [query.slos for query in specification.queries]
        for next_best in (False, True):
            chosen = whole_first_come(problem, slos, plans.reestimate, next_best=next_best)
            usage = problem.usage_of(chosen)
            assert problem.fits(usage)
            assert not pack_pools(problem, usage, widely=True)[1]
            assert not evaluate_sizing(problem, chosen, usage, slos, plans.reestimate).violations
            for query, candidate in problem.served(chosen):
                assert candidate in problem.candidates_of(query)
                if not next_best:
                    shared = [c.estimate.cost_usd_per_h.lower for c in candidates[problem.queries[query]]]
                    assert shared[candidate - problem.block[query]] == pytest.approx(min(shared))


def test_figures_and_table_say_what_the_runs_say(results: Sequence[LoadRun]) -> None:
    listed = {figure.name: figure for figure in figures(results)}
    worst = min(run.share for run in results if run.instance == IN_SHARES and run.method == OURS)
    assert listed["goodput over load, in shares: least share of the bound"].value == worst
    ratios = []
    for _, group in groupby(results, key=lambda run: (run.instance, run.workload, run.load)):
        by_method = {run.method: run for run in group}
        if by_method[OURS].instance == IN_SHARES and by_method[OURS].load > 1:
            ratios.append(by_method[OURS].weight / by_method[FIRST_COME].weight)
    smallest = listed["goodput over load, in shares: times first come first served beyond saturation, smallest"]
    assert smallest.value == pytest.approx(min(ratios))
    assert table(results).row_count == 4 * len(LOADS) + 1
