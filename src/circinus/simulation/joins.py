"""Requests that wait for several earlier visits of theirs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from circinus.simulation.model import VisitArrivals


class Joins:
    """What is still missing at the visits that wait for several, and which of those that ended was the last."""

    def __init__(self, targets: Mapping[int, tuple[range, int]]) -> None:
        """Nothing has come.

        Args:
            targets: visit -> the numbers of its query's requests, and for how many visits each waits.
        """
        self._first: dict[int, int] = {}
        """Visit -> its place of the request number 0, where there is one."""
        places = 0
        for visit, (requests, _) in targets.items():
            self._first[visit] = places - requests.start
            places += len(requests)
        most = max(targets, default=-1) + 1
        self._joins = np.zeros(most, dtype=np.bool_)
        self._first_of = np.zeros(most, dtype=np.int64)
        for visit, first in self._first.items():
            self._joins[visit], self._first_of[visit] = True, first
        self._most_waited_for = max((count for _, count in targets.values()), default=0)
        self._missing = np.concatenate(
            [np.full(len(requests), count, dtype=np.int32) for requests, count in targets.values()]
            or [np.zeros(0, dtype=np.int32)]
        )
        self._latest_s = np.full(places, -np.inf)
        self._order = np.zeros(places, dtype=np.int64)

    def __contains__(self, visit: int) -> bool:
        return visit in self._first

    def complete(self, coming: VisitArrivals, ranks: np.ndarray) -> VisitArrivals:
        """Those of `coming` that wait for nothing else, with the time and the order of the last they waited for.

        Args:
            coming: (n,) visits before these ended.
            ranks: (n,) which of those that its target waits for that was, from 0 on.
        """
        if not self._first or not len(coming.visit):
            return coming
        known = coming.visit < len(self._joins)
        joins = np.zeros(len(known), dtype=np.bool_)
        joins[known] = self._joins[coming.visit[known]]
        if not joins.any():
            return coming
        parts = [coming.chosen(~joins)]
        for rank in range(self._most_waited_for):  # so that none stands twice among them
            now = coming.chosen(joins & (ranks == rank))
            place = self._first_of[now.visit] + now.request
            later = now.time_s > self._latest_s[place]
            later |= (now.time_s == self._latest_s[place]) & (now.order > self._order[place])
            self._latest_s[place[later]] = now.time_s[later]
            self._order[place[later]] = now.order[later]
            self._missing[place] -= 1
            done = self._missing[place] == 0
            place = place[done]
            parts.append(VisitArrivals(self._latest_s[place], self._order[place], now.visit[done], now.request[done]))
        return VisitArrivals.of(parts)

    def come(self, visit: int, request: int, time_s: float, order: int) -> tuple[float, int] | None:
        """The same for one: the time and the order of the last that it waited for; None: something is missing."""
        place = self._first[visit] + request
        if (time_s, order) > (self._latest_s[place], self._order[place]):
            self._latest_s[place], self._order[place] = time_s, order
        self._missing[place] -= 1
        return None if self._missing[place] else (float(self._latest_s[place]), int(self._order[place]))
