"""What is decided of each configuration: by the definitions, and never so that an objective loses its last plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_races import ALL_ITEMS, LATENCY_ITEMS, SLOS, race_state, random_footprints, random_state

from budget import examples
from circinus.profiling.race.race_state import ConfigurationVerdict, RaceState, Verdict, assign_verdicts
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.specification import AccuracySlo, LatencySlo, Slos
from circinus.specification.formatting import ceil_significant
from circinus.statistics.interval import Interval
from circinus.statistics.martingale import UNLIMITED
from circinus.statistics.mean_decision import items_until_bounded

seeds = st.integers(0, 100_000)
counts = st.integers(1, 10)


def _random(seed: int, count: int, objectives: int) -> RaceState:
    rng = np.random.default_rng(seed)
    return random_state(rng, random_footprints(rng, count), objectives)


def _cheapest(sure: list[int], footprints: ResourceUsage) -> int:
    return min(sure, key=lambda k: (footprints.total_cpu_s[k], k)) if sure else -1


def _outdoer(state: RaceState, number: int) -> int:
    """The last of those who are surely as accurate as the one before."""
    while state.dominated_on_accuracy[number]:
        number = int(state.references[number])
    return number


def _brute(state: RaceState) -> dict[str, np.ndarray]:
    """The definitions, read out one question at a time."""
    count, objectives = state.meets.shape
    everything = np.arange(count)
    stands_in = state.usage.no_costlier(everything, everything)
    before = state.usage.cheaper(everything, everything)
    open_, kept = (np.zeros((count, objectives), dtype=bool) for _ in range(2))
    covered = np.full((count, objectives), -1, dtype=np.int64)
    for k in range(count):
        for q in range(objectives):
            sure = [o for o in range(count) if o != k and state.meets[o, q] and stands_in[o, k]]
            covered[k, q] = _cheapest(sure, state.usage)
            undecided = not state.meets[k, q] and not state.fails[k, q] and state.items[k] < ALL_ITEMS
            undecided = undecided and not state.pruned[k, q]
            left = state.dominated_on_accuracy[k] and not state.slow[state.references[k], q]
            open_[k, q] = state.items[k] == 0 or (undecided and not sure and not left)
    for k in range(count):
        for q in range(objectives):
            cheaper = any(state.meets[o, q] and stands_in[o, k] and before[o, k] for o in range(count) if o != k)
            last = _outdoer(state, k)
            left_to_it = state.dominated_on_accuracy[k] and (state.meets[last, q] or open_[last, q])
            kept[k, q] = state.meets[k, q] and not cheaper and not left_to_it
    short = (kept & ~state.pruned).any(axis=1) & (state.items < LATENCY_ITEMS)
    settled = ~(open_.any(axis=1) | short)
    return {
        "open": open_, "certainly_met": kept, "needs_latency_items": short, "covered_by": covered, "settled": settled
    }  # fmt: skip


@given(seed=seeds, count=counts, objectives=st.integers(1, 4))
@settings(max_examples=examples(600))
def test_decisions_are_what_the_definitions_say(seed: int, count: int, objectives: int) -> None:
    state = _random(seed, count, objectives)
    for name, expected in _brute(state).items():
        assert getattr(state, name).tolist() == expected.tolist(), name


@given(seed=seeds, count=counts, objectives=st.integers(1, 4))
@settings(max_examples=examples(800))
def test_no_objective_loses_its_last_configuration(seed: int, count: int, objectives: int) -> None:
    """Of two mutual replacements, or a configuration dominated by one that waits for it, at least one remains."""
    state = _random(seed, count, objectives)
    everything = np.arange(count)
    stands_in = state.usage.no_costlier(everything, everything)
    for q in range(objectives):
        if state.meets[:, q].any():
            assert state.certainly_met[:, q].any() or state.open[:, q].any()
        if not state.open[:, q].any():
            # Nothing is dropped but for one that is kept and stands in for it, perhaps in several steps.
            reached = state.certainly_met[:, q].copy()
            for _ in range(count):
                reached |= (stands_in & reached[:, None]).any(axis=0)
            assert reached[state.meets[:, q]].all()


@given(seed=seeds, count=counts, objectives=st.integers(0, 4))
@settings(max_examples=examples(600))
def test_every_verdict_has_its_reason(seed: int, count: int, objectives: int) -> None:
    state = _random(seed, count, objectives)
    names = [f"c{k}" for k in range(count)]
    for k, found in enumerate(assign_verdicts(state, names, _bounds)):
        assert found.reason
        assert (found.verdict is Verdict.UNDECIDED) == (not state.settled[k])
        if found.verdict is Verdict.INFEASIBLE:
            assert state.fails[k].all()
        if found.verdict is Verdict.FEASIBLE and objectives:
            assert state.certainly_met[k].any()
            for q, objective in enumerate(SLOS[:objectives]):
                assert (str(objective.accuracy) in found.reason) == state.certainly_met[k, q]
        if found.verdict is Verdict.UNLIKELY:  # being covered is certain, whatever is likely
            assert (~state.fails[k] & (state.covered_by[k] < 0)).any()
        if found.verdict is Verdict.DOMINATED:
            assert not state.certainly_met[k].any()
            assert not state.fails[k].all() or not objectives
            others = [o for o in range(count) if f"c{o} " in found.reason and o != k]
            assert others
            assert all(state.usage.no_costlier(np.array([o]), np.array([k]))[0, 0] for o in others)


def _footprints(*cpu_s: float) -> ResourceUsage:
    taken = np.array(cpu_s)[:, None]
    ones = np.ones_like(taken)
    items = np.ones(len(cpu_s), dtype=np.int64)
    return ResourceUsage(taken[:, :, None], ones[:, :, None], ones, items, np.arange(len(cpu_s))[:, None])


def _standing(
    footprints: ResourceUsage, known: list[str], requirements: tuple[Slos, ...] = SLOS, **changes: object
) -> RaceState:
    """`known`: for each configuration and objective + (kept), - (missed), s (too slow) or ? (undecided).

    References that may replace a configuration are as accurate where `no_more_accurate` says so.
    """
    signs = np.array([list(signs) for signs in known]).reshape(len(known), -1)
    count = len(known)
    values: dict[str, object] = {
        "accurate": signs == "+",
        "inaccurate": signs == "-",
        "slow": signs == "s",
        "items": np.full(count, LATENCY_ITEMS),
        "references": footprints.references(),
        "reference_no_costlier": np.ones(count, dtype=bool),
        "pruned": np.zeros(signs.shape, dtype=bool),
    }
    return race_state(footprints, requirements[: signs.shape[1]], **{**values, **changes})


def _judged(state: RaceState) -> tuple[ConfigurationVerdict, ...]:
    return assign_verdicts(state, [f"c{k}" for k in range(len(state.items))], _bounds)


def test_each_verdict() -> None:
    footprints = _footprints(1.0, 2.0, 3.0, 1.5, 0.5)
    standing = _standing(footprints, ["+", "?", "+", "-", "?"])
    assert _judged(standing) == (
        ConfigurationVerdict(Verdict.FEASIBLE, "it certainly meets accuracy >= 0.9"),
        ConfigurationVerdict(
            Verdict.DOMINATED,
            "its SLOs are certainly met by c0 at less or hardly more resource usage, compared on the first 8 items",
        ),
        ConfigurationVerdict(
            Verdict.DOMINATED,
            "its SLOs are certainly met by c0 at less or hardly more resource usage, compared on the first 8 items",
        ),
        ConfigurationVerdict(Verdict.INFEASIBLE, "it certainly misses accuracy >= 0.9"),
        ConfigurationVerdict(Verdict.UNDECIDED, "it may or may not meet accuracy >= 0.9"),
    )


def test_what_is_not_measured_is_undecided_even_beside_something_cheaper() -> None:
    footprints = _footprints(1.0, 2.0)
    standing = _standing(footprints, ["+", "?"], items=np.array([ALL_ITEMS, 0]))
    assert _judged(standing)[1] == ConfigurationVerdict(Verdict.UNDECIDED, "it is unmeasured")


def test_latency_is_asked_of_what_is_kept_alone() -> None:
    footprints = _footprints(1.0, 2.0, 1.5)
    standing = _standing(footprints, ["+", "+", "-"], items=np.full(3, 8))
    found = _judged(standing)
    assert found[0].verdict is Verdict.UNDECIDED
    assert f"{LATENCY_ITEMS} items" in found[0].reason
    assert [one.verdict for one in found[1:]] == [Verdict.DOMINATED, Verdict.INFEASIBLE]


def test_one_objective_each() -> None:
    """The cheap one keeps the low objective, the dear one both: neither is dropped. What is between them is."""
    footprints = _footprints(1.0, 2.0, 3.0)
    standing = _standing(footprints, ["-+", "-?", "+?"])
    found = _judged(standing)
    assert [one.verdict for one in found] == [Verdict.FEASIBLE, Verdict.DOMINATED, Verdict.FEASIBLE]
    assert found[0].reason == "it certainly meets accuracy >= 0.8"
    assert found[2].reason == "it certainly meets accuracy >= 0.9"


def test_a_verdict_names_the_decided_and_the_undecided_slos() -> None:
    standing = _standing(_footprints(1.0, 2.0), ["?+", "?+"], items=np.full(2, ALL_ITEMS))
    found = _judged(standing)
    assert [one.verdict for one in found] == [Verdict.FEASIBLE, Verdict.TOO_FEW_ITEMS]
    for one in found:
        assert "whether it meets accuracy >= 0.9" in one.reason
        assert "accuracy >= 0.8" in one.reason
    assert "c0" in found[1].reason


def test_a_partner_that_is_surely_as_accurate_outdoes() -> None:
    footprints = _footprints(1.0, 2.0)
    standing = _standing(footprints, ["?", "?"], no_more_accurate=np.array([False, True]))
    found = _judged(standing)
    assert found[0].verdict is Verdict.UNDECIDED
    assert found[1] == ConfigurationVerdict(
        Verdict.DOMINATED,
        "c0 is certainly as accurate at less or hardly more resource usage, compared on the first 8 items",
    )


def test_who_outdoes_does_not_drop_the_one_it_leans_on() -> None:
    """The first is surely as accurate as the second, but only the second surely keeps the objective so far.

    They stand in for each other, so that the first is asked no more: the second is needed.
    """
    footprints = _footprints(1.0, 1.01)
    standing = _standing(footprints, ["?", "+"], no_more_accurate=np.array([False, True]))
    found = _judged(standing)
    assert found[0].verdict is Verdict.DOMINATED
    assert "c1" in found[0].reason
    assert found[1].verdict is Verdict.FEASIBLE
    # Where the second takes much more, the first is asked on, and the second waits for it.
    apart = _footprints(1.0, 2.0)
    waiting = _judged(replace(standing, usage=apart, references=apart.references()))
    assert [one.verdict for one in waiting] == [Verdict.UNDECIDED, Verdict.DOMINATED]


@pytest.mark.parametrize("count", [2, 5])
def test_of_equals_one_is_kept(count: int) -> None:
    footprints = _footprints(*[1.0] * count)
    verdicts = [one.verdict for one in _judged(_standing(footprints, ["+"] * count))]
    assert verdicts == [Verdict.FEASIBLE] + [Verdict.DOMINATED] * (count - 1)


def test_a_query_without_an_accuracy_objective_is_kept_by_the_cheapest() -> None:
    footprints = _footprints(2.0, 1.0)
    standing = _standing(footprints, ["-+", "-+"], (SLOS[0], Slos()))
    assert _judged(standing) == (
        ConfigurationVerdict(
            Verdict.DOMINATED,
            "its SLOs are certainly met by c1 at less or hardly more resource usage, compared on the first 8 items",
        ),
        ConfigurationVerdict(Verdict.FEASIBLE, "it certainly meets any accuracy"),
    )


def test_without_any_query_all_that_is_not_outdone_is_wanted_for_planning() -> None:
    footprints = _footprints(1.0, 2.0, 3.0)
    dominated, items = np.array([False, True, False]), np.array([LATENCY_ITEMS, 8, 8])
    standing = _standing(footprints, ["", "", ""], no_more_accurate=dominated, items=items)
    assert _judged(standing) == (
        ConfigurationVerdict(Verdict.FEASIBLE, "no query uses the pipeline yet"),
        ConfigurationVerdict(
            Verdict.DOMINATED,
            "c0 is certainly as accurate at less or hardly more resource usage, compared on the first 8 items",
        ),
        ConfigurationVerdict(Verdict.UNDECIDED, f"its latency has to be measured on {LATENCY_ITEMS} items"),
    )


def test_too_slow_is_told_apart_from_inaccurate() -> None:
    footprints = _footprints(1.0, 2.0)
    asked = tuple(
        Slos(accuracy=AccuracySlo(threshold=0.9), latency=LatencySlo(limit=limit_s, percentile=95.0))
        for limit_s in (0.5, 4.0)
    )
    assert [found.reason for found in _judged(_standing(footprints, ["s-", "ss"], asked))] == [
        "it is certainly too slow for latency p95 <= 500ms and certainly misses accuracy >= 0.9",
        "it is certainly too slow for latency p95 <= 500ms, p95 <= 4s",
    ]


def test_a_partner_that_is_too_slow_outdoes_nobody_where_it_is() -> None:
    footprints = _footprints(1.0, 1.01)
    dominated, references = np.array([False, True]), np.array([-1, 0])
    standing = _standing(footprints, ["s", "?"], no_more_accurate=dominated, references=references)
    assert standing.open[:, 0].tolist() == [False, True]


def test_what_makes_no_plan_cheaper_is_not_asked() -> None:
    footprints = _footprints(1.0, 2.0)
    standing = _standing(footprints, ["+-", "??"], pruned=np.array([[False, False], [True, False]]))
    assert standing.open.tolist() == [[False, False], [False, True]]
    standing = _standing(footprints, ["+-", "??"], pruned=np.array([[False, False], [True, True]]))
    found = _judged(standing)
    assert found[1].verdict is Verdict.UNLIKELY
    assert "no plan much cheaper" in found[1].reason


def test_latency_is_not_asked_of_what_makes_no_plan_cheaper() -> None:
    pruned = np.array([[True, False], [True, True]])
    standing = _standing(_footprints(1.0, 2.0), ["+-", "-+"], items=np.full(2, 8), pruned=pruned)
    assert standing.certainly_met.tolist() == [[True, False], [False, True]]
    assert not standing.needs_latency_items.any()
    pruned = np.array([[False, True], [True, True]])
    standing = _standing(_footprints(1.0, 2.0), ["+-", "-+"], items=np.full(2, 8), pruned=pruned)
    assert standing.needs_latency_items.tolist() == [True, False]


def _bounds(_: int) -> Interval:
    return Interval(0.95, 0.85, 1.0)


def test_undecided_on_all_items_is_for_want_of_items_and_not_of_measurements() -> None:
    """Even where a sampler expects nothing of it, as it cannot be measured further."""
    known = {"items": np.array([ALL_ITEMS]), "pruned": np.array([[True]]), "means": np.array([0.95])}
    standing = _standing(_footprints(1.0), ["?"], **known)
    confidence = replace(standing.confidence, population=UNLIMITED)
    (verdict,) = assign_verdicts(replace(standing, confidence=confidence), ["a"], _bounds)
    assert verdict.verdict is Verdict.TOO_FEW_ITEMS
    needed = items_until_bounded(ALL_ITEMS, 0.05, 0.1, float(standing.score_variances[0]), 1.0) - ALL_ITEMS
    assert f"about {ceil_significant(needed, 2):,.0f} more" in verdict.reason
    (verdict,) = assign_verdicts(
        replace(standing, confidence=confidence, items=np.array([ALL_ITEMS - 1])), ["a"], _bounds
    )
    assert verdict.verdict is Verdict.UNLIKELY
