"""Simulation order of stations, and groups of stations with feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circinus.simulation.model import QueryModel


def strongly_connected_groups(queries: Sequence[QueryModel], stations: int) -> tuple[tuple[int, ...], ...]:
    """Return groups of stations in topological order.

    The groups are the strongly connected components of the graph of transitions between stations (Tarjan, SIAM Journal
    on Computing 1, 1972). A group has several stations, or a station with transitions to itself, only if requests of
    any queries return to a station; such a group can only be simulated together.
    """
    return tuple(tuple(sorted(group)) for group in reversed(_components(successors(queries, stations))))


def successors(queries: Sequence[QueryModel], stations: int) -> Mapping[int, frozenset[int]]:
    """Return station -> the stations that receive its requests."""
    targets: dict[int, set[int]] = {station: set() for station in range(stations)}
    for query in queries:
        for visit in query.visits:
            for before in visit.after:
                targets[query.visits[before].station].add(visit.station)
    return {station: frozenset(its_targets) for station, its_targets in targets.items()}


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
