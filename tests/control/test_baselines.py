"""Tests of baselines: valid for the profiled distribution, and not too wide."""

from __future__ import annotations

import math

import numpy as np
import pytest

from circinus.control.drift.baselines import AccuracyBaseline, RunsBaseline, ServiceTimeBaseline, scaled_late_share
from circinus.control.drift.detector import DOWN, UP, Detector
from circinus.operators.protocol import NO_BRANCH
from circinus.profiling import OperatorProfile
from circinus.profiling.hardware.machine import MeasuredSpeed, Speeds
from circinus.profiling.item_runs import ItemRuns
from circinus.serving import ServedBatch
from circinus.specification import Allocation, Configuration, HardwareClass, KnobValues, MetricSpec
from circinus.statistics.interval import Interval

LOCAL = HardwareClass(name="local")
ALONE = Allocation(1.0, 1, 0.5)
ERRORS = MetricSpec(name="errors", uses="m:errors", direction="minimize", range=(0.0, 2.0))
RATIOS = {(1.0, 1): 1.0, (1.0, 4): 2.0, (2.0, 1): 1.0, (2.0, 4): 4.0}


def _profile(service_s: np.ndarray, **changes: object) -> OperatorProfile:
    values: dict[str, object] = {
        "operator": "o",
        "prefix": Configuration.of({"o": KnobValues()}),
        "service_s": service_s,
        "output_bytes": np.ones(len(service_s)),
        "peak_memory_bytes": 1.0,
        "load_s": 1.0,
        "batch_ratio": RATIOS,
        "measured_allocations": frozenset({(1.0, 1), (1.0, 4)}),
    }
    return OperatorProfile(**{**values, **changes})  # type: ignore[arg-type]


def _reference(service_s: np.ndarray, hardware: HardwareClass = LOCAL, **changes: object) -> ServiceTimeBaseline:
    found = ServiceTimeBaseline.of(_profile(service_s, **changes), hardware, tolerance=0.2, risk=0.01)
    assert found is not None
    return found


@pytest.mark.parametrize(("items", "spread"), [(8, 0.2), (8, 0.8), (30, 0.05), (60, 0.6)])
def test_a_reference_is_seldom_wrong_and_never_certain(items: int, spread: float) -> None:
    wrong, rng = 0, np.random.default_rng(1)
    live_s = 0.02 * np.exp(spread * rng.standard_normal(3000))
    for _ in range(200):
        reference = _reference(0.02 * np.exp(spread * rng.standard_normal(items)))
        placed = [reference.placed(ServedBatch(float(s), 1, "", 9), ALONE) for s in rng.choice(live_s, 300)]
        payoff = np.mean([p.payoff for p in placed if p is not None], axis=0)
        wrong += bool((payoff > reference.max_mean_payoff).any())
        assert reference.max_mean_payoff[0] < 1
    assert wrong <= 6  # 4 are guaranteed without tolerance; the tolerance lowers that


def test_from_a_few_items_less_is_concluded() -> None:
    rng = np.random.default_rng(2)
    service_s = 0.02 * np.exp(0.2 * rng.standard_normal(256))
    fair = [_reference(service_s[:n]).max_mean_payoff[0] for n in (8, 30, 256)]
    assert fair[0] > fair[1] > fair[2]
    assert ServiceTimeBaseline.of(_profile(service_s[:7]), LOCAL, tolerance=0.2, risk=0.01) is None


def test_so_many_seconds_are_allowed_of_the_shortest_times_and_hardly_any_of_long_ones() -> None:
    spread, tolerance_s = np.exp(0.05 * np.random.default_rng(2).standard_normal(60)), 5e-4

    def moved(usual_s: float, now_s: float) -> tuple[bool, bool]:
        profile = _profile(usual_s * spread)
        found = ServiceTimeBaseline.of(profile, LOCAL, tolerance=0.2, risk=0.01, tolerance_s=tolerance_s)
        assert found is not None
        placed = [found.placed(ServedBatch(float(s), 1, "", 9), ALONE) for s in now_s * spread]
        payoff = np.mean([one.payoff for one in placed if one is not None], axis=0)
        longer, shorter = (payoff > found.max_mean_payoff).tolist()
        return longer, shorter

    assert moved(1e-5, 1e-5 + 0.9 * tolerance_s) == (False, False)
    assert moved(1e-5, 1e-5 + 1.3 * tolerance_s) == (True, False)
    assert moved(1e-5, 1.0) == (True, False), "very much is seen of any"
    assert moved(5e-4, 1e-6) == (False, False)
    assert moved(0.1, 0.115) == (False, False)
    assert moved(0.1, 0.13) == (True, False)
    assert moved(0.1, 0.07) == (False, True)


