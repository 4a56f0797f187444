"""The prefix cache: bounded, right, and with an exact count of hits and misses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sample_application import sample_pipeline

from circinus.operators.protocol import NO_BRANCH
from circinus.profiling.measurement.prefix_cache import PrefixCache, RunOutputs, operators_to_run

KEYS = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))
STEPS = st.lists(st.tuples(KEYS, st.none() | st.tuples(st.integers(0, 12), st.integers(1, 5))), max_size=60)


def _single(output: bytes) -> RunOutputs:
    return (((), ((NO_BRANCH, output),)),)


@given(steps=STEPS, limit=st.integers(0, 20))
def test_it_is_bounded_gives_what_was_put_last_and_counts(
    steps: list[tuple[tuple[str, str], tuple[int, int] | None]], limit: int
) -> None:
    cache = PrefixCache(limit)
    put: dict[tuple[str, str], bytes] = {}
    hits = misses = most = 0
    for number, (key, added) in enumerate(steps):
        if added is None:
            found = cache.get(*key)
            assert found is None or found == _single(put[key])
            hits, misses = hits + (found is not None), misses + (found is None)
        else:
            put[key] = bytes([number % 256]) * added[0]
            cache.put(*key, _single(put[key]), float(added[1]))
        assert cache.size_bytes <= limit
        most = max(most, sum(len(data) for data in put.values()))
        if most <= limit:
            assert len(cache) == len(put)
    assert (cache.hits, cache.misses) == (hits, misses)


def test_the_fewest_seconds_a_byte_go_first() -> None:
    cache = PrefixCache(10)
    cache.put("slow", "i", _single(b"12345"), 9.0)
    cache.put("quick", "i", _single(b"12345"), 0.1)
    cache.put("next", "i", _single(b"12345"), 1.0)
    assert cache.get("slow", "i") is not None
    assert cache.get("quick", "i") is None
    assert cache.evictions == 1


def test_only_what_is_needed_and_not_held_runs() -> None:
    topological = sample_pipeline().topological_order()
    for held, expected in (
        (set(), ("prepare", "left", "right", "joined")),
        ({"prepare"}, ("left", "right", "joined")),
        ({"left", "right"}, ("joined",)),
        ({"left"}, ("prepare", "right", "joined")),
        ({"joined"}, ()),
    ):
        assert operators_to_run(topological, ["joined"], held.__contains__) == expected
    assert operators_to_run(topological, ["left"], set().__contains__) == ("prepare", "left")
