"""Eviction against a plain model of GreedyDual-Size."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.profiling.measurement.prefix_cache import GreedyDualSize

COSTS = st.sampled_from([0.0, 0.25, 1.0, 3.0, 8.0])  # exact in binary, so that equal credits are equal
STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.tuples(st.integers(0, 12), COSTS)), max_size=80)


@given(steps=STEPS, limit=st.integers(0, 24))
@settings(max_examples=examples(800))
def test_it_gives_up_the_least_credit(steps: list[tuple[str, tuple[int, float] | None]], limit: int) -> None:
    kept: GreedyDualSize[str] = GreedyDualSize(limit)
    age, model = 0.0, dict[str, tuple[float, int, int, float]]()  # key -> credit, when, size, cost
    for when, (key, added) in enumerate(steps):
        if added is None:
            assert kept.touch(key) == (key in model)
            if key in model:
                _, _, size, cost = model[key]
                model[key] = age + cost / max(1, size), when, size, cost
        else:
            size, cost = added
            model.pop(key, None)
            evicted = kept.add(key, size, cost)
            if size > limit:
                assert evicted == [key]
            else:
                model[key] = age + cost / max(1, size), when, size, cost
                expected = []
                while sum(entry[2] for entry in model.values()) > limit:
                    first = min(model, key=lambda k: model[k][:2])
                    age = model[first][0]
                    expected.append(first)
                    del model[first]
                assert evicted == expected
        assert kept.size_bytes == sum(entry[2] for entry in model.values()) <= limit
        assert len(kept) == len(model)
        assert all(k in kept for k in model)


def test_what_takes_long_to_compute_outlives_what_is_large_and_cheap() -> None:
    kept: GreedyDualSize[str] = GreedyDualSize(100)
    kept.add("dear", 10, 5.0)
    kept.add("cheap", 60, 0.1)
    assert kept.add("next", 50, 0.2) == ["cheap"]
    assert "dear" in kept


def test_what_is_never_asked_for_ages() -> None:
    """However dear it was: in the end others are worth more."""
    kept: GreedyDualSize[int] = GreedyDualSize(2)
    kept.add(-1, 1, 5.0)
    added = 0
    while -1 in kept:
        kept.add(added, 1, 1.0)
        added += 1
    assert 5 <= added <= 12


def test_many_renewals_do_not_pile_up() -> None:
    kept: GreedyDualSize[int] = GreedyDualSize(10)
    for key in range(10):
        kept.add(key, 1, 1.0)
    for _ in range(1000):
        for key in range(1, 10):
            kept.touch(key)
    assert len(kept._heap) <= 4 * 10 + 65
    assert kept.add(10, 1, 1.0) == [0]
