from __future__ import annotations

from inspect import unwrap

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.queueing.event_arrays import VisitArrivals
from circinus.queueing.event_kernel import completes
from circinus.simulation.joins import Joins

FIRST, COUNT = 3, 4
"""Requests of the query are numbered from here on, and so many."""
WAITS = {1: 1, 2: 2, 4: 3}
"""Visit -> how many others it waits for."""

ends = st.tuples(st.integers(0, 3).map(float), st.integers(0, 5))
"""Time and order of a visit that ended."""


@given(st.data())
def test_a_request_goes_on_when_the_last_that_it_waits_for_ended(data: st.DataObject) -> None:
    """However they are divided: many at once or one by one."""
    coming = [
        (visit, rank, request, *data.draw(ends))
        for visit, waits in WAITS.items()
        for rank in range(waits)
        for request in range(FIRST, FIRST + COUNT)
    ]
    expected = sorted(
        (visit, request, *max((time_s, order) for v, _, r, time_s, order in coming if (v, r) == (visit, request)))
        for visit in WAITS
        for request in range(FIRST, FIRST + COUNT)
    )
    joins = Joins({visit: (range(FIRST, FIRST + COUNT), waits) for visit, waits in WAITS.items() if waits > 1})
    assert [visit in joins for visit in WAITS] == [False, True, True]
    found = []
    rest = data.draw(st.permutations(coming))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        now, rest = rest[:size], rest[size:]
        if size == 1 and now[0][0] in joins:
            ((visit, _, request, time_s, order),) = now
            arrays = joins.arrays
            slot = arrays.offset[visit] + request
            if unwrap(completes)(arrays, slot, time_s, order):
                found.append((visit, request, float(arrays.latest_s[slot]), int(arrays.order[slot])))
            continue
        visits, ranks, requests, times_s, orders = (np.array(column) for column in zip(*now, strict=True))
        done = joins.complete(VisitArrivals(times_s, orders, visits, requests), ranks)
        columns = (done.visit, done.request, done.time_s, done.order)
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    assert sorted(found) == expected
