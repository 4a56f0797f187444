"""Keys of replicas across changes of the utilization targets of deployments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circinus.specification import Allocation, Deployment, KnobValues, ReplicaKey, replica_keys

DEPLOYMENTS = [Deployment("p", "o", KnobValues(), "x", Allocation(1.0, 1, target)) for target in (0.2, 0.4, 0.6, 0.8)]
STATES = st.lists(st.dictionaries(st.sampled_from(DEPLOYMENTS), st.integers(1, 4)), max_size=5)
Sizes = dict[Deployment, int]
Keys = dict[Deployment, ReplicaKey]


def _most(before: Sizes, after: Sizes, old: Keys, new: Keys) -> int:
    """Return the number of replicas that run at once during a change."""
    sizes = [{keys[each]: count for each, count in state.items()} for state, keys in ((before, old), (after, new))]
    return sum(max(state.get(key, 0) for state in sizes) for key in {*sizes[0], *sizes[1]})


@given(STATES)
def test_replicas_of_ended_deployments_are_taken_over_and_no_others(states: list[Sizes]) -> None:
    before, keys = Sizes(), Keys()
    for after in states:
        changed, fresh = replica_keys(after, keys), replica_keys(before)
        assert len(set(changed.values())) == len(after)
        assert all(changed[each] == keys[each] for each in after if each in keys)
        most = _most(before, after, keys, changed)
        assert most == _most(before, after, fresh, replica_keys(after, fresh)), "the history does not matter"
        assert most <= sum(max(before.get(each, 0), after.get(each, 0)) for each in {*before, *after})
        assert len({*keys.values()} & {*changed.values()}) == min(len(before), len(after)), "as many as possible"
        before, keys = after, changed
