"""Bounds on the weight and the cost of all answers, divided requests included.

A relaxation of the programme: replicas are divisible beyond the first, each query waits as little as any deployment
that keeps no stricter level can make it wait, and levels bind the requests of one query only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.matching.levels.catalogue import Catalogue
from circinus.matching.levels.level_vectors import covering_levels
from circinus.matching.levels.programme import LevelProgramme
from circinus.matching.solvers.highs import LpModel, LpRelaxation

_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class _Columns:
    query: list[int]
    stations: list[tuple[int, ...]]
    needs: list[tuple[float, ...]]
    """Replicas of each station, or share of a link."""
    transfers_usd_per_h: list[float]


@dataclass(frozen=True, eq=False)
class _Rows:
    queries: dict[int, int]
    links: list[int]
    pools: list[int]
    served: int


class LevelBounds:
    """Linear relaxation with one variable for each plan and level, and one for the replicas of each deployment."""

    def __init__(
        self,
        programme: LevelProgramme,
        catalogue: Catalogue,
        weight: FloatArray,
        cost_factor: float,
        seed: int,
        left_s: Callable[[], float],
    ) -> None:
        """Prepare the relaxation.

        Args:
            programme: of some options, with the levels of their stations.
            catalogue: with the limits of the SLOs.
            weight: (queries,) weights in units.
            cost_factor: of the cost, in units of weight.
            seed: of the solver.
            left_s: returns the time that is left.
        """
        self._catalogue, self._weight, self._cost_factor = catalogue, weight, cost_factor
        self._seed, self._left_s = seed, left_s
        self._active = np.zeros(len(catalogue.options), dtype=bool)
        self._columns = self._columns_of(programme)
        used = sorted({station for own in self._columns.stations for station in own})
        self._deployments = [station for station in used if station < len(catalogue.stations)]
        self._links = used[len(self._deployments) :]

    def weight_and_cost(self, served: float) -> tuple[float, float]:
        """Return upper bounds of the weight in units, and lower ones of the cost of answers with at least some weight.

        Args:
            served: weight, in units, that an answer has.
        """
        most = float(self._weight.sum())
        bound = self._solved(self._weight, self._cost_factor, None)
        # The cost of all that fits is less than a unit of weight.
        weight = most if bound is None else min(math.floor(1.0 - _ROUNDING - bound), most)
        cheapest = self._solved(np.zeros(len(self._weight)), 1.0, served)
        return max(weight, served), 0.0 if cheapest is None else max(cheapest, 0.0)

    def _columns_of(self, programme: LevelProgramme) -> _Columns:
        catalogue, columns = self._catalogue, _Columns([], [], [], [])
        levels = {station: its.optimistic() for station, its in programme.grids.items()}
        per_load = dict[int, FloatArray]()
        """Station -> replicas for each unit of load, at each level."""
        for station, its in programme.grids.items():
            replicas = np.full(its.capacity.shape, np.inf)
            np.divide(its.sizes, its.capacity, out=replicas, where=its.capacity > 0)
            per_load[station] = replicas.min(axis=1)
        for number in programme.active:
            option, (stations, loads) = catalogue.options[number], catalogue.uses_of[number]
            stages = len(option.plan.stages)
            links = dict(zip(programme.links_of(number), [levels[s] for s in stations[stages:]], strict=True))
            self._active[number] = True
            for vector in covering_levels(option.plan, option.limit_s, [levels[s] for s in stations[:stages]], links):
                columns.query.append(option.query)
                columns.stations.append(stations)
                needs = zip(stations, loads, vector.tolist(), strict=True)
                columns.needs.append(tuple(load * float(per_load[station][k]) for station, load, k in needs))
                columns.transfers_usd_per_h.append(float(catalogue.transfer_usd_per_h[number]))
        return columns

    def _solved(self, weight: FloatArray, cost_factor: float, served: float | None) -> float | None:
        """Return a lower bound on cost_factor * cost - weight of all answers that serve a weight, or None."""
        if self._left_s() <= 0:
            return None
        model = LpModel(upper=[])
        objective, rows = self._add_rows(model, weight, cost_factor, served)
        solution = LpRelaxation(model, objective, self._seed).solve(max(self._left_s(), 0.1))
        if solution is None:
            return None
        catalogue, duals = self._catalogue, solution.row_duals
        of_pools = (-duals[rows.pools] / catalogue.rows.limit) @ catalogue.rows.coefficients
        replica = cost_factor * catalogue.billed_usd_per_h + of_pools
        price = catalogue.of_stations(replica / catalogue.infrastructure.utilization_limit)
        price[self._links] = -duals[rows.links] / catalogue.infrastructure.usable_link_share
        of_query = np.zeros(len(self._weight))
        of_query[list(rows.queries)] = -duals[list(rows.queries.values())]
        gain = weight if served is None else weight + duals[rows.served] * self._weight
        reduced = (price[catalogue.station] * catalogue.load).sum(axis=1)
        reduced += cost_factor * catalogue.transfer_usd_per_h + (of_query - gain)[catalogue.query_of]
        reduced[self._active] = 0.0
        missing = np.zeros(len(self._weight))
        np.minimum.at(missing, catalogue.query_of, reduced)
        return solution.bound + float(missing.sum())

    def _add_rows(
        self, model: LpModel, weight: FloatArray, cost_factor: float, served: float | None
    ) -> tuple[FloatArray, _Rows]:
        """Add columns (plans, replicas of deployments, nodes of elastic pools) and rows; return the objective."""
        catalogue, columns, pools = self._catalogue, self._columns, self._catalogue.infrastructure.pools
        x, d = len(columns.query), len(self._deployments)
        elastic = [number for number, pool in enumerate(pools) if pool.base_nodes < pool.nodes]
        nodes = {pool: x + d + number for number, pool in enumerate(elastic)}
        model.upper += [1.0] * x + [math.inf] * d + [float(pools[k].nodes - pools[k].base_nodes) for k in elastic]
        query = np.array(columns.query, dtype=np.int64)
        queries = {}
        for number in np.unique(query).tolist():
            queries[number] = len(model.row_lower)
            own = np.flatnonzero(query == number)
            model.add_row(own, np.ones(len(own)), -np.inf, 1.0)
        users = defaultdict[int, list[tuple[int, float]]](list)
        for number, (stations, needs) in enumerate(zip(columns.stations, columns.needs, strict=True)):
            for station, need in zip(stations, needs, strict=True):
                users[station].append((number, need))
        for position, station in enumerate(self._deployments):
            number_of, needs_of = zip(*users[station], strict=True)
            at, replicas = np.array(number_of), x + position
            model.add_row(np.append(at, replicas), np.append(needs_of, -1.0), -np.inf, 0.0)
            for number in np.unique(query[at]).tolist():
                mine = at[query[at] == number]
                first = 1.0 + float(catalogue.spare[station])
                model.add_row(np.append(mine, replicas), np.append(np.full(len(mine), first), -1.0), -np.inf, 0.0)
        of_links = []
        for station in self._links:
            number_of, needs_of = zip(*users[station], strict=True)
            of_links.append(len(model.row_lower))
            model.add_row(np.array(number_of), np.array(needs_of), -np.inf, 1.0)
        of_pools = []
        for row, pool in enumerate(catalogue.rows.pool.tolist()):
            shares = catalogue.rows.coefficients[row, self._deployments] / catalogue.rows.limit[row]
            used = np.flatnonzero(shares)
            of_pools.append(len(model.row_lower))
            if pool in nodes:
                share = 1.0 / pools[pool].nodes
                both = np.append(x + used, nodes[pool])
                model.add_row(both, np.append(shares[used], -share), -np.inf, share * pools[pool].base_nodes)
            else:
                model.add_row(x + used, shares[used], -np.inf, 1.0)
        row = len(model.row_lower)
        if served is not None:
            model.add_row(np.arange(x), self._weight[query], served * (1 - 1e-9), np.inf)
        cost = [
            *columns.transfers_usd_per_h,
            *catalogue.billed_usd_per_h[self._deployments],
            *(pools[k].paid_usd_per_h if pools[k].bills_nodes else 0.0 for k in elastic),
        ]
        objective = cost_factor * np.array(cost)
        objective[:x] -= weight[query]
        return objective, _Rows(queries, of_links, of_pools, row)
