"""Simulation order of stations, and groups of stations with feedback."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from circinus.simulation.model import QueryModel, Visit


def strongly_connected_groups(queries: Sequence[QueryModel], stations: int) -> tuple[tuple[int, ...], ...]:
    """Return groups of stations in topological order.

    The groups are the strongly connected components of the graph of `successors` (Tarjan, SIAM Journal on Computing 1,
    1972). A group has several stations, or a station that affects itself, only if requests of any queries return to a
    station or are dropped in parallel branches; such a group can only be simulated together.
    """
    return tuple(tuple(sorted(group)) for group in reversed(_components(successors(queries, stations))))


def successors(queries: Sequence[QueryModel], stations: int) -> Mapping[int, frozenset[int]]:
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


def _components(targets: Mapping[int, frozenset[int]]) -> list[list[int]]:
    """Return the strongly connected components in reverse topological order, without recursion."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    components: list[list[int]] = []
    for root in targets:
        if root in order:
            continue
        path = [(root, iter(sorted(targets[root])))]
        order[root] = lowest[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while path:
            node, remaining = path[-1]
            for target in remaining:
                if target not in order:
                    order[target] = lowest[target] = len(order)
                    stack.append(target)
                    on_stack.add(target)
                    path.append((target, iter(sorted(targets[target]))))
                    break
                if target in on_stack:
                    lowest[node] = min(lowest[node], order[target])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    group = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        group.append(member)
                        if member == node:
                            break
                    components.append(group)
    return components
