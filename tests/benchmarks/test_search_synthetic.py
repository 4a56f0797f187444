"""Searches of synthetic pipelines and their statistics."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from benchmarks.baselines.synthetic_search import BASELINES, Trial, best_trial
from benchmarks.search.suggestion_time import Measured
from benchmarks.search.synthetic import figures_of, standings
from benchmarks.search.synthetic_runs import OURS, SyntheticRun, run_baselines
from benchmarks.workloads.synthetic.families import FAMILIES, SyntheticCase, everywhere, synthetic_case
from benchmarks.workloads.synthetic.ground_truth import true_verdict

from circinus.planning.sampler import PlanCostSampler
from circinus.profiling.measurement.time_estimator import measurement_cost_model
from circinus.specification import LatencySlo, Slos


@pytest.fixture(scope="module")
def case() -> SyntheticCase:
    limited = next(family for family in FAMILIES if family.limits_cost)
    return synthetic_case(dataclasses.replace(limited, choices={0: everywhere(2, 1, 1)}), 0, seed=0)


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_stops_when_its_seconds_are_spent_and_is_told_the_truth(case: SyntheticCase, method: str) -> None:
    trials = BASELINES[method](case, 500.0, 0)
    *before, last = [trial.ended_s for trial in trials]
    assert all(ended_s < 500.0 for ended_s in before)
    assert last >= 500.0 or len(trials) == case.configurations
    assert len({trial.configuration for trial in trials}) == len(trials)
    for trial in trials:
        verdict = true_verdict(case.model, case.query, case.network, trial.plan.plan)
        assert verdict.kept == (max(trial.beyond) <= 0)


def test_with_time_enough_a_baseline_finds_the_optimum_of_few_configurations(case: SyntheticCase) -> None:
    trials = BASELINES["random"](case, 1e6, 0)
    best = best_trial(trials)
    assert best is not None
    assert best.plan.estimate.cost_usd_per_h.lower == pytest.approx(case.optimum.cost_usd_per_h)


def test_less_time_is_the_beginning_of_more(case: SyntheticCase) -> None:
    less, more = (run_baselines(case, 0, seconds) for seconds in (100.0, 1000.0))
    assert [row.method for row in less] == list(BASELINES)
    for short, long in zip(less, more, strict=True):
        assert short.touched <= long.touched
        assert short.seconds <= 100.0
        assert not short.found or short.cost_over_optimum >= long.cost_over_optimum


def test_trials_that_break_an_objective_are_never_the_best(case: SyntheticCase) -> None:
    trial = BASELINES["random"](case, 1.0, 0)[0]
    kept, broken = (dataclasses.replace(trial, beyond=(0.0, 0.0, by)) for by in (0.0, 0.1))
    assert best_trial([broken]) is None
    assert best_trial([broken, kept]) == kept
    assert isinstance(kept, Trial)


def _run(method: str, seed: int, exponent: int, *, found: bool, ratio: float, cpu_s: float) -> SyntheticRun:
    return SyntheticRun(
        family="smooth", exponent=exponent, method=method, seed=seed, answered=True, found=found,
        cost_over_optimum=ratio if found else math.nan, touched=10 * seed, items=0, seconds=1.0, wall_s=1.0,
        cpu_s=cpu_s, peak_mib=100.0, steps=10.0,
    )  # fmt: skip


def test_figures_are_shares_medians_and_growth() -> None:
    rows = [
        _run(method, seed, exponent, found=seed > 0, ratio=1.0 + seed / 100, cpu_s=float(exponent))
        for method in (OURS, "other")
        for exponent in (3, 12)
        for seed in range(4)
    ]
    found = standings(rows)
    assert [(s.exponent, s.method) for s in found] == [(3, OURS), (12, OURS), (3, "other"), (12, "other")]
    assert {(s.answers, s.found, s.broken, s.touched_median) for s in found} == {(4, 0.75, 0.25, 15.0)}
    figures = {figure.name: figure for figure in figures_of(found)}
    assert figures["smooth, 10^3: feasible plan found"].value == 0.75
    assert figures["smooth, 10^3: cost over optimum, median"].value == pytest.approx(1.02)
    assert figures["smooth: 10^12 over 10^3, planner's time a step"].value == 4.0
    assert figures["smooth: 10^12 over 10^3, peak memory"].met


@pytest.mark.parametrize("measured_count", [20, 30])
def test_beyond_listing_few_measurements_are_no_reason_to_leave_a_query_without_a_plan(
    measured_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circinus.planning.sampler.sampler._MIN_UNLISTED", 30)
    large = synthetic_case(FAMILIES[0], 6, seed=0)
    query = large.query.model_copy(update={"slos": Slos(latency=LatencySlo(percentile=95, limit_s=1e-6))})
    sampler = PlanCostSampler(dataclasses.replace(large.specification, queries=(query,)), large.model.pipeline.name)
    measured = Measured(large, np.random.default_rng(0))
    measured.add_some(measured_count)
    profile = measured.profile()
    decision = sampler.suggest(profile, measurement_cost_model(large.model.pipeline, profile))
    assert decision.certificate.conclusive == (not decision.suggestions) == (measured_count == 30)
    assert all(s.configuration not in {c.configuration for c in profile.configurations} for s in decision.suggestions)


def test_what_is_known_for_a_suggestion_is_of_as_many_configurations_as_are_said(case: SyntheticCase) -> None:
    large = synthetic_case(FAMILIES[0], 12, seed=0)
    measured = Measured(large, np.random.default_rng(0))
    measured.add_some(60)
    for _ in range(3):
        measured.add_items()
        measured.forget_one()
        measured.add_some(1)
    profile = measured.profile()
    assert len(profile.configurations) == 60
    for found in profile.configurations:
        mean = large.model.mean_score(found.configuration)
        assert found.accuracy.lower - 1e-9 <= mean <= found.accuracy.upper + 1e-9
        assert all(len(operator.service_s) == len(found.items) for operator in found.operators.values())
