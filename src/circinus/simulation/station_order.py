"""Simulation order of stations without feedback."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from circinus.simulation.model import QueryModel, Visit


def feed_forward_order(queries: Sequence[QueryModel], stations: int) -> tuple[int, ...] | None:
    """Return stations in topological order; None if requests come back to one, or are dropped in parallel branches."""
    try:
        order = tuple(TopologicalSorter(_successors(queries, stations)).static_order())
    except CycleError:
        return None
    return order[::-1]


def _successors(queries: Sequence[QueryModel], stations: int) -> Mapping[int, frozenset[int]]:
    """Return station -> the stations that its requests affect: those of their next visits.

    A request that is dropped in one branch is ignored in parallel ones from then on, so that these affect one another.
    """
    targets: dict[int, set[int]] = {station: set() for station in range(stations)}
    for query in queries:
        for visit in query.visits:
            for before in visit.after:
                targets[query.visits[before].station].add(visit.station)
        for one, other in _parallel_visits(query) if query.drops_late else ():
            targets[one.station].add(other.station)
            targets[other.station].add(one.station)
    return {station: frozenset(its_targets) for station, its_targets in targets.items()}


def _parallel_visits(query: QueryModel) -> Iterator[tuple[Visit, Visit]]:
    """Yield pairs of visits without an order, at one of which requests may be dropped."""
    earlier: list[frozenset[int]] = []
    for index, visit in enumerate(query.visits):
        earlier.append(frozenset(visit.after).union(*(earlier[before] for before in visit.after)))
        for other in frozenset(range(index)) - earlier[index]:
            if min(visit.latest_start_s, query.visits[other].latest_start_s) < math.inf:
                yield visit, query.visits[other]