def test_times_are_those_of_the_hardware_and_of_what_was_learnt() -> None:
    service_s = 0.02 * np.exp(0.1 * np.random.default_rng(3).standard_normal(40))
    hardware = HardwareClass(name="half", relative_speed=0.5, relative_speed_bounds=(0.4, 0.6))
    corrected = {"corrections": {("half", 0.4): 1.5}}
    plain, learnt = _reference(service_s, hardware), _reference(service_s, hardware, **corrected)
    assert plain.expected_s == pytest.approx(service_s.mean() / 0.4)
    assert learnt.expected_s == pytest.approx(1.5 * plain.expected_s)
    assert learnt.max_mean_payoff == pytest.approx(plain.max_mean_payoff)
    # Speed-ups within the uncertainty of the hardware are no drift.
    certain = _reference(service_s, HardwareClass(name="half", relative_speed=0.4))
    assert plain.max_mean_payoff[1] > certain.max_mean_payoff[1]
    assert plain.max_mean_payoff[0] == pytest.approx(certain.max_mean_payoff[0])


def test_batches_are_compared_with_batches() -> None:
    reference = _reference(np.full(20, 0.02))
    four = reference.placed(ServedBatch(0.04, 4, "", 9), Allocation(1.0, 4, 0.5))
    two = reference.placed(ServedBatch(0.02 * (1 + 1 / 3), 2, "", 9), Allocation(1.0, 4, 0.5))
    assert four is not None
    assert two is not None
    assert (four.value, two.value) == pytest.approx((0.02, 0.02))
    assert reference.placed(ServedBatch(0.04, 4, "", 9), Allocation(2.0, 4, 0.5)) is None, "not with so many CPUs"
    few = _reference(np.full(20, 0.02), measured_allocations=frozenset({(1.0, 4)}))
    assert few.placed(ServedBatch(0.02, 1, "", 9), Allocation(1.0, 4, 0.5)) is None, "not batches of so few"


def test_batches_of_unequal_items_are_nothing_that_moved() -> None:
    """The log of a mean of four values exceeds the mean of their logs."""
    rng = np.random.default_rng(4)
    reference = _reference(0.02 * np.exp(0.8 * rng.standard_normal(2000)))
    items_s = 0.02 * np.exp(0.8 * rng.standard_normal((3000, 4)))
    placed = [reference.placed(ServedBatch(float(s.mean()) * 2.0, 4, "", 9), Allocation(1.0, 4, 0.5)) for s in items_s]
    payoff = np.mean([p.payoff for p in placed if p is not None], axis=0)
    fair = np.mean([p.max_mean_payoff for p in placed if p is not None], axis=0)
    assert (payoff <= fair).all()


@pytest.mark.parametrize(("times", "side"), [(2.0, 0), (0.5, 1)])
def test_what_takes_twice_or_half_as_long_is_outside(times: float, side: int) -> None:
    reference = _reference(0.02 * np.exp(0.2 * np.random.default_rng(5).standard_normal(60)))
    placed = reference.placed(ServedBatch(0.02 * times, 1, "", 9), ALONE)
    assert placed is not None
    assert placed.payoff[side] > 1.5 * placed.max_mean_payoff[side]
    assert placed.payoff[1 - side] < placed.max_mean_payoff[1 - side]


def test_accuracy_is_as_sure_as_its_scores_and_in_the_units_of_the_metric() -> None:
    rng = np.random.default_rng(6)
    scores = rng.uniform(0.2, 0.4, 400)
    reference = AccuracyBaseline.of_scores(scores, ERRORS, tolerance=0.05, risk=0.01)
    least, most = (2.0 * side for side in (reference.minimum, reference.maximum))
    assert least < 0.3 - 0.1
    assert most > 0.3 + 0.1  # a twentieth of the range
    assert most - least < 0.5
    placed = reference.placed(0.5)
    assert placed.payoff == pytest.approx((0.25, 0.75))
    assert (placed.value, placed.expected) == (0.5, pytest.approx(scores.mean()))
    few = AccuracyBaseline.of_scores(scores[:8], ERRORS, tolerance=0.05, risk=0.01)
    assert few.maximum > reference.maximum


def test_through_anothers_answers_less_is_known() -> None:
    """Errors of 30 % against ground truth are between 20 % and 40 % against outputs with 10 % errors."""
    rng = np.random.default_rng(7)
    scores, others = rng.uniform(0.25, 0.35, 4000), rng.uniform(0.05, 0.15, 4000)
    found = AccuracyBaseline.through(scores, others, ERRORS, tolerance=0.0, risk=0.01)
    assert 2 * found.minimum == pytest.approx(0.2, abs=0.03)
    assert 2 * found.maximum == pytest.approx(0.4, abs=0.03)


