"""Large neighbourhood search on the columns of a programme, compiled: remove some queries, and add what fits best.

The search is the "ruin and recreate" of Schrimpf et al. (2000), with the acceptance rule of Burke and Bykov, "The late
acceptance hill-climbing heuristic" (2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.queueing.compiled import compiled, inlined

_TINY = 1e-9


class SearchArrays(NamedTuple):
    """Q queries, X columns query by query, E uses of stations by columns, S stations, R rows with limit 1."""

    first_column: IntArray
    """(Q + 1,)"""
    weight: FloatArray
    """(Q,)"""
    first_use: IntArray
    """(X + 1,)"""
    column_cost: FloatArray
    """(X,)"""
    use_station: IntArray
    """(E,)"""
    use_level: IntArray
    """(E,)"""
    use_load: FloatArray
    """(E,)"""
    use_fill: FloatArray
    """(E,) minimum load per replica."""
    first_size: IntArray
    """(S + 1,)"""
    size: IntArray
    """Replicas with spare ones, station by station, ascending."""
    first_capacity: IntArray
    """(S,)"""
    capacity: FloatArray
    """Of each station, (levels, sizes)."""
    minimum: FloatArray
    """Likewise."""
    replica_cost: FloatArray
    """(S,)"""
    first_row: IntArray
    """(S + 1,)"""
    row: IntArray
    """Rows of each station."""
    row_share: FloatArray
    """Share of the row that a replica takes."""
    row_price: FloatArray
    """(R,) price of the whole row, for choosing among columns."""
    row_limit: FloatArray
    """(R,)"""
    load_price: FloatArray
    """(S,) price of a unit of load, for choosing among columns."""
    pool: IntArray
    """(S,) -1 for links, which are stations with one replica."""
    node_share: FloatArray
    """(S, 4) share of each resource of a node that a replica takes."""
    largest_share: FloatArray
    """(S,)"""
    is_spread: BoolArray
    """(S,) whether each replica is on another node."""
    nodes: IntArray
    """(pools,)"""


class SearchState(NamedTuple):
    """A choice, and what it takes."""

    chosen: IntArray
    """(Q,) column; -1 for none."""
    load: FloatArray
    """(S,)"""
    level: IntArray
    """(S,)"""
    fill: FloatArray
    """(S,)"""
    replicas: IntArray
    """(S,)"""
    used: FloatArray
    """(R,)"""
    random: IntArray
    """(1,) state of the random numbers."""
    taken: FloatArray
    """(nodes of a pool, 4) scratch."""
    is_packed: IntArray
    """(S,) scratch."""


@inlined
def _random(state: SearchState) -> float:
    value = state.random[0]
    value ^= (value << 13) & 0x7FFFFFFFFFFFFFFF
    value ^= value >> 7
    value ^= (value << 17) & 0x7FFFFFFFFFFFFFFF
    state.random[0] = value
    return float(value % 1_000_003) / 1_000_003.0


@compiled
def _needed(data: SearchArrays, station: int, level: int, load: float) -> int:
    """Return the fewest replicas that keep a level at a load; -1 if none do."""
    first, sizes = data.first_size[station], data.first_size[station + 1] - data.first_size[station]
    row = data.first_capacity[station] + level * sizes
    for k in range(sizes):
        if data.capacity[row + k] * (1 + _TINY) >= load and data.minimum[row + k] <= load:
            return int(data.size[first + k])
    return -1


@compiled
def _change(data: SearchArrays, state: SearchState, station: int, replicas: int) -> tuple[float, float]:
    """Set the replicas of a station; return the cost and the price of the rows that this adds."""
    added = replicas - state.replicas[station]
    state.replicas[station] = replicas
    price = 0.0
    if added != 0:
        for k in range(data.first_row[station], data.first_row[station + 1]):
            share = added * data.row_share[k]
            state.used[data.row[k]] += share
            price += share * data.row_price[data.row[k]]
    return added * data.replica_cost[station], price


@compiled
def _add(data: SearchArrays, state: SearchState, column: int, undo: FloatArray) -> tuple[float, float]:
    """Add a column; return its cost and its price, infinite if it does not fit. `undo` gets what `_undo` needs."""
    cost = price = data.column_cost[column]
    fits = True
    for k in range(data.first_use[column], data.first_use[column + 1]):
        station, position = data.use_station[k], 4 * (k - data.first_use[column])
        undo[position], undo[position + 1] = state.load[station], state.level[station]
        undo[position + 2], undo[position + 3] = state.fill[station], state.replicas[station]
        state.load[station] += data.use_load[k]
        state.level[station] = min(state.level[station], data.use_level[k])
        state.fill[station] = max(state.fill[station], data.use_fill[k])
        price += data.use_load[k] * data.load_price[station]
        replicas = _needed(data, station, state.level[station], state.load[station])
        if replicas < 0 or state.load[station] * (1 + _TINY) < state.fill[station] * replicas:
            fits, replicas = False, state.replicas[station]
        added_cost, added_price = _change(data, state, station, replicas)
        cost += added_cost
        price += added_cost + added_price
    for k in range(data.first_use[column], data.first_use[column + 1]):
        station = data.use_station[k]
        for j in range(data.first_row[station], data.first_row[station + 1]):
            fits = fits and state.used[data.row[j]] <= data.row_limit[data.row[j]] + _TINY
    return (cost, price) if fits else (np.inf, np.inf)


@compiled
def _undo(data: SearchArrays, state: SearchState, column: int, undo: FloatArray) -> None:
    """Take back the last addition."""
    uses = data.first_use[column + 1] - data.first_use[column]
    for j in range(uses):
        k = uses - 1 - j
        station = data.use_station[data.first_use[column] + k]
        state.load[station], state.level[station] = undo[4 * k], int(undo[4 * k + 1])
        state.fill[station] = undo[4 * k + 2]
        _change(data, state, station, int(undo[4 * k + 3]))


@compiled
def rebuild(data: SearchArrays, state: SearchState) -> float:
    """Compute what the choice takes; return its value, or minus infinity if a level or fill is not kept."""
    for station in range(len(state.load)):
        state.load[station], state.level[station] = 0.0, 1 << 30
        state.fill[station], state.replicas[station] = 0.0, 0
    for row in range(len(state.used)):
        state.used[row] = 0.0
    value = 0.0
    for query in range(len(state.chosen)):
        column = state.chosen[query]
        if column >= 0:
            value += data.weight[query] - data.column_cost[column]
            for k in range(data.first_use[column], data.first_use[column + 1]):
                station = data.use_station[k]
                state.load[station] += data.use_load[k]
                state.level[station] = min(state.level[station], data.use_level[k])
                state.fill[station] = max(state.fill[station], data.use_fill[k])
    for station in range(len(state.load)):
        if state.level[station] < 1 << 30:
            replicas = _needed(data, station, state.level[station], state.load[station])
            if replicas < 0 or state.load[station] * (1 + _TINY) < state.fill[station] * replicas:
                return -np.inf
            value -= _change(data, state, station, replicas)[0]
    for row in range(len(state.used)):
        if state.used[row] > data.row_limit[row] + _TINY:
            return -np.inf
    return value


@compiled
def _fits_nodes(data: SearchArrays, state: SearchState) -> bool:
    """Return whether the replicas of each pool are packed on its nodes by first-fit decreasing."""
    stations = len(state.replicas)
    for pool in range(len(data.nodes)):
        opened = 0
        for station in range(stations):
            state.is_packed[station] = 0
        while True:
            largest, share = -1, -1.0
            for station in range(stations):
                is_next = data.pool[station] == pool and state.replicas[station] > 0 and state.is_packed[station] == 0
                if is_next and data.largest_share[station] > share:
                    largest, share = station, data.largest_share[station]
            if largest < 0:
                break
            state.is_packed[largest] = 1
            node = 0
            for _ in range(state.replicas[largest]):
                while True:
                    if node == opened:
                        if opened == data.nodes[pool]:
                            return False
                        for k in range(4):
                            state.taken[node, k] = 0.0
                        opened += 1
                    is_full = False
                    for k in range(4):
                        if state.taken[node, k] + data.node_share[largest, k] > 1.0 + _TINY:
                            is_full = True
                    if not is_full:
                        for k in range(4):
                            state.taken[node, k] += data.node_share[largest, k]
                        if data.is_spread[largest]:
                            node += 1
                        break
                    node += 1
    return True


@compiled
def _insert(data: SearchArrays, state: SearchState, query: int, undo: FloatArray) -> float:
    """Add the column of a query with the lowest price, with some noise; return the value that this adds."""
    best, best_score = -1, np.inf
    for column in range(data.first_column[query], data.first_column[query + 1]):
        cost, price = _add(data, state, column, undo)
        _undo(data, state, column, undo)
        if cost < data.weight[query]:
            score = price * (0.7 + 0.6 * _random(state))
            if score < best_score:
                best, best_score = column, score
    if best < 0:
        return 0.0
    cost, _ = _add(data, state, best, undo)
    state.chosen[query] = best
    return float(data.weight[query] - cost)


@compiled
def improve(
    data: SearchArrays,
    state: SearchState,
    best: IntArray,
    current: IntArray,
    order: IntArray,
    key: FloatArray,
    history: FloatArray,
    undo: FloatArray,
    min_iterations: int,
) -> float:
    """Improve a choice until as many iterations as before, and some more, found nothing better; return its value.

    Args:
        data: columns, stations and rows.
        state: with the choice to begin with.
        best: (Q,) gets the best choice.
        current: (Q,) scratch, as `order`, `key`, `history` of any length, and `undo` of 4 by the stages of a column.
        order: (Q,)
        key: (Q,)
        history: values that are accepted.
        undo: what a column changes.
        min_iterations: number of iterations at least.
    """
    queries = len(state.chosen)
    value = rebuild(data, state)
    if value == -np.inf:
        for query in range(queries):
            state.chosen[query] = -1
        value = rebuild(data, state)
    for query in range(queries):
        best[query] = current[query] = state.chosen[query]
    best_value = current_value = value
    for k in range(len(history)):
        history[k] = value
    iteration, found = 0, 0
    while iteration < min_iterations + 2 * found:
        iteration += 1
        # Remove some queries: at random, or all at a station.
        served = 0
        for query in range(queries):
            if state.chosen[query] >= 0:
                order[served] = query
                served += 1
        if served:
            first = order[int(_random(state) * served)]
            column = state.chosen[first]
            uses = data.first_use[column + 1] - data.first_use[column]
            station = data.use_station[data.first_use[column] + int(_random(state) * uses)]
            kind = _random(state)
            share = _random(state) * min(1.0, 12.0 / served)
            for query in range(queries):
                other = state.chosen[query]
                if other < 0:
                    continue
                is_removed = query == first
                if kind < 0.6:
                    for k in range(data.first_use[other], data.first_use[other + 1]):
                        if data.use_station[k] == station and (kind < 0.3 or _random(state) < 0.5):
                            is_removed = True
                if kind >= 0.6 and _random(state) < share:
                    is_removed = True
                if is_removed:
                    state.chosen[query] = -1
        value = rebuild(data, state)
        if value > -np.inf:
            absent = 0
            for query in range(queries):
                if state.chosen[query] < 0 and data.first_column[query] < data.first_column[query + 1]:
                    order[absent] = query
                    key[absent] = -data.weight[query] * (0.3 + _random(state))
                    absent += 1
            limit = min(absent, 40)
            for k in range(limit):  # a selection sort of the first ones
                smallest = k
                for j in range(k + 1, absent):
                    if key[j] < key[smallest]:
                        smallest = j
                order[k], order[smallest] = order[smallest], order[k]
                key[k], key[smallest] = key[smallest], key[k]
                value += _insert(data, state, order[k], undo)
        slot = iteration % len(history)
        if (value >= current_value or value >= history[slot]) and _fits_nodes(data, state):
            current_value = value
            for query in range(queries):
                current[query] = state.chosen[query]
            if value > best_value + _TINY:
                best_value, found = value, iteration
                for query in range(queries):
                    best[query] = current[query]
        else:
            for query in range(queries):
                state.chosen[query] = current[query]
        history[slot] = current_value
    return best_value
