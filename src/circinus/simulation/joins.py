"""Joins: visits that wait for several earlier visits of the request."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from circinus.queueing.event_arrays import JoinArrays, VisitArrivals


class Joins:
    """Number of missing inputs of each request at each join, and its last input so far."""

    def __init__(self, targets: Mapping[int, tuple[range, int]]) -> None:
        """Create joins without inputs.

        Args:
            targets: visit -> (request indexes of its query, number of inputs).
        """
        self._offset: dict[int, int] = {}
        """Visit -> offset of its slots; a request's slot is the offset plus the request index."""
        slots = 0
        for visit, (requests, _) in targets.items():
            self._offset[visit] = slots - requests.start
            slots += len(requests)
        visits = max(targets, default=-1) + 1
        self._joins = np.zeros(visits, dtype=np.bool_)
        self._offsets = np.zeros(visits, dtype=np.int64)
        for visit, offset in self._offset.items():
            self._joins[visit], self._offsets[visit] = True, offset
        self._max_inputs = max((count for _, count in targets.values()), default=0)
        self._missing = np.concatenate(
            [np.full(len(requests), count, dtype=np.int32) for requests, count in targets.values()]
            or [np.zeros(0, dtype=np.int32)]
        )
        self._latest_s = np.full(slots, -np.inf)
        self._order = np.zeros(slots, dtype=np.int64)

    def __contains__(self, visit: int) -> bool:
        return visit in self._offset

    def complete(self, inputs: VisitArrivals, ranks: np.ndarray) -> VisitArrivals:
        """Return the arrivals whose inputs are complete, with the time and order of their last input.

        Args:
            inputs: (n,) inputs that became available.
            ranks: (n,) index of each input among the inputs of its visit.
        """
        if not self._offset or not len(inputs.visit):
            return inputs
        in_range = inputs.visit < len(self._joins)
        joins = np.zeros(len(in_range), dtype=np.bool_)
        joins[in_range] = self._joins[inputs.visit[in_range]]
        if not joins.any():
            return inputs
        parts = [inputs.selected(~joins)]
        for rank in range(self._max_inputs):  # rank by rank, so that each slot occurs once
            part = inputs.selected(joins & (ranks == rank))
            slot = self._offsets[part.visit] + part.request
            later = part.time_s > self._latest_s[slot]
            later |= (part.time_s == self._latest_s[slot]) & (part.order > self._order[slot])
            self._latest_s[slot[later]] = part.time_s[later]
            self._order[slot[later]] = part.order[later]
            self._missing[slot] -= 1
            done = self._missing[slot] == 0
            slot = slot[done]
            parts.append(VisitArrivals(self._latest_s[slot], self._order[slot], part.visit[done], part.request[done]))
        return VisitArrivals.of(parts)

    @property
    def arrays(self) -> JoinArrays:
        """Arrays for joins within a block of stations, which updates them."""
        return JoinArrays(self._offsets, self._missing, self._latest_s, self._order)
