"""The next increment: a function of what is known that ends where nothing is open."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_races import ALL_ITEMS, LATENCY_ITEMS, random_footprints, random_standing

from budget import examples
from circinus.profiling.race.configuration_race import look_schedule
from circinus.profiling.race.racing import (
    MIN_SHARE,
    MeasurementStep,
    ScoreEvidence,
    expected_items_to_decide,
    next_measurement,
)
from circinus.profiling.race.verdicts import OpenQuestions, RaceSnapshot, open_questions

LOOKS = look_schedule(ALL_ITEMS)
seeds = st.integers(0, 100_000)
counts = st.integers(1, 9)
budgets = st.sampled_from([0.0, 5.0, 40.0, math.inf])


@dataclass
class Case:
    """Everything that a step is chosen by."""

    standing: RaceSnapshot
    decisions: OpenQuestions
    evidence: ScoreEvidence
    total_cpu_s: np.ndarray
    pace_s: np.ndarray
    """(k,) seconds of an item."""

    def seconds(self, configuration: int, items: int) -> float:
        return float(self.pace_s[configuration]) * max(0, items - int(self.standing.items[configuration]))

    def step(self, within_s: float = math.inf) -> MeasurementStep | None:
        return next_measurement(
            self.standing, self.decisions, self.evidence, self.total_cpu_s, LOOKS, self.seconds, within_s
        )

    def permuted(self, order: np.ndarray) -> Case:
        """Configuration `order[i]` becomes configuration i."""
        standing, decisions, evidence = self.standing, self.decisions, self.evidence
        return Case(
            standing=replace(standing, items=standing.items[order], meets=standing.meets[order]),
            decisions=OpenQuestions(
                decisions.open[order],
                decisions.certainly_met[order],
                decisions.needs_latency_items[order],
                decisions.covered_by,
            ),
            evidence=replace(
                evidence,
                variances=evidence.variances[order],
                estimate_meets=evidence.estimate_meets[order],
                margins=evidence.margins[order],
            ),
            total_cpu_s=self.total_cpu_s[order],
            pace_s=self.pace_s[order],
        )


def _random(seed: int, count: int, objectives: int) -> Case:
    """Numbers without ties."""
    rng = np.random.default_rng(seed)
    footprints = random_footprints(rng, count)
    standing = random_standing(rng, footprints, objectives)
    decisions = open_questions(standing, footprints)
    measured = standing.items > 0
    decisions = replace(
        decisions, open=decisions.open & measured[:, None], needs_latency_items=decisions.needs_latency_items & measured
    )
    evidence = ScoreEvidence(
        variances=rng.uniform(0.01, 0.25, count),
        estimate_meets=rng.random((count, objectives)) < 0.5,
        margins=rng.uniform(0.0, 0.5, (count, objectives)),
        score_range=1.0,
        side_risk=0.001,
        weights=rng.uniform(0.5, 2.0, objectives),
    )
    return Case(standing, decisions, evidence, rng.uniform(1.0, 2.0, count), rng.uniform(0.1, 3.0, count))


@given(seed=seeds, count=counts, objectives=st.integers(0, 4), within_s=budgets)
@settings(max_examples=examples(400))
def test_it_ends_where_nothing_is_open_and_goes_to_the_next_look(
    seed: int, count: int, objectives: int, within_s: float
) -> None:
    case = _random(seed, count, objectives)
    found = case.step(within_s)
    wanted = case.decisions.open.any(axis=1) | case.decisions.needs_latency_items
    assert (found is None) == (not wanted.any())
    if found is not None:
        assert wanted[found.configuration]
        items = int(case.standing.items[found.configuration])
        assert found.target == min(look for look in LOOKS if look > items)
        assert case.step(within_s) == found


@given(seed=seeds, count=counts, objectives=st.integers(1, 4), within_s=budgets)
@settings(max_examples=examples(400))
def test_which_configuration_is_listed_first_makes_no_difference(
    seed: int, count: int, objectives: int, within_s: float
) -> None:
    case = _random(seed, count, objectives)
    order = np.random.default_rng(seed + 1).permutation(count)
    found, permuted = case.step(within_s), case.permuted(order).step(within_s)
    assert (found is None) == (permuted is None)
    if found is not None and permuted is not None:
        assert order[permuted.configuration] == found.configuration
        assert permuted.target == found.target


def _waits(case: Case) -> dict[int, tuple[float, float]]:
    """Configuration -> (weight that waits for it, seconds), read from the definition."""
    standing, decisions, evidence = case.standing, case.decisions, case.evidence
    found: dict[int, list[tuple[float, float]]] = {}
    for q in range(decisions.open.shape[1]):
        open_ = [k for k in range(len(standing.items)) if decisions.open[k, q]]
        hopeful = [k for k in open_ if evidence.estimate_meets[k, q]]
        needs_s = {k: case.seconds(k, expected_items_to_decide(k, q, standing, evidence)) for k in open_}
        sure_s = [case.total_cpu_s[k] for k in range(len(standing.items)) if standing.meets[k, q]]
        if not open_:
            continue
        candidates, share = open_, MIN_SHARE
        if hopeful and not sure_s:
            candidates, share = hopeful, 1.0
        elif hopeful:
            cheapest_s = min(case.total_cpu_s[k] for k in hopeful)
            candidates = [k for k in open_ if case.total_cpu_s[k] <= cheapest_s]
            share = max(1 - cheapest_s / min(sure_s), MIN_SHARE)
        chosen = min(candidates, key=lambda k: needs_s[k])
        found.setdefault(chosen, []).append((share * evidence.weights[q], needs_s[chosen]))
    for k in np.flatnonzero(decisions.needs_latency_items).tolist():
        weight = sum(evidence.weights[q] for q in np.flatnonzero(decisions.certainly_met[k]))
        found.setdefault(k, []).append((weight, case.seconds(k, LATENCY_ITEMS)))
    return {k: (sum(w for w, _ in waits), max(s for _, s in waits)) for k, waits in found.items()}


@given(seed=seeds, count=counts, objectives=st.integers(1, 4), within_s=budgets)
@settings(max_examples=examples(400))
def test_the_greatest_weight_per_second_comes_first_of_what_the_budget_settles(
    seed: int, count: int, objectives: int, within_s: float
) -> None:
    case = _random(seed, count, objectives)
    found, waits = case.step(within_s), _waits(case)
    if found is None:
        assert not waits
        return
    within = {k: wait for k, wait in waits.items() if wait[1] <= within_s} or waits
    best = max(weight / max(seconds, 1e-9) for weight, seconds in within.values())
    weight, seconds = within[found.configuration]
    assert weight / max(seconds, 1e-9) >= best * (1 - 1e-9)


def _case(
    open_: list[list[bool]],
    items: list[int],
    keeps: list[list[bool]],
    meets: list[list[bool]] | None = None,
    **changes: object,
) -> Case:
    count, objectives = np.array(open_).shape
    nothing = np.zeros((count, objectives), dtype=bool)
    standing = RaceSnapshot(
        meets=nothing if meets is None else np.array(meets),
        fails=nothing,
        slow=nothing,
        items=np.array(items),
        latency_items=np.full(count, LATENCY_ITEMS),
        all_items=ALL_ITEMS,
        dominated_on_accuracy=np.zeros(count, dtype=bool),
        references=np.full(count, -1),
        pruned=nothing,
    )
    decisions = OpenQuestions(np.array(open_), nothing, np.zeros(count, dtype=bool), np.full((count, objectives), -1))
    evidence = ScoreEvidence(
        variances=np.full(count, 0.1),
        estimate_meets=np.array(keeps),
        margins=np.full((count, objectives), 0.2),
        score_range=1.0,
        side_risk=0.001,
        weights=np.ones(objectives),
    )
    values: dict[str, object] = {"total_cpu_s": np.arange(1.0, count + 1), "pace_s": np.ones(count)}
    return Case(standing, decisions, evidence, **{**values, **changes})  # type: ignore[arg-type]


def test_first_somebody_is_made_sure_as_soon_as_can_be() -> None:
    case = _case([[True]] * 3, [8, 8, 8], [[False], [True], [True]], pace_s=np.array([1.0, 9.0, 2.0]))
    assert case.step() == MeasurementStep(2, 16)


def test_then_what_is_no_costlier_than_the_cheapest_that_seems_to_keep_it() -> None:
    """The last one surely keeps it. The third seems to, but costs more than the second, which seems to as well."""
    open_, keeps = [[True], [True], [True], [False]], [[False], [True], [True], [True]]
    meets = [[False], [False], [False], [True]]
    pace_s = np.array([5.0, 9.0, 1.0, 1.0])
    assert _case(open_, [8] * 4, keeps, meets, pace_s=pace_s).step() == MeasurementStep(0, 16)
    pace_s = np.array([9.0, 5.0, 1.0, 1.0])
    assert _case(open_, [8] * 4, keeps, meets, pace_s=pace_s).step() == MeasurementStep(1, 16)


def test_where_none_seems_to_keep_it_the_one_that_is_out_soonest_comes_first() -> None:
    case = _case([[True]] * 3, [8, 8, 8], [[False]] * 3, pace_s=np.array([3.0, 2.0, 1.0]))
    assert case.step() == MeasurementStep(2, 16)


def test_several_objectives_that_wait_for_one_configuration_add_up() -> None:
    """Each of three objectives waits for its only open configuration; two of them are the same one, twice as slow."""
    open_ = [[True, True, False], [False, False, True]]
    case = _case(open_, [8, 8], [[True] * 3] * 2, pace_s=np.array([1.9, 1.0]))
    assert case.step() == MeasurementStep(0, 16)
    assert replace(case, pace_s=np.array([2.1, 1.0])).step() == MeasurementStep(1, 16)


def test_of_equals_the_first_listed() -> None:
    case = _case([[True, False], [False, True]], [8, 8], [[True, True]] * 2)
    assert case.step() == MeasurementStep(0, 16)


@given(
    margin=st.floats(0, 0.5),
    variance=st.floats(0.001, 0.25),
    items=st.integers(1, ALL_ITEMS - 1),
)
def test_items_expected_grow_as_the_margin_falls_and_never_beyond_all(
    margin: float, variance: float, items: int
) -> None:
    case = _case([[True]], [items], [[True]])

    def expected(margin: float, variance: float) -> int:
        evidence = replace(case.evidence, margins=np.array([[margin]]), variances=np.array([variance]))
        return expected_items_to_decide(0, 0, case.standing, evidence)

    found = expected(margin, variance)
    assert items < found <= ALL_ITEMS
    assert expected(margin / 2, variance) >= found
    assert expected(margin, variance * 2) >= found
