"""What allocations gain at most is never less than what planning takes them to gain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circinus.profiling.batch_time_ratios import allowed_allocations, batch_ratios, min_batch_ratio
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
