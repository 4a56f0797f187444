"""What allocations gain at most is never less than what planning takes them to gain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circinus.profiling.batch_time_ratios import (
    allowed_allocations,
    batch_ratios,
    bounded_batch_times_s,
    min_batch_ratio,
)
from circinus.specification import OperatorSpec

numbers = st.lists(st.integers(1, 16), min_size=1, max_size=3, unique=True).map(sorted)


@given(cpus=numbers, batch_sizes=numbers, data=st.data())
def test_planning_uses_no_ratio_below_the_least(cpus: list[int], batch_sizes: list[int], data: st.DataObject) -> None:
    spec = OperatorSpec(name="o", uses="m:f", cpus=tuple(cpus), batch_sizes=tuple(batch_sizes))
    allowed = allowed_allocations(spec)
    measured = data.draw(st.dictionaries(st.sampled_from(allowed), st.floats(0.1, 20.0)))
    assert min_batch_ratio(spec, measured) <= min(batch_ratios(allowed, measured).values())


def test_what_nobody_measured_may_gain_all_that_its_cpus_may() -> None:
    spec = OperatorSpec(name="o", uses="m:f", cpus=(1, 4))
    assert min_batch_ratio(spec, {}) == 0.25
    assert min_batch_ratio(spec, {(4.0, 1): 0.6}) == 0.6
    assert min_batch_ratio(OperatorSpec(name="o", uses="m:f"), {}) == 1.0


@given(
    cpus=numbers,
    sizes=numbers,
    start_s=st.floats(0.0, 5.0),
    item_s=st.floats(0.01, 5.0),
    serial=st.floats(0.0, 1.0),
    data=st.data(),
)
def test_no_time_that_a_table_lacks_is_taken_to_be_shorter_than_it_is(
    cpus: list[int], sizes: list[int], start_s: float, item_s: float, serial: float, data: st.DataObject
) -> None:
    """A batch takes a start and a time for each item, of which all but a part (Amdahl) is divided by the CPUs."""
    allocations = [(float(c), size) for c in cpus for size in sizes]
    times_s = {(c, s): (start_s + item_s * s) * (serial + (1 - serial) / c) for c, s in allocations}
    measured = data.draw(st.dictionaries(st.sampled_from(allocations), st.none(), min_size=1))
    found_s = bounded_batch_times_s(allocations, {a: times_s[a] for a in measured})
    for allocation, time_s in times_s.items():
        if allocation in measured:
            assert found_s[allocation] == time_s
        assert found_s[allocation] >= time_s * (1 - 1e-9)


def test_a_gap_of_a_table_has_the_shortest_bound_of_what_is_around_it() -> None:
    found_s = bounded_batch_times_s(
        [(1.0, 1), (2.0, 1), (2.0, 2), (2.0, 3), (2.0, 9), (4.0, 4)], {(2.0, 2): 1.0, (2.0, 4): 2.0}
    )
    assert list(found_s.values()) == [2.0, 1.0, 1.0, 2.0, 5.0, 2.0]
