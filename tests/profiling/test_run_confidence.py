"""What is sure of the mean scores of a run's configurations: sides, bounds and comparisons, all at one risk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import share_of
from circinus.profiling.race.run_confidence import RunConfidence, ThresholdVerdicts, per_sequence_alpha
from circinus.specification import AccuracySlo, MetricSpec
from circinus.statistics.betting import betting_bounds
from circinus.statistics.sequential_test import SequentialThresholdTest
from simulated_populations import random_orders

SIZE = 60
seeds = st.integers(0, 100_000)


def _metric(direction: str = "maximize", low: float = 0.0, high: float = 1.0) -> MetricSpec:
    return MetricSpec(name="close", uses="sample_data:close", direction=direction, range=(low, high))


def _strata(labels: np.ndarray) -> list[dict[str, str]]:
    return [{"noise": str(label)} for label in labels]


def _slos(*thresholds: float, comparison: str = ">=") -> list[AccuracySlo]:
    return [AccuracySlo(threshold=threshold, comparison=comparison) for threshold in thresholds]


def _of_run(metric: MetricSpec, labels: np.ndarray, configurations: int = 3, risk: float = 0.05) -> RunConfidence:
    return RunConfidence.of_run(metric, _strata(labels), risk, configurations)


def _sides(confidence: RunConfidence, scores: np.ndarray, objectives: list[AccuracySlo]) -> ThresholdVerdicts:
    """Of each row of scores."""
    found = []
    for row in scores:
        running = confidence.sequential_test(objectives)
        running.extend(row)
        found.append(ThresholdVerdicts.of(running.decisions, objectives))
    return ThresholdVerdicts(*(np.array([getattr(sides, side) for sides in found]) for side in ("meets", "fails")))


def _as_good(confidence: RunConfidence, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether each row of the first is surely no worse than that of the second."""
    found = []
    for one, other in zip(first, second, strict=True):
        comparison = confidence.sequential_comparison()
        comparison.extend(confidence.paired_differences(one, other))
        found.append(comparison.decisions.at_least[0])
    return np.array(found)


@given(seed=seeds, drawn=st.integers(0, SIZE), direction=st.sampled_from(["maximize", "minimize"]))
def test_sides_are_what_the_bounds_say(seed: int, drawn: int, direction: str) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, SIZE)
    low, high = -1.0, 3.0
    scores = np.clip(rng.normal(rng.uniform(low, high, (4, 1)), 0.3, (4, SIZE)) + 0.2 * labels, low, high)
    confidence = _of_run(_metric(direction, low, high), labels)
    bounds = confidence.bounds(scores[:, :drawn])
    comparison = ">=" if direction == "maximize" else "<="
    # A threshold that is mirrored is no harder: the same numbers serve both comparisons.
    objectives = _slos(-2.0, -1.0, 0.0, 0.7, 1.3, 2.0, 3.0, 4.0, comparison=comparison)
    found = _sides(confidence, scores[:, :drawn], objectives)
    for row, bounded in enumerate(bounds):
        for column, slo in enumerate(objectives):
            if min(abs(bounded.lower - slo.threshold), abs(bounded.upper - slo.threshold)) < 1e-5:
                continue
            both = slo.is_met_by(bounded.lower), slo.is_met_by(bounded.upper)
            assert found.meets[row, column] == all(both)
            assert found.fails[row, column] == (not any(both))


