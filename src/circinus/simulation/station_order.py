"""In which order stations can be simulated one after the other, and which ones only together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circinus.simulation.model import QueryModel


def strongly_connected_groups(queries: Sequence[QueryModel], stations: int) -> tuple[tuple[int, ...], ...]:
    """Groups of stations, each after all that send requests to it.

    A group has several stations, or one that sends requests to itself, only where requests come back to a station from
    one that lies behind it (of different queries also): these can only be simulated together. They are the strongly
    connected components of the graph of who sends requests to whom (Tarjan, SIAM Journal on Computing 1, 1972).
    """
    return tuple(tuple(sorted(group)) for group in reversed(_components(successors(queries, stations))))


def successors(queries: Sequence[QueryModel], stations: int) -> Mapping[int, frozenset[int]]:
    """Station -> the stations that it sends requests to."""
    found: dict[int, set[int]] = {station: set() for station in range(stations)}
    for query in queries:
        for visit in query.visits:
            for before in visit.after:
                found[query.visits[before].station].add(visit.station)
    return {station: frozenset(targets) for station, targets in found.items()}


def _components(targets: Mapping[int, frozenset[int]]) -> list[list[int]]:
    """Strongly connected components, each before those that send to it; without recursion."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root in targets:
        if root in order:
            continue
        path = [(root, iter(sorted(targets[root])))]
        order[root] = lowest[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while path:
            node, rest = path[-1]
            for target in rest:
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
                    found.append(group)
    return found
