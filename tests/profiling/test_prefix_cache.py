"""The prefix cache against a plain model of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from circinus.profiling.prefix_cache import PrefixCache

KEYS = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))
STEPS = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers(0, 12))), max_size=60)


@given(steps=STEPS, limit=st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_it_is_a_bounded_least_recently_used_memory_that_counts(
    steps: list[tuple[tuple[str, str], int | None]], limit: int
) -> None:
    cache = PrefixCache(limit)
    model: list[tuple[tuple[str, str], bytes]] = []  # oldest first
    hits = misses = evictions = 0
    for key, size in steps:
        present = next((entry for entry in model if entry[0] == key), None)
        if size is None:
            found = cache.get(*key)
            if present is None:
                misses += 1
                assert found is None
            else:
                hits += 1
                assert found == present[1]
                model.remove(present)
                model.append(present)
        else:
            cache.put(*key, b"." * size)
            if present is not None:
                model.remove(present)
            if size <= limit:
                model.append((key, b"." * size))
            while sum(len(data) for _, data in model) > limit:
                model.pop(0)
                evictions += 1
        assert cache.size_bytes == sum(len(data) for _, data in model) <= limit
        assert len(cache) == len(model)
    assert (cache.hits, cache.misses, cache.evictions) == (hits, misses, evictions)


def test_saved_seconds_add_up() -> None:
    cache = PrefixCache(10)
    cache.saved(1.5)
    cache.saved(0.25)
    assert cache.saved_s == 1.75
