"""The next increment: a function of what is known that ends where nothing is open."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_races import ALL_ITEMS, LATENCY_ITEMS, race_state, random_footprints, random_state

from budget import examples
from circinus.profiling.race.configuration_race import (
    MeasurementStep,
    expected_items_to_decide,
    look_schedule,
    next_measurement,
)
from circinus.profiling.race.race_state import RaceState
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.settings import PROFILING
from circinus.specification import AccuracySlo, Slos

LOOKS = look_schedule(ALL_ITEMS)
seeds = st.integers(0, 100_000)
counts = st.integers(1, 9)
budgets = st.sampled_from([0.0, 5.0, 40.0, math.inf])
UNARRAYED = ("slos", "confidence", "usage")


@dataclass
class Case:
    """Everything that a step is chosen by."""

    state: RaceState
    pace_s: np.ndarray
    """(k,) seconds of an item."""

    def seconds(self, configuration: int, items: int) -> float:
        return float(self.pace_s[configuration]) * max(0, items - int(self.state.items[configuration]))

    def step(self, within_s: float = math.inf) -> MeasurementStep | None:
        return next_measurement(self.state, LOOKS, self.seconds, within_s)

    def wanted(self) -> np.ndarray:
        """(k,) measured, and more items may decide something."""
        return ~self.state.settled & (self.state.items > 0)

    def permuted(self, order: np.ndarray) -> Case:
        """Configuration `order[i]` becomes configuration i."""
        state, place = self.state, np.argsort(order)
        arrays = {f.name: getattr(state, f.name)[order] for f in fields(state) if f.name not in UNARRAYED}
        arrays["references"] = np.where(arrays["references"] < 0, -1, place[arrays["references"]])
        usage = state.usage
        usage = ResourceUsage(
            usage.cpu_s[order],
            usage.output_bytes[order],
            usage.memory_bytes[order],
            usage.items[order],
            usage.knob_ids[order],
        )
        return Case(replace(state, usage=usage, **arrays), self.pace_s[order])


def _random(seed: int, count: int, objectives: int) -> Case:
    """Numbers without ties."""
    rng = np.random.default_rng(seed)
    usage = random_footprints(rng, count)
    usage = replace(usage, cpu_s=usage.cpu_s * rng.uniform(1, 1.0001, (count, 1, 1)))
    state = random_state(rng, usage, objectives)
    weights = tuple(rng.uniform(0.5, 2.0, objectives).tolist())
    return Case(replace(state, slos=replace(state.slos, weights=weights)), rng.uniform(0.1, 3.0, count))


@given(seed=seeds, count=counts, objectives=st.integers(0, 4), within_s=budgets)
@settings(max_examples=examples(400))
def test_it_ends_where_nothing_is_open_and_goes_to_the_next_look(
    seed: int, count: int, objectives: int, within_s: float
) -> None:
    case = _random(seed, count, objectives)
    found = case.step(within_s)
    wanted = case.wanted()
    assert (found is None) == (not wanted.any())
    if found is not None:
        assert wanted[found.configuration]
        items = int(case.state.items[found.configuration])
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
    state, weights = case.state, case.state.slos.weights
    total_cpu_s, measured = state.usage.total_cpu_s, state.items > 0
    found: dict[int, list[tuple[float, float]]] = {}
    for q in range(len(weights)):
        open_ = [k for k in range(len(state.items)) if state.open[k, q] and measured[k]]
        hopeful = [k for k in open_ if state.estimate_meets[k, q]]
        needs_s = {k: case.seconds(k, int(expected_items_to_decide(np.array([k]), q, state)[0])) for k in open_}
        sure_s = [total_cpu_s[k] for k in range(len(state.items)) if state.meets[k, q]]
        if not open_:
            continue
        candidates, share = open_, PROFILING.min_question_value
        if hopeful and not sure_s:
            candidates, share = hopeful, 1.0
        elif hopeful:
            cheapest_s = min(total_cpu_s[k] for k in hopeful)
            candidates = [k for k in open_ if total_cpu_s[k] <= cheapest_s]
            share = max(1 - cheapest_s / min(sure_s), PROFILING.min_question_value)
        chosen = min(candidates, key=lambda k: needs_s[k])
        found.setdefault(chosen, []).append((share * weights[q], needs_s[chosen]))
    for k in np.flatnonzero(state.needs_latency_items & measured).tolist():
        weight = sum(weights[q] for q in np.flatnonzero(state.certainly_met[k] & ~state.pruned[k]))
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
    keeps: list[bool],
    meets: list[list[bool]] | None = None,
    pace_s: np.ndarray | None = None,
) -> Case:
    """Each configuration costs more than the one before; `keeps` is whether its estimate meets every SLO."""
    count, objectives = np.array(open_).shape
    accurate = np.zeros((count, objectives), dtype=bool) if meets is None else np.array(meets)
    ones = np.ones((count, 1, 1))
    usage = ResourceUsage(  # without memory none may replace another
        cpu_s=np.arange(1.0, count + 1)[:, None, None] * ones,
        output_bytes=ones,
        memory_bytes=np.full((count, 1), np.nan),
        items=np.ones(count, dtype=np.int64),
        knob_ids=np.arange(count)[:, None],
    )
    state = race_state(
        usage,
        (Slos(accuracy=AccuracySlo(threshold=0.5)),) * objectives,
        accurate=accurate,
        inaccurate=~np.array(open_) & ~accurate,
        items=np.array(items),
        latency_items=np.zeros(count, dtype=np.int64),
        means=np.where(keeps, 0.7, 0.3),
        variances=np.full(count, 0.1),
    )
    return Case(state, np.ones(count) if pace_s is None else pace_s)


def test_first_somebody_is_made_sure_as_soon_as_can_be() -> None:
    case = _case([[True]] * 3, [8, 8, 8], [False, True, True], pace_s=np.array([1.0, 9.0, 2.0]))
    assert case.step() == MeasurementStep(2, 16)


def test_then_what_is_no_costlier_than_the_cheapest_that_seems_to_keep_it() -> None:
    """The last one surely keeps it. The third seems to, but costs more than the second, which seems to as well."""
    open_, keeps = [[True], [True], [True], [False]], [False, True, True, True]
    meets = [[False], [False], [False], [True]]
    pace_s = np.array([5.0, 9.0, 1.0, 1.0])
    assert _case(open_, [8] * 4, keeps, meets, pace_s=pace_s).step() == MeasurementStep(0, 16)
    pace_s = np.array([9.0, 5.0, 1.0, 1.0])
    assert _case(open_, [8] * 4, keeps, meets, pace_s=pace_s).step() == MeasurementStep(1, 16)


def test_where_none_seems_to_keep_it_the_one_that_is_out_soonest_comes_first() -> None:
    case = _case([[True]] * 3, [8, 8, 8], [False] * 3, pace_s=np.array([3.0, 2.0, 1.0]))
    assert case.step() == MeasurementStep(2, 16)


def test_several_objectives_that_wait_for_one_configuration_add_up() -> None:
    """Each of three objectives waits for its only open configuration; two of them are the same one, twice as slow."""
    open_ = [[True, True, False], [False, False, True]]
    case = _case(open_, [8, 8], [True] * 2, pace_s=np.array([1.9, 1.0]))
    assert case.step() == MeasurementStep(0, 16)
    assert replace(case, pace_s=np.array([2.1, 1.0])).step() == MeasurementStep(1, 16)


def test_of_equals_the_first_listed() -> None:
    case = _case([[True, False], [False, True]], [8, 8], [True] * 2)
    assert case.step() == MeasurementStep(0, 16)


@given(
    margin=st.floats(0, 0.5),
    variance=st.floats(0.001, 0.25),
    items=st.integers(1, ALL_ITEMS - 1),
)
def test_items_expected_grow_as_the_margin_falls_and_never_beyond_all(
    margin: float, variance: float, items: int
) -> None:
    case = _case([[True]], [items], [True])

    def expected(margin: float, variance: float) -> int:
        state = replace(case.state, means=np.array([0.5 + margin]), variances=np.array([variance]))
        return int(expected_items_to_decide(np.array([0]), 0, state)[0])

    found = expected(margin, variance)
    assert items < found <= ALL_ITEMS
    assert expected(margin / 2, variance) >= found
    assert expected(margin, variance * 2) >= found
