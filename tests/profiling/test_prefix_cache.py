"""The prefix cache: bounded, right, and with an exact count, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_application import sample_pipeline

from circinus.profiling.measurement.prefix_cache import PrefixCache, operators_to_run

KEYS = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))
STEPS = st.lists(st.tuples(KEYS, st.none() | st.tuples(st.integers(0, 12), st.integers(1, 5))), max_size=60)


@given(steps=STEPS, limit=st.integers(0, 20), spill=st.integers(0, 20))
def test_it_is_bounded_gives_what_was_put_last_and_counts(
    steps: list[tuple[tuple[str, str], tuple[int, int] | None]], limit: int, spill: int
) -> None:
    cache = PrefixCache(limit, spill_bytes=spill)
    put: dict[tuple[str, str], bytes] = {}
    hits = misses = most = 0
    for number, (key, added) in enumerate(steps):
        if added is None:
            found = cache.get(*key)
            assert found is None or found == put[key]
            hits, misses = hits + (found is not None), misses + (found is None)
        else:
            put[key] = bytes([number % 256]) * added[0]
            cache.put(*key, put[key], float(added[1]))
        assert cache.size_bytes <= limit
        assert cache.spilled_bytes <= spill
        most = max(most, sum(len(data) for data in put.values()))
        if most <= limit:
            assert len(cache) == len(put)
    assert (cache.hits, cache.misses) == (hits, misses)
    cache.close()


def test_the_fewest_seconds_a_byte_go_first() -> None:
    cache = PrefixCache(10)
    cache.put("slow", "i", b"12345", 9.0)
    cache.put("quick", "i", b"12345", 0.1)
    cache.put("next", "i", b"12345", 1.0)
    assert cache.get("slow", "i") is not None
    assert cache.get("quick", "i") is None
    assert cache.evictions == 1


def test_saved_seconds_add_up() -> None:
    cache = PrefixCache(10)
    cache.record_savings(1.5)
    cache.record_savings(0.25)
    assert cache.saved_s == 1.75


def test_what_memory_has_no_room_for_comes_back_from_disk(tmp_path: Path) -> None:
    cache = PrefixCache(10, spill_bytes=100, spill_parent=tmp_path)
    for number in range(6):
        cache.put("p", f"i{number}", bytes([number]) * 5, 1.0)
    cache.put("p", "large", b"." * 30, 1.0)
    (folder,) = tmp_path.iterdir()
    assert cache.size_bytes == 10
    assert cache.spilled_bytes == 4 * 5 + 30 == sum(f.stat().st_size for f in folder.iterdir())
    for number in range(6):
        assert cache.get("p", f"i{number}") == bytes([number]) * 5
    assert cache.get("p", "large") == b"." * 30
    assert (cache.hits, cache.misses) == (7, 0)
    cache.close()
    cache.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_worth_less_than_all_on_disk_is_kept_nowhere(tmp_path: Path) -> None:
    cache = PrefixCache(5, spill_bytes=5, spill_parent=tmp_path)
    for name, cost_s in (("dear", 100.0), ("middle", 8.0), ("cheap", 1.0)):
        cache.put(name, "i", name[0].encode() * 5, cost_s)
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 1
    assert cache.get("cheap", "i") is None
    assert cache.get("middle", "i") == b"mmmmm"
    cache.close()


def test_a_disk_that_takes_or_keeps_nothing_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrefixCache(4, spill_bytes=100, spill_parent=tmp_path)
    cache.put("p", "a", b"aaaa", 1.0)
    cache.put("p", "b", b"bbbb", 1.0)
    (folder,) = tmp_path.iterdir()
    for file in folder.iterdir():
        file.unlink()
    assert cache.get("p", "a") is None

    def full(path: Path, data: bytes) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put("p", "c", b"cccc", 1.0)
    assert cache.get("p", "b") is None
    assert cache.get("p", "c") == b"cccc"
    assert cache.spilled_bytes == 0
    cache.close()


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
