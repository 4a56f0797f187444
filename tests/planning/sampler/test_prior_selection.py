"""Source scores help if they are similar, and are dropped if they mislead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.arrays import FloatArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.prior_selection import (
    MeanPrior,
    MeasuredScores,
    _factor,
    inflate_uncertainty,
    select_prior,
)
from circinus.planning.sampler.source_scores import SourceTask
from circinus.planning.sampler.surrogate import Belief
from circinus.specification import Configuration, Knob, KnobValues, OperatorSpec
from planning.sampler.spaces import chain, pipeline_of

SPACE = chain([5], [-4, 3], [4])
EVERYTHING = SPACE.enumerate()
NOISE = 0.01


def landscape(rng: np.random.Generator) -> FloatArray:
    """Return scores over `SPACE` with a rugged component that no surrogate can predict."""
    levels = [rng.normal(0, 0.12, len(knob.choices)) for knob in SPACE.columns]
    smooth = np.sum([level[EVERYTHING[:, i]] for i, level in enumerate(levels)], axis=0)
    return np.asarray(0.5 + smooth + rng.normal(0, 0.05, len(EVERYTHING)))


def source_of(name: str, scores: FloatArray) -> SourceTask:
    source = SourceTask.of(name, SPACE, SPACE.decode(EVERYTHING), scores)
    assert source is not None
    return source


def measured(truth: FloatArray, sources: list[SourceTask], count: int, rng: np.random.Generator) -> MeanPrior:
    rows = rng.permutation(len(truth))[:count]
    means = truth[rows] + rng.normal(0, NOISE, count)
    variances = np.full(count, NOISE**2)
    return select_prior(SPACE, sources, EVERYTHING[rows], means, variances)


def error(prior: MeanPrior, name: str | None, truth: FloatArray) -> float:
    fit = prior.fits[name]
    return float(np.sqrt(np.mean((fit.predict(EVERYTHING, _at(prior, name)).mean - truth) ** 2)))


@pytest.mark.parametrize("count", [3, 4, 6])
def test_a_source_that_ranks_alike_helps_though_its_level_is_another(count: int) -> None:
    errors, used = [], 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        truth = landscape(rng)
        there = 0.8 * truth - 0.1 + rng.normal(0, 0.03, len(truth))
        ranks = [np.argsort(np.argsort(scores)) for scores in (truth, there)]
        assert np.corrcoef(*ranks)[0, 1] > 0.95
        prior = measured(truth, [source_of("there", there)], count, rng)
        used += prior.name == "there"
        errors.append((error(prior, prior.name, truth), error(prior, None, truth)))
    ours, without = np.mean(errors, axis=0)
    assert used >= 7
    assert ours < 0.6 * without


def dropped(kind: str, seed: int) -> bool:
    """Return whether a misleading source is dropped after three to six measurements."""
    rng = np.random.default_rng(seed)
    truth = landscape(rng)
    there = {
        "shuffled": rng.permutation(truth),
        "reversed": truth.max() + truth.min() - truth,
        "random": rng.uniform(0.2, 0.8, len(truth)),
    }[kind]
    rows = rng.permutation(len(truth))[:6]
    means = truth[rows] + rng.normal(0, NOISE, len(rows))
    source = source_of("there", there)
    for count in range(3, 7):
        variances = np.full(count, NOISE**2)
        prior = select_prior(SPACE, [source], EVERYTHING[rows[:count]], means[:count], variances)
        if prior.name is None:
            assert prior.reason.startswith("dropped scores of there: they make ")
            return True
    return False


@pytest.mark.parametrize(("kind", "least"), [("reversed", 14), ("shuffled", 12), ("random", 12)])
def test_a_misleading_source_is_dropped_within_six_measurements(kind: str, least: int) -> None:
    """Six scores may agree with a source by chance: of 40 shuffles, one correlates above 0.81."""
    assert sum(dropped(kind, seed) for seed in range(14)) >= least


def test_of_several_the_better_one_is_taken() -> None:
    rng = np.random.default_rng(3)
    truth = landscape(rng)
    sources = [
        source_of("shuffled", rng.permutation(truth)),
        source_of("near", truth + 0.1),
        source_of("far", truth + rng.normal(0, 0.15, len(truth))),
    ]
    prior = measured(truth, sources, 8, rng)
    assert prior.name == "near"
    assert "scores of near make 8 measurements" in prior.reason
    assert sum(prior.probabilities.values()) == pytest.approx(1.0)
    assert max(prior.probabilities, key=lambda name: prior.probabilities[name]) == "near"
    parts = {name: prior.fits[name].predict(EVERYTHING, _at(prior, name)) for name in prior.probabilities}
    mean = sum(share * parts[name].mean for name, share in prior.probabilities.items())
    np.testing.assert_allclose(prior.belief(EVERYTHING).mean, mean)
    assert (prior.belief(EVERYTHING).deviation >= 0.9 * parts["near"].deviation).all()
    again = measured(truth, sources, 9, np.random.default_rng(3))
    assert again.name == "near"


def _at(prior: MeanPrior, name: str | None) -> FloatArray | None:
    return None if name is None else prior.sources[name].at(EVERYTHING)


def test_few_measurements_leave_room_for_the_source_to_mislead() -> None:
    rng = np.random.default_rng(5)
    truth = landscape(rng)
    prior = measured(truth, [source_of("there", truth)], 1, rng)
    assert 0.2 < prior.probabilities[None] < 0.5
    alone = prior.fits["there"].predict(EVERYTHING, truth)
    assert (prior.belief(EVERYTHING).deviation > alone.deviation).mean() > 0.9


def test_without_a_source_there_is_a_fit_alone() -> None:
    rng = np.random.default_rng(4)
    assert measured(landscape(rng), [], 3, rng).reason == "no source is available"


def _target() -> ConfigurationSpace:
    return ConfigurationSpace.of(
        pipeline_of(
            OperatorSpec(name="a", uses="m:f", knobs=[Knob(name="x", choices=[1, 2, 3], ordered=True)]),
            OperatorSpec(name="b", uses="m:f", knobs=[Knob(name="y", choices=["p", "q"])]),
        )
    )


def _configuration(**operators: dict[str, int | str]) -> Configuration:
    return Configuration.of({name: KnobValues.of(values) for name, values in operators.items()})


def test_what_a_source_does_not_share_makes_no_difference() -> None:
    space = _target()
    elsewhere = [_configuration(a={"x": x, "old": o}, c={"z": 1}) for x in (1, 3, 7) for o in (0, 1)]
    source = SourceTask.of("s", space, elsewhere, np.array([0.1, 0.3, 0.6, 0.8, 0.0, 0.0]))
    assert source is not None
    assert source.shared.tolist() == [True, False]
    assert source.codes.tolist() == [[0, -1], [2, -1]]  # the target has no choice 7
    assert source.means == pytest.approx([0.2, 0.7])
    found = source.at(space.enumerate())
    assert found[[0, 1, 4, 5]] == pytest.approx([0.2, 0.2, 0.7, 0.7])
    assert found[2] == pytest.approx(found[3])
    assert 0.2 < found[2] < 0.7


def test_a_source_that_shares_nothing_is_none() -> None:
    assert SourceTask.of("s", _target(), [_configuration(a={"y": 1}, d={})], np.array([0.5])) is None
    assert SourceTask.of("s", _target(), [_configuration(a={"x": 9})], np.array([0.5])) is None
    assert SourceTask.of("s", _target(), [], np.array([])) is None


@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_errors_of_the_prior_mean_are_told_from_those_of_measurements(seed: int, count: int) -> None:
    """The reference is the joint normal distribution, conditioned at once."""
    rng = np.random.default_rng(seed)
    everything = count + 3
    root = rng.normal(0, 1, (everything, everything))
    process, uncertain = root @ root.T, rng.uniform(0, 2, everything) * (rng.random(everything) < 0.8)
    noise, means = rng.uniform(0.1, 2, count), rng.normal(0, 1, count)

    def conditioned(covariance: FloatArray, observed: FloatArray) -> tuple[FloatArray, FloatArray]:
        gain = covariance[:, :count] @ np.linalg.inv(observed)
        return gain @ means, np.diag(covariance - gain @ covariance[:count])

    errors = np.diag(noise + uncertain[:count])
    mean, variance = conditioned(process, process[:count, :count] + errors)
    both = process + np.diag(uncertain)
    expected_mean, expected_variance = conditioned(both, both[:count, :count] + np.diag(noise))
    codes = np.arange(everything)[:, None]
    found = inflate_uncertainty(
        Belief(mean, np.sqrt(variance)), codes, uncertain, MeasuredScores(codes[:count], means, noise)
    )
    np.testing.assert_allclose(found.mean, expected_mean, atol=1e-8)
    np.testing.assert_allclose(found.deviation**2, expected_variance, atol=1e-8)


def test_beliefs_about_a_noisy_source_are_as_wide_as_they_are_wrong() -> None:
    """The source has few items of a quarter of the configurations: it helps, but not more than its noise permits."""
    squares, errors = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth = landscape(rng)
        known = rng.permutation(len(truth))[: len(truth) // 4]
        there = truth[known] + 0.1 + rng.normal(0, 0.08, len(known))
        configurations = SPACE.decode(EVERYTHING[known])
        source = SourceTask.of("few", SPACE, configurations, there, variances=np.full(len(known), 0.08**2))
        assert source is not None
        prior = measured(truth, [source], 6, rng)
        belief = prior.belief(EVERYTHING)
        squares.append(np.mean(((belief.mean - truth) / belief.deviation) ** 2))
        errors.append((np.sqrt(np.mean((belief.mean - truth) ** 2)), error(prior, None, truth)))
    assert 0.3 < float(np.mean(squares)) < 1.6
    ours, without = np.mean(errors, axis=0)
    assert ours < 0.85 * without


def test_a_mean_over_what_is_not_shared_errs_less_than_its_parts() -> None:
    space = _target()
    elsewhere = [_configuration(a={"x": x, "old": o}, c={"z": 1}) for x in (1, 3) for o in (0, 1)]
    source = SourceTask.of("s", space, elsewhere, np.full(4, 0.5), variances=np.array([0.04, 0.08, 0.01, 0.01]))
    assert source is not None
    assert source.variances_at(space.enumerate())[[0, 4]] == pytest.approx([0.03, 0.005])
    assert source.variances_at(space.enumerate())[2] > 0.0


@pytest.mark.parametrize(
    ("nats", "words"),
    [(0.0, "1 times"), (1.13, "3.1 times"), (-7.3, "1/1,500"), (20.0, "more than a million times"),
     (-20.0, "less than a millionth")],
)  # fmt: skip
def test_ratios_of_probabilities_are_said_in_two_digits(nats: float, words: str) -> None:
    assert _factor(nats) == words