def test_as_many_may_be_late_as_the_objective_says() -> None:
    placed = scaled_late_share(0.3, 95.0)
    assert placed.max_mean_payoff[0] == pytest.approx(0.05)
    assert placed.payoff[0] == 0.3
    assert math.isclose(placed.expected, 0.05)


def test_what_is_measured_on_a_class_goes_before_what_is_declared_of_it() -> None:
    service_s = np.random.default_rng(2).lognormal(-3.0, 0.2, 60)
    server = HardwareClass(name="server", relative_speed=2.0)
    speeds = Speeds({"server": MeasuredSpeed(Interval(1.0, 0.95, 1.1), 24)})
    found = _reference(service_s, server, speeds=speeds)
    assert found.expected_s == pytest.approx(float(service_s.mean()) / 0.95)
    declared = _reference(service_s, server)
    assert declared.expected_s == pytest.approx(float(service_s.mean()) / 2.0)
    assert found.max_mean_payoff[1] > declared.max_mean_payoff[1], "up to 1.1 times as fast as here"


def _with_counts(counts: np.ndarray, rng: np.random.Generator) -> OperatorProfile:
    """Return a profile of items with so many runs of 10 ms each, about."""
    runs = tuple(
        ItemRuns(
            tuple((index,) for index in range(count)),
            tuple((0.01 * np.exp(0.2 * rng.standard_normal(count))).tolist()),
            ((1.0,),) * count,
            ((NO_BRANCH,),) * count,
        )
        for count in counts.tolist()
    )
    return _profile(np.array([item.total_s for item in runs]), runs=runs)


def test_bounds_of_numbers_of_runs_hold_for_heavy_tails() -> None:
    wrong, rng = 0, np.random.default_rng(3)
    for _ in range(100):
        baseline = RunsBaseline.of(_with_counts(_heavy(rng, 60), rng), tolerance=0.0, risk=0.02)
        assert baseline is not None
        mean = np.minimum(_heavy(rng, 100_000), baseline.most).mean()
        wrong += not baseline.minimum <= mean <= baseline.maximum
    assert wrong <= 4  # of 2 sides with a risk of 2 % each


def _heavy(rng: np.random.Generator, items: int) -> np.ndarray:
    """Draw numbers of which a seventh is 0 and some are ten times the mean."""
    counts = np.minimum(np.floor(rng.lognormal(1.5, 1.0, items)), 200).astype(np.int64)
    return np.where(rng.random(items) < 1 / 7, 0, counts)


@pytest.mark.parametrize(("factor", "side"), [(1, None), (3, UP), (0, DOWN)])
def test_more_or_fewer_runs_are_detected(factor: int, side: int | None) -> None:
    rng = np.random.default_rng(4)
    baseline = RunsBaseline.of(_with_counts(_heavy(rng, 96), rng), tolerance=0.2, risk=0.01)
    assert baseline is not None
    detector = Detector.initial()
    for number, count in enumerate((factor * _heavy(rng, 3000)).tolist()):
        detector = detector.updated(baseline.placed(count), float(number), (0.5, 0.5))
        change = detector.change(86_400.0)
        if change is not None:
            break
    assert (None if change is None else change.side) == side
    if change is not None:
        assert change.values < 400


def test_single_runs_are_compared_with_batches_and_not_items() -> None:
    rng = np.random.default_rng(5)
    profile = _with_counts(_heavy(rng, 60), rng)
    assert float(profile.service_s.mean()) > 0.03
    reference = ServiceTimeBaseline.of(profile, LOCAL, tolerance=0.2, risk=0.01)
    assert reference is not None
    assert reference.expected_s == pytest.approx(0.01, rel=0.1)


def test_one_run_for_each_item_is_not_watched() -> None:
    rng = np.random.default_rng(6)
    assert RunsBaseline.of(_with_counts(np.ones(60, dtype=np.int64), rng), tolerance=0.2, risk=0.01) is None
    assert RunsBaseline.of(_with_counts(_heavy(rng, 4), rng), tolerance=0.2, risk=0.01) is None


def test_an_operator_that_no_profiled_item_reached_is_watched() -> None:
    rng = np.random.default_rng(8)
    baseline = RunsBaseline.of(_with_counts(np.zeros(60, dtype=np.int64), rng), tolerance=0.2, risk=0.01)
    assert baseline is not None
    assert baseline.placed(0).payoff[0] == 0.0
    assert baseline.placed(3).payoff[0] == 1.0
