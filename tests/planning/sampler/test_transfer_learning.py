"""Sources become prior means, expected service times and an initial design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from circinus.arrays import FloatArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.operator_models import OperatorPrediction
from circinus.planning.sampler.operator_transfer import (
    DEFAULT_LOG_STD,
    MIN_LOG_STD,
    RatioModel,
    SourceOperators,
    lowest_deviation,
)
from circinus.planning.sampler.profile_prediction import ProfilePredictor
from circinus.planning.sampler.source_profile import profile_from_source
from circinus.planning.sampler.transfer_learning import (
    MAX_FITTED_SOURCES,
    TransferSources,
    missing_from_design,
    warm_start_design,
)
from circinus.profiling import OperatorProfile
from circinus.profiling.store.store_queries import StoredReplica
from circinus.profiling.store.transfer_sources import SourceRuns, SourceScores
from circinus.specification import AccuracySlo, Configuration, Knob, KnobValues, OperatorSpec, prefix_configuration
from planning.sampler.spaces import pipeline_of
from planning_instances import random_instance

PIPELINE = pipeline_of(
    OperatorSpec(name="see", uses="m:see", knobs=[Knob(name="size", choices=[1, 2, 3, 4], ordered=True)]),
    OperatorSpec(
        name="tell", uses="m:tell", after=("see",), knobs=[Knob(name="width", choices=[1, 2, 3, 4], ordered=True)]
    ),
)
SPACE = ConfigurationSpace.of(PIPELINE)
CODES = SPACE.enumerate()
CONFIGURATIONS = SPACE.decode(CODES)
ITEMS = 40

SEVERAL_SEEDS = (9, 10, 15, 18, 21, 23)
"""Random instances of at least four configurations."""


def seconds(operator: str, configuration: Configuration) -> float:
    """Return an operator's service time: its own knob has a large effect, its ancestor's a small one."""
    size = float(configuration["see"].values[0][1])
    return 0.1 * size if operator == "see" else 0.5 * float(configuration["tell"].values[0][1]) * size**0.3


def runs_of(
    configurations: Sequence[Configuration],
    rng: np.random.Generator,
    *,
    items: int = ITEMS,
    factors: dict[str, float] | None = None,
    few: int | None = None,
    stray: float = 0.0,
) -> SourceRuns:
    """Return source runs with item effects and noise of prefixes; the last prefixes have few items only."""
    factors = factors or {}
    prefixes = list(
        dict.fromkeys(
            (o.name, prefix_configuration(PIPELINE, c, o.name)) for o in PIPELINE.operators for c in configurations
        )
    )
    parts = np.exp(rng.normal(0, 0.8, items))
    service_s = np.array(
        [seconds(name, of) * factors.get(name, 1.0) * parts * np.exp(rng.normal(0, stray)) for name, of in prefixes]
    )
    output_bytes = np.array([[1000.0 * (1 + row)] * items for row in range(len(prefixes))])
    if few is not None:
        service_s[len(prefixes) // 2 :, few:] = np.nan
        output_bytes[len(prefixes) // 2 :, few:] = np.nan
    replicas = {(name, of[name]): StoredReplica(1.5, 1e6 * float(of[name].values[0][1])) for name, of in prefixes}
    return SourceRuns(tuple(prefixes), service_s, output_bytes, np.full(items, 500.0), replicas)


def profile_of(operator: str, own: Configuration, service_s: FloatArray) -> OperatorProfile:
    return OperatorProfile(operator, own, service_s, np.full(len(service_s), 700.0), 1e6, 1.0, {(1.0, 1): 1.0})


def known(
    configurations: Sequence[Configuration], rng: np.random.Generator, factor: float, stray: float = 0.0
) -> dict[str, dict[Configuration, OperatorProfile]]:
    """Return local measurements that take `factor` times as long."""
    parts = np.exp(rng.normal(0, 0.8, 12))
    parts /= parts.mean()
    found: dict[str, dict[Configuration, OperatorProfile]] = {o.name: {} for o in PIPELINE.operators}
    for configuration in configurations:
        for operator in PIPELINE.operators:
            own = prefix_configuration(PIPELINE, configuration, operator.name)
            took = seconds(operator.name, own) * factor * parts * np.exp(rng.normal(0, stray))
            found[operator.name][own] = profile_of(operator.name, own, took)
    return found


def log_seconds(operator: str) -> FloatArray:
    return np.log([seconds(operator, c) for c in CONFIGURATIONS])


def test_times_are_those_of_elsewhere_in_the_ratio_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    there = SourceOperators(SPACE, PIPELINE, runs_of(CONFIGURATIONS, rng, few=8))
    compared = RatioModel(there, known([CONFIGURATIONS[5]], rng, factor=3.0))
    for operator in ("see", "tell"):
        found = compared.at(operator, CODES)
        assert found.log_service_s == pytest.approx(log_seconds(operator) + np.log(3.0), abs=1e-6)
        assert found.service_deviation == pytest.approx(MIN_LOG_STD)
        assert np.isfinite(found.log_output_bytes).all()


def test_items_that_do_not_reach_an_operator_lower_its_mean_by_their_share() -> None:
    rng = np.random.default_rng(0)
    runs = runs_of(CONFIGURATIONS, rng)
    small = np.array([name == "tell" and of["see"].values[0][1] == 1 for name, of in runs.prefixes])
    runs.service_s[np.ix_(small, range(0, ITEMS, 4))] = 0.0
    there = SourceOperators(SPACE, PIPELINE, runs)
    found = RatioModel(there, known([CONFIGURATIONS[-1]], rng, factor=3.0)).at("tell", CODES)
    is_small = np.array([c["see"].values[0][1] == 1 for c in CONFIGURATIONS])
    expected = log_seconds("tell") + np.log(3.0) + np.where(is_small, np.log(0.75), 0.0)
    assert found.log_service_s == pytest.approx(expected, abs=1e-6)
    runs.service_s[:] = 0.0
    assert np.isinf(SourceOperators(SPACE, PIPELINE, runs).at("tell", CODES).service_deviation).all()


def test_how_far_ratios_lie_apart_is_how_far_a_guess_may_be_off() -> None:
    squares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        there = SourceOperators(SPACE, PIPELINE, runs_of(CONFIGURATIONS, rng))
        here = known(CONFIGURATIONS, rng, factor=0.5, stray=0.4)
        chosen = [CONFIGURATIONS[i] for i in (0, 5, 10, 15, 6)]
        part = {
            o: {p: f for p, f in own.items() if p in {prefix_configuration(PIPELINE, c, o) for c in chosen}}
            for o, own in here.items()
        }
        found = RatioModel(there, part).at("tell", CODES)
        truth = np.array([np.log(here["tell"][c].service_s.mean()) for c in CONFIGURATIONS])
        others = np.array([c not in chosen for c in CONFIGURATIONS])
        squares.append(np.mean(((found.log_service_s - truth) / found.service_deviation)[others] ** 2))
    assert 0.5 < float(np.mean(squares)) < 2.5
    misled = SourceOperators(SPACE, PIPELINE, runs_of(CONFIGURATIONS, np.random.default_rng(1), stray=1.5))
    found = RatioModel(misled, known(CONFIGURATIONS[::3], np.random.default_rng(2), factor=1.0)).at("tell", CODES)
    assert (found.service_deviation > 0.5).all()  # above the deviation of local measurements


def test_before_anything_is_compared_little_is_certain() -> None:
    rng = np.random.default_rng(0)
    there = SourceOperators(SPACE, PIPELINE, runs_of(CONFIGURATIONS, rng))
    found = RatioModel(there, {"see": {}, "tell": {}}).at("tell", CODES)
    assert (found.service_deviation >= DEFAULT_LOG_STD).all()
    only_see = known(CONFIGURATIONS[:1], rng, factor=4.0)
    only_see["tell"] = {}
    found = RatioModel(there, only_see).at("tell", CODES)
    assert (found.service_deviation >= DEFAULT_LOG_STD).all()
    assert np.log(4.0) == pytest.approx(
        float((found.log_service_s - there.at("tell", CODES).log_service_s)[0]), abs=0.1
    )


def test_a_prefix_that_was_not_measured_there_is_taken_from_the_most_similar() -> None:
    rng = np.random.default_rng(0)
    kept = [c for c in CONFIGURATIONS if c["see"].values[0][1] != 2 and c["tell"].values[0][1] != 4]
    there = SourceOperators(SPACE, PIPELINE, runs_of(kept, rng))
    found = there.at("tell", CODES)
    for row, configuration in enumerate(CONFIGURATIONS):
        size, width = (configuration[name].values[0][1] for name in ("see", "tell"))
        if width == 4:
            assert np.isnan(found.log_service_s[row])
            assert np.isinf(found.service_deviation[row])
        elif size == 2:
            alike = CONFIGURATIONS.index(_configuration(1, int(width)))
            assert found.log_service_s[row] == found.log_service_s[alike]
            assert found.service_deviation[row] > 0.0
        else:
            assert found.service_deviation[row] == 0.0
    nothing = SourceOperators(SPACE, PIPELINE, runs_of([], rng))
    assert np.isnan(nothing.at("see", CODES).log_service_s).all()
    assert np.isinf(RatioModel(nothing, {}).at("see", CODES).service_deviation).all()


def test_choices_that_the_target_lacks_are_left_out() -> None:
    smaller = pipeline_of(
        PIPELINE.operators[0].model_copy(update={"knobs": (Knob(name="size", choices=(1, 2), ordered=True),)}),
        PIPELINE.operators[1],
    )
    space = ConfigurationSpace.of(smaller)
    there = SourceOperators(space, smaller, runs_of(CONFIGURATIONS, np.random.default_rng(0)))
    assert (there.at("tell", space.enumerate()).service_deviation == 0.0).all()
    assert np.isfinite(there.at("see", space.enumerate()).log_service_s).all()


def test_the_surest_is_taken_of_each() -> None:
    one = OperatorPrediction(
        np.array([1.0, np.nan]), np.array([0.2, np.inf]), np.array([5.0, 6.0]), np.array([0.1, 0.1])
    )
    two = OperatorPrediction(np.array([3.0, 4.0]), np.array([0.1, 0.3]), np.array([7.0, 8.0]), np.array([0.1, 0.05]))
    found = lowest_deviation([one, two])
    assert found.log_service_s.tolist() == [3.0, 4.0]
    assert found.service_deviation.tolist() == [0.1, 0.3]
    assert found.log_output_bytes.tolist() == [5.0, 8.0]


def _configuration(size: int, width: int) -> Configuration:
    return Configuration.of({"see": KnobValues.of({"size": size}), "tell": KnobValues.of({"width": width})})


def earlier(
    name: str, means: FloatArray, rng: np.random.Generator, *, items: int = ITEMS, noise: float = 0.05
) -> SourceScores:
    parts = rng.normal(0, 0.2, items)
    parts -= parts.mean()
    scores = means[:, None] + parts + rng.normal(0, noise, (len(means), items))
    return SourceScores(name, CONFIGURATIONS, scores, runs_of(CONFIGURATIONS, rng, items=items))


def truth_of(rng: np.random.Generator) -> FloatArray:
    steps = rng.uniform(0.01, 0.1, (2, 4)).cumsum(axis=1)
    return np.asarray(0.3 + steps[0][CODES[:, 0]] + steps[1][CODES[:, 1]] + rng.normal(0, 0.02, len(CODES)))


def test_scores_become_sources_with_their_errors() -> None:
    rng = np.random.default_rng(0)
    truth = truth_of(rng)
    found = earlier("there", truth, rng, noise=0.1)
    found.scores[3:, 8:] = np.nan
    (source,) = TransferSources(PIPELINE, SPACE, (found,)).sources
    assert source.name == "there"
    variances = source.variances_at(CODES)
    assert variances[3:].min() > 2 * variances[:3].max()
    assert float(np.mean((source.at(CODES) - truth) ** 2 / variances)) < 2.5
    assert TransferSources(PIPELINE, SPACE).sources == ()
    one = SourceScores("one", CONFIGURATIONS[:1], found.scores[:1], found.runs)
    assert TransferSources(PIPELINE, SPACE, (one,)).sources == ()


def test_of_many_sources_the_good_one_is_found_though_few_are_fitted() -> None:
    rng = np.random.default_rng(1)
    truth = truth_of(rng)
    sources = [earlier(f"shuffled {n}", rng.permutation(truth), rng) for n in range(MAX_FITTED_SOURCES + 3)]
    sources.insert(4, earlier("good", truth - 0.2, rng))
    elsewhere = TransferSources(PIPELINE, SPACE, tuple(sources))
    rows = rng.permutation(len(CODES))[:7]
    prior = elsewhere.prior(CODES[rows], truth[rows], np.full(7, 1e-4))
    assert prior.name == "good"
    assert prior.reason.startswith("scores of good make 7 measurements ")
    assert len(prior.fits) == 1 + MAX_FITTED_SOURCES
    again = elsewhere.prior(CODES[rows], truth[rows], np.full(7, 1e-4))
    np.testing.assert_array_equal(again.belief(CODES).mean, prior.belief(CODES).mean)
    assert elsewhere.initial_scores(CODES) is not None
    assert TransferSources(PIPELINE, SPACE).initial_scores(CODES) is None
    assert TransferSources(PIPELINE, SPACE).prior(CODES[rows], truth[rows], np.full(7, 1e-4)).name is None


def test_the_beginning_is_the_cheapest_that_is_good_enough_and_the_extremes() -> None:
    scores = np.array([0.7, 0.5, 0.8, 0.9, 0.6])
    costs = np.array([2.0, 3.0, 4.0, np.inf, 1.0])[:, None]
    assert warm_start_design(scores, [costs], [AccuracySlo(threshold=0.65, comparison=">=")]) == (0, 1, 2)
    assert warm_start_design(scores, [costs], [AccuracySlo(threshold=0.65, comparison="<=")]) == (4, 1, 2)
    assert warm_start_design(scores, [costs], [AccuracySlo(threshold=0.95, comparison=">=")]) == (2, 1)
    assert warm_start_design(scores, [costs], [None]) == (4, 1, 2)


def test_the_beginning_is_of_the_first_query_that_has_a_plan() -> None:
    scores, none = np.array([0.5, 0.6, 0.7]), np.full((3, 2), np.inf)
    costs = np.array([[np.inf, 0.0], [2.0, 9.0], [1.0, 9.0]])
    assert warm_start_design(scores, [none, costs, costs[::-1]], [None, None, None]) == (2, 0)
    assert warm_start_design(scores, [none, none], [None, None]) == ()


def test_where_all_sources_were_dropped_every_choice_is_still_to_be_seen() -> None:
    cover = [_configuration(number, number) for number in (1, 2, 3, 4)]
    assert missing_from_design(cover, []) == cover[0]
    assert missing_from_design(cover, [_configuration(1, 2), _configuration(2, 1)]) == cover[2]
    assert missing_from_design(cover, [_configuration(a, b) for a, b in ((1, 2), (2, 1), (3, 4), (4, 3))]) is None


def test_a_source_is_read_as_a_profile_of_the_target() -> None:
    rng = np.random.default_rng(0)
    source = earlier("there", truth_of(rng), rng)
    found = profile_from_source(PIPELINE, source)
    assert found is not None
    assert [c.configuration for c in found.configurations] == list(CONFIGURATIONS)
    assert found.usable == found.configurations
    first, second = (found.configurations[row].operators for row in (0, 1))
    assert first["see"] is second["see"]  # a prefix has one object
    assert first["tell"].peak_memory_bytes == 1e6
    assert second["tell"].peak_memory_bytes == 2e6
    assert first["tell"].batch_ratio == {(1.0, 1): 1.0}
    row = source.runs.prefixes.index(("tell", CONFIGURATIONS[1]))
    np.testing.assert_array_equal(second["tell"].service_s, source.runs.service_s[row])


def test_only_what_was_measured_on_the_same_items_is_in_the_profile() -> None:
    rng = np.random.default_rng(0)
    source = earlier("there", truth_of(rng), rng)
    source.runs.service_s[-1, :8] = np.nan  # the last prefix has other items
    found = profile_from_source(PIPELINE, source)
    assert found is not None
    assert len(found.configurations[0].items) == ITEMS - 8
    assert len(found.configurations) == len(CONFIGURATIONS)
    unloaded = SourceRuns(
        source.runs.prefixes, source.runs.service_s, source.runs.output_bytes, source.runs.input_bytes, {}
    )
    assert profile_from_source(PIPELINE, SourceScores("", CONFIGURATIONS, source.scores, unloaded)) is None
    part = tuple(Configuration.of({"see": c["see"]}) for c in CONFIGURATIONS)
    assert profile_from_source(PIPELINE, SourceScores("", part, source.scores, source.runs)) is None


@pytest.mark.parametrize("seed", SEVERAL_SEEDS)
def test_one_measurement_and_what_was_measured_elsewhere_predict_the_rest(seed: int) -> None:
    """Times, sizes and memory of every configuration are predicted for a machine that takes three times as long."""
    instance = random_instance(seed)
    assert len(instance.profile.configurations) > 3
    truth = {(n, o.prefix): o for c in instance.profile.configurations for n, o in c.operators.items()}
    runs = SourceRuns(
        prefixes=tuple(truth),
        service_s=np.array([o.service_s / 3.0 for o in truth.values()]),
        output_bytes=np.array([o.output_bytes for o in truth.values()]),
        input_bytes=instance.profile.configurations[0].input_bytes,
        replicas={
            (n, p[n]): StoredReplica(o.load_s, o.peak_memory_bytes, batch_ratio=o.batch_ratio)
            for (n, p), o in truth.items()
        },
    )
    space = ConfigurationSpace.of(instance.pipeline)
    elsewhere = SourceOperators(space, instance.pipeline, runs)
    known = replace(instance.profile, configurations=instance.profile.configurations[:1])
    predictor = ProfilePredictor(instance.pipeline, space, [elsewhere])
    assert predictor.learn(known)
    for found in predictor.predict(known, [c.configuration for c in instance.profile.configurations]).configurations:
        for name, operator in found.operators.items():
            there = truth[name, operator.prefix]
            # Only the caution at the minimum deviation remains.
            assert -0.2 < np.log(operator.service_s.mean() / there.service_s.mean()) < 0.05
            own = name, operator.prefix[name]
            if all(own != (n, o.prefix[n]) for n, o in known.configurations[0].operators.items()):
                assert operator.peak_memory_bytes == runs.replicas[own].peak_memory_bytes
                for allocation, ratio in runs.replicas[own].batch_ratio.items():
                    assert operator.batch_ratio[allocation] == ratio