def test_what_is_at_most_mirrors_what_is_at_least() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, SIZE), rng.random((5, SIZE // 2))
    thresholds = np.linspace(0.05, 0.95, 10)
    rising = _sides(_of_run(_metric(), labels), scores, _slos(*thresholds))
    falling = _sides(_of_run(_metric("minimize"), labels), 1 - scores, _slos(*(1 - thresholds), comparison="<="))
    np.testing.assert_array_equal(rising.meets, falling.meets)
    np.testing.assert_array_equal(rising.fails, falling.fails)
    assert rising.meets.any()
    assert rising.fails.any()


def test_all_items_decide_everything_by_their_mean() -> None:
    scores = np.array([[0.0, 0.5, 1.0, 0.5], [0.5, 0.5, 0.5, 0.75]])
    confidence = _of_run(_metric(), np.zeros(4))
    assert [(b.lower, b.upper) for b in confidence.bounds(scores)] == [(0.5, 0.5), (0.5625, 0.5625)]
    found = _sides(confidence, scores, _slos(0.5, 0.55))
    assert found.meets.tolist() == [[True, False], [True, True]]
    assert found.fails.tolist() == [[False, True], [False, False]]
    falling = _sides(_of_run(_metric("minimize"), np.zeros(4)), scores, _slos(0.5, 0.55, comparison="<="))
    assert falling.meets.tolist() == [[True, True], [False, False]]
    assert falling.fails.tolist() == [[False, False], [True, True]]


@given(seed=seeds, drawn=st.lists(st.integers(0, 20), max_size=5))
def test_what_is_kept_up_is_what_is_computed_at_once(seed: int, drawn: list[int]) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.choice([0.0, 0.4, 1.0], (2, SIZE)), rng.integers(0, 3, SIZE)
    confidence, objectives = _of_run(_metric(), labels), _slos(0.1, 0.4, 0.6, 0.9)
    running, comparison = confidence.sequential_test(objectives), confidence.sequential_comparison()
    for step in [*drawn, SIZE]:
        new = slice(running.items, min(running.items + step, SIZE))
        running.extend(scores[0, new])
        comparison.extend(confidence.paired_differences(scores[0, new], scores[1, new]))
        sides = _sides(confidence, scores[:1, : new.stop], objectives)
        np.testing.assert_array_equal(running.decisions.at_least, sides.meets[0])
        np.testing.assert_array_equal(running.decisions.below, sides.fails[0])
        as_good = _as_good(confidence, scores[:1, : new.stop], scores[1:, : new.stop])
        assert comparison.decisions.at_least[0] == as_good[0]


@given(seed=seeds, size=st.integers(1, 40), direction=st.sampled_from(["maximize", "minimize"]))
def test_on_all_items_as_good_is_as_good(seed: int, size: int, direction: str) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 5, (2, 6, size)) / 4
    confidence = _of_run(_metric(direction), np.zeros(size))
    sign = 1 if direction == "maximize" else -1
    expected = [sign * (a.sum() - b.sum()) >= 0 for a, b in zip(first, second, strict=True)]
    assert _as_good(confidence, first, second).tolist() == expected


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_pairs_tell_a_small_difference_that_means_hide(direction: str, sign: float) -> None:
    rng = np.random.default_rng(1)
    worse = 0.1 + 0.8 * (rng.random((1, 400)) < 0.5)
    better = worse + sign * 0.05
    confidence = _of_run(_metric(direction), np.zeros(2000))
    assert _as_good(confidence, better, worse).tolist() == [True]
    assert _as_good(confidence, worse, better).tolist() == [False]
    one, other = confidence.bounds(np.vstack([better, worse]))
    assert max(one.lower, other.lower) < min(one.upper, other.upper)
    assert not _as_good(confidence, worse, worse).any()


def test_advantages_stay_in_their_range() -> None:
    """A difference of range ends may round to more than the range is wide."""
    low, high = -0.1, 0.7000000000000001
    first, second = np.array([high, low, 0.3]), np.array([low, high, 0.2])
    for direction, sign in (("maximize", 1.0), ("minimize", -1.0)):
        confidence = _of_run(_metric(direction, low, high), np.zeros(9))
        found = confidence.paired_differences(first, second)
        assert found == pytest.approx(sign * (first - second))
        assert np.abs(found).max() <= high - low


def test_strata_tighten_the_bounds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    scores = np.clip(0.25 * labels + rng.normal(0.1, 0.05, (1, 400)), 0, 1)[:, :120]
    known, unknown = _of_run(_metric(), labels), _of_run(_metric(), np.zeros(400))
    width = [b.upper - b.lower for confidence in (known, unknown) for b in confidence.bounds(scores)]
    assert width[0] < 0.8 * width[1]


def test_a_score_outside_the_range_is_refused_by_name() -> None:
    confidence = _of_run(_metric(high=0.5), np.zeros(9))
    scores = np.array([[0.1, 0.2], [0.3, 0.75]])
    with pytest.raises(ValueError, match=r"score 0\.75 of configuration 1, item 1"):
        confidence.bounds(scores)
    with pytest.raises(ValueError, match=r"score 0\.75 of configuration 0, item 1"):
        _sides(confidence, scores, _slos(0.3))


@pytest.mark.parametrize(
    ("direction", "shape"), [("maximize", "coins"), ("minimize", "strata"), ("maximize", "nearly perfect")]
)
def test_nothing_said_in_a_whole_run_is_wrong_more_often_than_promised(direction: str, shape: str) -> None:
    """Six configurations, thresholds just beside each mean, each compared with its partner; looking after every item.

    What was ever said is still said after all items but one, as sequences forget nothing.
    """
    runs, promised, count = share_of(250), 0.3, 6
    rng = np.random.default_rng(7)
    size = 40
    labels = np.arange(size) % 3
    common = rng.random(size)
    scores = {
        "coins": (rng.random((count, size)) < np.linspace(0.3, 0.7, count)[:, None]).astype(float),
        "strata": np.clip(0.3 * labels + 0.2 * common + rng.normal(0.1, 0.05, (count, size)), 0, 1),
        "nearly perfect": (rng.random((count, size)) < 0.94).astype(float),
    }[shape]
    means, sign = scores.mean(axis=1), 1.0 if direction == "maximize" else -1.0
    comparison = ">=" if direction == "maximize" else "<="
    thresholds = np.unique(np.concatenate([means + offset for offset in (-0.1, -1e-6, 1e-6, 0.1)]))
    objectives = _slos(*thresholds[(thresholds >= 0) & (thresholds <= 1)], comparison=comparison)
    truth = np.array([[slo.is_met_by(mean) for slo in objectives] for mean in means])
    partners = (np.arange(count) + 1) % count
    truly_as_good = sign * (means[partners] - means) >= -1e-12
    wrong = said = 0
    for _ in range(runs):
        order = rng.permutation(size)
        drawn = scores[:, order[:-1]]
        confidence = RunConfidence.of_run(_metric(direction), _strata(labels[order]), promised, count)
        sides = _sides(confidence, drawn, objectives)
        as_good = _as_good(confidence, drawn[partners], drawn)
        wrong += bool((sides.meets & ~truth).any() or (sides.fails & truth).any() or (as_good & ~truly_as_good).any())
        said += int(sides.meets.sum() + sides.fails.sum() + as_good.sum())
    assert said > runs * len(objectives)
    assert wrong / runs <= promised


def test_the_risk_is_that_of_the_run() -> None:
    """More configurations: less risk for each, so wider bounds."""
    scores = np.random.default_rng(0).random((1, 30))
    few, many = (_of_run(_metric(), np.zeros(SIZE), configurations=n).bounds(scores)[0] for n in (1, 100))
    assert many.lower < few.lower < few.upper < many.upper
    assert _of_run(_metric(), np.zeros(SIZE), configurations=5, risk=0.2).side_risk == pytest.approx(0.2 / 20)


def test_shares_add_up_to_the_risk() -> None:
    assert per_sequence_alpha(0.05, 25) * 50 == pytest.approx(0.05)
    assert per_sequence_alpha(0.05, 25, comparisons=24) * 98 == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("risk", "configurations", "comparisons"), [(0.0, 1, 0), (1.0, 1, 0), (0.1, 0, 0), (0.1, 1, -1)]
)
def test_what_cannot_be_is_refused(risk: float, configurations: int, comparisons: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        per_sequence_alpha(risk, configurations, comparisons)


def test_in_a_whole_run_anything_is_wrong_at_most_as_often_as_promised() -> None:
    """Six independent coins, each with thresholds just beside its mean, all compared with the first."""
    size, promised, runs = 60, 0.2, share_of(300)
    rng = np.random.default_rng(3)
    scores = (rng.random((6, size)) < np.linspace(0.2, 0.8, 6)[:, None]).astype(float)
    means = scores.mean(axis=1)
    thresholds = np.concatenate([means + 1e-6, means - 1e-6])
    risk = per_sequence_alpha(promised, configurations=6, comparisons=5)
    drawn = scores[:, random_orders(size, runs=runs)[:, :-1]]  # (6, runs, items)
    wrong = np.zeros(runs, dtype=bool)
    for mean, coin in zip(means, drawn, strict=True):
        for run, seen in enumerate(coin):
            test = SequentialThresholdTest(size, thresholds, risk=risk)
            test.extend(seen)
            found = test.decisions
            wrong[run] |= ((found.above & (thresholds >= mean)) | (found.below & (thresholds <= mean))).any()
    for mean, coin in zip(means[1:] - means[0], drawn[1:], strict=True):
        differences = betting_bounds(coin - drawn[0], size, risk=risk, low=-1.0)
        wrong |= [not found.lower - 1e-6 <= mean <= found.upper + 1e-6 for found in differences]
    assert 0 < wrong.mean() <= promised
