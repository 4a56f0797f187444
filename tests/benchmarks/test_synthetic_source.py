"""A pipeline of functions can be profiled like any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from benchmarks.workloads.synthetic.backend import SyntheticSource
from benchmarks.workloads.synthetic.families import FAMILIES, SyntheticCase, everywhere, synthetic_case
from benchmarks.workloads.synthetic.ground_truth import cheapest_of, true_profile, true_verdict

from circinus.planning import plan_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import SimulatedClock, profile_pipeline
from circinus.specification import configurations


@pytest.fixture(scope="module")
def case() -> SyntheticCase:
    smooth = FAMILIES[0]
    return synthetic_case(dataclasses.replace(smooth, choices={0: everywhere(2, 1, 2)}), 0, seed=0)


def test_scores_are_as_uneven_as_those_of_the_published_speech_trace(case: SyntheticCase) -> None:
    everything = tuple(configurations(case.model.pipeline))
    scores = np.stack([case.model.scores(configuration) for configuration in everything])
    means = np.array([case.model.mean_score(configuration) for configuration in everything])
    np.testing.assert_allclose(scores.mean(axis=1), means, atol=1e-12)
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    near = np.abs(means - 0.7) < 0.03
    assert 0.25 < scores[near].std(axis=1).mean() < 0.4
    differences = scores[near][1:] - scores[near][:-1]
    assert 0.05 < differences.std(axis=1).mean() < 0.11


def test_what_the_runner_gives_is_what_is_true_and_prefixes_are_charged_once(case: SyntheticCase) -> None:
    clock = SimulatedClock()
    source, pipeline = SyntheticSource(case.model, clock), case.model.pipeline
    addresses, dataset = source.addresses(pipeline, None), source.dataset(pipeline, 0)
    items = [dataset.items[index] for index in dataset.profiling_items[:20]]
    places = list(dataset.profiling_items[:20])
    first, *_, last = configurations(pipeline)
    shared = type(first).of({**dict(first.operators), "answer": last["answer"]})
    with source.runner(addresses, timeout_s=60.0) as runner:
        for configuration, ran in ((first, tuple(first)), (first, ()), (shared, ("answer",))):
            before_s = clock()
            found = runner.measure(configuration, items)
            truth = true_profile(case.model, [configuration]).configurations[0]
            np.testing.assert_array_equal(found.scores, truth.scores[places])
            for name, profile in truth.operators.items():
                np.testing.assert_array_equal(found.runs[name].service_s, profile.service_s[places])
                np.testing.assert_array_equal(found.runs[name].output_bytes, profile.output_bytes[places])
            expected_s = sum(float(truth.operators[name].service_s[places].sum()) for name in ran)
            loads_s = sum(case.model.operators[name].load_s for name in ran)
            assert found.compute_s == pytest.approx(expected_s)
            assert clock() - before_s == pytest.approx(expected_s + loads_s)
        before_s = clock()
        ratios = runner.measure_allocations(first, "find", ((2.0, 1),), items[:2]).ratios
        assert ratios == {(2.0, 1): truth.operators["find"].batch_ratio[2.0, 1]}
        assert clock() > before_s


def test_the_product_finds_a_plan_in_a_pipeline_of_functions(tmp_path: Path) -> None:
    case = synthetic_case(dataclasses.replace(FAMILIES[0], choices={0: everywhere(2, 1, 1)}), 0, seed=0)
    name, source = case.model.pipeline.name, SyntheticSource(case.model)
    explorer = make_sampler(case.specification, name)
    profile = profile_pipeline(case.specification, name, tmp_path / "store", source=source, explorer=explorer)
    found = cheapest_of(plan_queries(case.specification, {name: profile})["query"].candidates)
    assert found is not None
    verdict = true_verdict(case.model, case.query, case.network, found.plan)
    assert verdict.kept
    assert verdict.cost_usd_per_h <= 1.1 * case.optimum.cost_usd_per_h
    assert sum(runner.items[c] for runner in source.runners for c in runner.items) == sum(
        len(found.items) for found in profile.configurations
    )
