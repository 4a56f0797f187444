"""Joint selection for several queries against the definitions; pruning never removes a query's best plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.planning.sampler.acquisition import QueryBelief, select_next_configuration, settling_share
from circinus.planning.sampler.reservation_index import StoppingRule
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, KnobValues
from circinus.statistics.interval import Interval

STOPPING = StoppingRule()
seeds = st.integers(0, 100_000)


def _random(seed: int) -> list[QueryBelief]:
    rng = np.random.default_rng(seed)
    count, situations = int(rng.integers(1, 8)), int(rng.integers(1, 4))
    begun = rng.random(count) < 0.6
    log_std, look_s = (np.where(begun, 0.0, share * rng.random(count)) for share in (0.2, 1.0))
    outlooks = []
    for _ in range(int(rng.integers(1, 4))):
        sure = begun & (rng.random(count) < 0.4)
        exact = rng.choice([1.0, 1.02, 1.5, 2.0, np.inf], (count, situations))
        outlooks.append(
            QueryBelief(
                feasibility=np.where(sure, 1.0, rng.choice([0.0, 0.001, 0.03, 0.5, 0.9], count)),
                is_certain=sure,
                is_measured=begun,
                look_s=look_s,
                settle_s=rng.random(count) + 0.1,
                log_std=log_std,
                usd_per_h=exact * rng.choice([1.0, 0.9], exact.shape),
                floor_usd_per_h=np.where(rng.random(exact.shape) < 0.5, 0.0, exact),
                certain_usd_per_h=np.where(sure[:, None], exact, np.inf),
                weight=float(rng.choice([1.0, 3.0])),
            )
        )
    return outlooks


@given(seeds)
def test_what_is_pursued_may_improve_a_querys_plan_and_nothing_is_only_where_nothing_may(seed: int) -> None:
    outlooks = _random(seed)
    found = select_next_configuration(outlooks, STOPPING, 1.0)
    hopeful = set()
    for outlook in outlooks:
        for s in range(outlook.usd_per_h.shape[1]):
            best = outlook.certain_usd_per_h[:, s].min()
            for k in np.flatnonzero(~outlook.is_certain & np.isfinite(outlook.usd_per_h[:, s])):
                # The median of the predicted cost; draws around it decide near the limit.
                likely = outlook.feasibility[k] > 2 * (
                    STOPPING.probability if np.isfinite(best) else STOPPING.probability_without_plan
                )
                if likely and max(outlook.usd_per_h[k, s], outlook.floor_usd_per_h[k, s]) < 0.94 * best:
                    hopeful.add(int(k))
    if not len(found.ranking):
        assert not hopeful
    else:
        k = int(found.ranking[0])
        assert not all(outlook.is_certain[k] for outlook in outlooks)
        assert (
            max(outlook.feasibility[k] for outlook in outlooks if not outlook.is_certain[k])
            > STOPPING.probability_without_plan
        )
        assert found.value_per_s[k] == found.value_per_s.max() > 0
        assert set(found.ranking.tolist()) >= hopeful


@given(seeds)
def test_improbable_first_plans_are_pursued_only_for_queries_without_any(seed: int) -> None:
    outlooks = _random(seed)
    persistent = replace(STOPPING, probability_of_first_plan=0.0)
    usual, found = (select_next_configuration(outlooks, rule, 1.0) for rule in (STOPPING, persistent))
    improbable = {
        int(k)
        for outlook in outlooks
        if not outlook.has_plan
        for k in np.flatnonzero((outlook.feasibility > 0) & np.isfinite(outlook.usd_per_h).any(axis=1))
    }
    assert set(found.ranking.tolist()) == set(usual.ranking.tolist()) | improbable


@given(seeds)
def test_without_what_is_pointless_every_situation_keeps_its_best_sure_plan(seed: int) -> None:
    outlooks = _random(seed)
    found = select_next_configuration(outlooks, STOPPING, 1.0)
    for outlook, idle in zip(outlooks, found.pruned, strict=True):
        assert not (idle & ~outlook.is_measured).any()
        left = np.where(idle[:, None], np.inf, outlook.certain_usd_per_h).min(axis=0)
        np.testing.assert_array_equal(left, outlook.certain_usd_per_h.min(axis=0))


def test_the_weight_of_the_queries_that_wait_decides() -> None:
    costs = np.array([[1.0], [1.0]])
    nobody, ones = np.zeros(2, dtype=bool), np.ones(2)

    def outlook(keeps: list[float], weight: float) -> QueryBelief:
        return QueryBelief(
            np.array(keeps), nobody, nobody, ones, ones, costs, 0 * ones, 0 * costs, np.full((2, 1), np.inf), weight
        )

    light = select_next_configuration([outlook([0.9, 0.1], 1.0), outlook([0.1, 0.9], 3.0)], STOPPING, 1.0)
    heavy = select_next_configuration([outlook([0.9, 0.1], 5.0), outlook([0.1, 0.9], 3.0)], STOPPING, 1.0)
    assert (light.ranking.tolist(), heavy.ranking.tolist()) == ([1, 0], [0, 1])
    assert heavy.value_per_s[0] == 2.25  # weight 5, probability 0.9, and 2 s until it is decided


def test_a_first_plan_counts_whole_and_a_cheaper_one_by_what_it_saves() -> None:
    sure, begun, ones = np.array([True, False, False]), np.array([True, False, False]), np.ones(3)
    costs = np.array([[1.0], [0.9], [1.0]])
    certain_costs = np.array([[1.0], [np.inf], [np.inf]])

    def outlook(feasibility: list[float], certain: np.ndarray, weight: float) -> QueryBelief:
        exact = np.where(certain[:, None], certain_costs, np.inf)
        return QueryBelief(np.array(feasibility), certain, begun, ones, ones, costs, 0 * ones, 0 * costs, exact, weight)

    served = outlook([1.0, 0.9, 0.0], sure, 3.0)
    unserved = outlook([0.0, 0.0, 0.3], np.zeros(3, dtype=bool), 1.0)
    found = select_next_configuration([served, unserved], STOPPING, 1.0)
    np.testing.assert_allclose(found.value_per_s, [0.0, 3 * 0.9 * 0.1 / 2, 0.3 / 2])
    assert found.ranking.tolist() == [2, 1]


def _measured(items: int, kinds: str) -> ConfigurationProfile:
    """Return a configuration of operators `see` and `tell` of these kinds, each with 1 s an item and 5 s to start."""
    values = {name: KnobValues.of({"kind": kind}) for name, kind in zip(("see", "tell"), kinds, strict=True)}
    operators = {
        name: OperatorProfile(
            operator=name,
            prefix=Configuration.of({name: values[name]}),
            service_s=np.ones(items),
            output_bytes=np.ones(items),
            peak_memory_bytes=1.0,
            load_s=4.0,
            batch_ratio={(1.0, 1): 1.0},
            startup_s=5.0,
        )
        for name in values
    }
    return ConfigurationProfile(
        configuration=Configuration.of(values),
        items=np.arange(items),
        scores=np.zeros(items),
        accuracy=Interval(0.0, 0.0, 1.0),
        input_bytes=np.ones(items),
        operators=operators,
    )


def test_the_share_of_settling_is_that_of_items_beyond_first_looks_and_a_replica_starts_once() -> None:
    looked, settled = _measured(8, "aa"), _measured(24, "ab")
    profile = PipelineProfile(
        pipeline="two", dataset_fingerprint="", dataset_items=80, held_out_items=0, hardware_class="local", risk=0.05,
        configurations=(looked,), unmeasured=2, profiled_s=0.0, saved_s=0.0,
    )  # fmt: skip
    assert settling_share(profile) == 0.0
    both = replace(profile, configurations=(looked, settled))
    assert settling_share(both) == pytest.approx(16 * 2.0 / (32 * 2.0 + 3 * 5.0))
