"""A mixed-integer program of the whole problem without latency limits, built from estimates of single plans.

Shares of plans are continuous where requests may be divided, replicas and nodes are whole. Without latency limits, no
lower utilization than the highest one is worth a replica. If the replicas of the optimum do not pack on the paid nodes,
the program is solved again with the replicas of each node as variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.possible.enumeration import TOLERANCE, Optimum, fewest_nodes, node_shares
from benchmarks.possible.instances import Instance
from circinus.arrays import FloatArray
from circinus.estimation import PlanCandidate, QueryEstimators
from circinus.matching.solvers.highs import LpModel, solve_milp
from circinus.specification import Deployment, Pool, Query

_LIMIT_S = 10.0
"""Time limit of each of two programs."""
_COST_GAP, _WEIGHT_GAP, _PROVED_GAP = 1e-7, 1e-6, 1e-5


def optimum(instance: Instance, target: float) -> Optimum:
    """Return the optimum of an instance with every deployment used up to a utilization."""
    network = instance.network
    plans = []
    for query in instance.specification.queries:
        candidates = instance.plans(query, QueryEstimators(query, instance.pipeline, network), target=target)
        plans.append([c for c in candidates if _may_take_part(query, c)])
    packed = _Program(instance, plans, has_node_columns=False).solved()
    return packed if packed is not None else _Program(instance, plans, has_node_columns=True).solved_on_nodes()


def _may_take_part(query: Query, candidate: PlanCandidate) -> bool:
    slo = query.slos.accuracy
    is_mean = query.split and query.accuracy_of == "mean"
    return slo is None or is_mean or slo.is_met_by(slo.worst(candidate.estimate.accuracy))


@dataclass
class _Columns:
    """Columns of a program, continuous ones first."""

    continuous: list[float] = field(default_factory=list)
    """Upper bounds."""
    whole: list[float] = field(default_factory=list)
    """Upper bounds."""

    def add(self, upper: float, *, is_whole: bool = True) -> int:
        """Add a column and return a reference: -1, -2, ... for whole ones."""
        (self.whole if is_whole else self.continuous).append(upper)
        return -len(self.whole) if is_whole else len(self.continuous) - 1

    def position(self, reference: int) -> int:
        """Return the column of a reference once all are added."""
        return reference if reference >= 0 else len(self.continuous) - 1 - reference


_Row = tuple[list[int], list[float], float, float]


class _Program:
    def __init__(self, instance: Instance, plans: Sequence[Sequence[PlanCandidate]], *, has_node_columns: bool) -> None:
        self._queries = instance.specification.queries
        self._infrastructure = instance.specification.required_infrastructure
        self._columns, self._rows = _Columns(), list[_Row]()
        self._cost = dict[int, float]()
        self._has_node_columns = has_node_columns
        self._pools = {pool.name: pool for pool in self._infrastructure.pools}
        self._uses = {use.deployment: use for own in plans for plan in own for use in plan.deployments}
        self._demand = {deployment: use.demand.amounts for deployment, use in self._uses.items()}
        self._replicas = {deployment: self._columns.add(self._most(deployment)) for deployment in self._uses}
        self._nodes = {pool.name: self._columns.add(float(pool.nodes)) for pool in self._pools.values() if pool.nodes}
        self._served = [self._columns.add(1.0) for _ in self._queries]
        self._shares = [
            [self._columns.add(1.0, is_whole=not query.split) for _ in own]
            for query, own in zip(self._queries, plans, strict=True)
        ]
        self._add_pools()
        loads: dict[Deployment, list[tuple[int, float]]] = {deployment: [] for deployment in self._uses}
        links: dict[str, list[tuple[int, float]]] = {}
        capacity: dict[str, float] = {}
        for query, own, shares, served in zip(self._queries, plans, self._shares, self._served, strict=True):
            self._add_query(query, own, shares, served)
            self._add_undivided(instance, query, own, shares)
            for plan, share in zip(own, shares, strict=True):
                self._cost[share] = plan.transfer_cost_usd_per_h
                for use in plan.deployments:
                    loads[use.deployment].append((share, use.fractional_replicas))
                for link in plan.links:
                    links.setdefault(link.link.name, []).append((share, link.bytes_per_s))
                    capacity[link.link.name] = link.link.bandwidth_bytes_per_s * self._infrastructure.usable_link_share
        for deployment, entries in loads.items():
            self._row([(self._replicas[deployment], 1.0), *((share, -load) for share, load in entries)], 0.0, np.inf)
        for name, volumes in links.items():
            self._row([(share, volume / capacity[name]) for share, volume in volumes], -np.inf, 1.0)

    def _row(self, entries: Sequence[tuple[int, float]], lower: float, upper: float) -> None:
        self._rows.append(([column for column, _ in entries], [value for _, value in entries], lower, upper))

    def _most(self, deployment: Deployment) -> float:
        pool = self._pools[deployment.pool]
        return float(pool.nodes * int(1 / max(node_shares(self._demand[deployment], pool)) + TOLERANCE))

    def _add_query(self, query: Query, plans: Sequence[PlanCandidate], shares: Sequence[int], served: int) -> None:
        self._row([*((share, 1.0) for share in shares), (served, -1.0)], 0.0, 0.0)
        slo = query.slos.accuracy
        if slo is not None and query.split:
            margins = [slo.margin(slo.worst(plan.estimate.accuracy)) for plan in plans]
            self._row(list(zip(shares, margins, strict=True)), 0.0, np.inf)
        for deployment in {use.deployment for plan in plans for use in plan.deployments}:
            using = [
                share
                for plan, share in zip(plans, shares, strict=True)
                if any(use.deployment == deployment for use in plan.deployments)
            ]
            self._row([(self._replicas[deployment], 1.0), *((share, -1.0) for share in using)], 0.0, np.inf)

    def _add_undivided(
        self, instance: Instance, query: Query, plans: Sequence[PlanCandidate], shares: Sequence[int]
    ) -> None:
        """Let each operator that is not divided have one deployment only."""
        for operator in instance.pipeline.operators if query.split else ():
            if operator.split:
                continue
            using: dict[Deployment, list[int]] = {}
            for plan, share in zip(plans, shares, strict=True):
                using.setdefault(plan.plan.deployment_of(operator.name), []).append(share)
            is_used = {deployment: self._columns.add(1.0) for deployment in using}
            self._row([(column, 1.0) for column in is_used.values()], 0.0, 1.0)
            for deployment, own in using.items():
                self._row([(is_used[deployment], 1.0), *((share, -1.0) for share in own)], 0.0, np.inf)

    def _add_pools(self) -> None:
        for name, nodes in self._nodes.items():
            pool = self._pools[name]
            own = [deployment for deployment in self._uses if deployment.pool == name]
            self._row([(nodes, 1.0)], float(pool.base_nodes), float(pool.nodes))
            if pool.bills_nodes:
                self._cost[nodes] = pool.price_usd_per_h
            else:
                for deployment in own:
                    share = pool.reserved_share(self._demand[deployment])
                    self._cost[self._replicas[deployment]] = share * pool.price_usd_per_h
            shares = np.array([node_shares(self._demand[deployment], pool) for deployment in own]).reshape(len(own), -1)
            for resource in range(shares.shape[1]):
                entries = [(self._replicas[d], float(s)) for d, s in zip(own, shares[:, resource], strict=True) if s]
                self._row([(nodes, 1.0), *((column, -share) for column, share in entries)], -TOLERANCE, np.inf)
            if self._has_node_columns:
                self._add_nodes(pool, nodes, own, shares)

    def _add_nodes(self, pool: Pool, nodes: int, own: Sequence[Deployment], shares: FloatArray) -> None:
        """Put each replica on a node; nodes open in order, and the earlier ones hold as many replicas or more."""
        is_open = [self._columns.add(1.0) for _ in range(pool.nodes)]
        self._row([(nodes, 1.0), *((column, -1.0) for column in is_open)], 0.0, np.inf)
        placed = [[self._columns.add(self._most(deployment)) for _ in is_open] for deployment in own]
        for deployment, columns in zip(own, placed, strict=True):
            self._row([(self._replicas[deployment], -1.0), *((column, 1.0) for column in columns)], 0.0, 0.0)
        for node, column in enumerate(is_open):
            for resource in range(shares.shape[1]):
                entries = [(placed[i][node], -float(shares[i, resource])) for i in range(len(own))]
                self._row([(column, 1.0), *entries], -TOLERANCE, np.inf)
            if node:
                more = [(placed[i][node - 1], 1.0) for i in range(len(own))]
                self._row([*more, *((placed[i][node], -1.0) for i in range(len(own)))], 0.0, np.inf)

    def solved(self) -> Optimum | None:
        """Return the optimum, or None if its replicas do not pack on the nodes that are paid."""
        solution, values = self._solution()
        return solution if all(self._packs(pool, values) for pool in self._nodes) else None

    def solved_on_nodes(self) -> Optimum:
        """Return the optimum of a program with the replicas of each node."""
        return self._solution()[0]

    def _solution(self) -> tuple[Optimum, FloatArray]:
        model = LpModel(
            upper=[*self._columns.continuous, *self._columns.whole],
            continuous=list(range(len(self._columns.continuous))),
        )
        for references, coefficients, lower, upper in self._rows:
            positions = np.array([self._columns.position(column) for column in references])
            model.add_row(positions, np.array(coefficients), lower, upper)
        weight, cost = np.zeros(len(model.upper)), np.zeros(len(model.upper))
        for served, query in zip(self._served, self._queries, strict=True):
            weight[self._columns.position(served)] = query.weight
        for column, usd_per_h in self._cost.items():
            cost[self._columns.position(column)] += usd_per_h
        start = np.zeros(len(model.upper))
        for name, column in self._nodes.items():
            start[self._columns.position(column)] = self._pools[name].nodes
        best, bound = solve_milp(model, -weight, start, time_limit_s=_LIMIT_S, gap=_WEIGHT_GAP, seed=0)
        assert best is not None, "serving no query is feasible"
        total = round(float(weight @ best))
        columns = np.flatnonzero(weight)
        model.add_row(columns, weight[columns], total - 0.5, np.inf)
        values, least = solve_milp(model, cost, best, time_limit_s=_LIMIT_S, gap=_COST_GAP, seed=0)
        assert values is not None, "the start is feasible"
        spent = float(cost @ values)
        is_proved = -bound < total + 0.5 and least >= spent * (1 - _PROVED_GAP) - _PROVED_GAP
        return Optimum(float(total), spent, is_proved), values

    def _packs(self, name: str, values: FloatArray) -> bool:
        """Return whether all replicas of a pool fit on its nodes that are paid."""
        own = [deployment for deployment in self._uses if deployment.pool == name]
        counts = tuple(round(values[self._columns.position(self._replicas[deployment])]) for deployment in own)
        pool, nodes = self._pools[name], round(values[self._columns.position(self._nodes[name])])
        return fewest_nodes(tuple(node_shares(self._demand[d], pool) for d in own), counts, nodes) is not None
