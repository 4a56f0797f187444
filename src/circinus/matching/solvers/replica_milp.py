"""Mixed-integer programs of whole replicas, which have to fit in pools and to be packed on their nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.cuts import PackingCut, PoolCut
from circinus.matching.pool_packing import packing_cut
from circinus.matching.problem import Problem, Usage
from circinus.matching.solvers.highs import LpModel


@dataclass(kw_only=True)
class ReplicaMilp(LpModel):
    """A program whose columns determine the replicas of each deployment, with its capacities and packing cuts."""

    problem: Problem
    candidates: IntArray
    """(x columns,) candidate of each of the first columns."""
    expression: FloatArray
    """(D, first columns) replicas of each deployment as a linear form in the columns."""
    replica_bound: IntArray
    """(D,) greatest number of replicas."""
    indicators: dict[int, tuple[IntArray, int]] = field(default_factory=dict)
    """Column of each indicator -> (deployments, count): it is 1 if their replicas reach the count."""
    nodes: dict[int, int] = field(default_factory=dict)
    """Elastic pool whose nodes are paid whole -> column of the nodes beyond those that always run."""

    def add_capacities(self) -> None:
        """Require capacity for replicas and transfers, and nodes of elastic pools that are paid whole."""
        problem = self.problem
        for values in (problem.rows.coefficients / problem.rows.limit[:, None]) @ self.expression:
            columns = np.flatnonzero(values)
            self.add_row(columns, values[columns], -np.inf, 1.0)
        self._add_link_capacities()
        for pool in problem.elastic[problem.node_price_usd_per_h[problem.elastic] > 0].tolist():
            most, base = float(problem.nodes[pool]), float(problem.base_nodes[pool])
            self.nodes[pool] = column = len(self.upper)
            self.upper.append(most - base)
            of_pool = problem.rows.pool == pool
            shares = problem.rows.coefficients[of_pool] / problem.rows.limit[of_pool, None] @ self.expression
            for values in shares[shares.any(axis=1)]:
                columns = np.flatnonzero(values)
                self.add_row(np.append(columns, column), np.append(values[columns], -1 / most), -np.inf, base / most)

    def _add_link_capacities(self) -> None:
        """Add capacities of links, as far as they may be exceeded."""
        problem = self.problem
        shares = np.zeros((len(problem.links), len(problem.candidates)))
        row, link, volume = problem.traffic.entries(0, len(problem.candidates))
        shares[link, row] = volume / problem.link_capacity_bytes_per_s[link]
        for values in shares[:, self.candidates]:
            columns = np.flatnonzero(values)
            if values @ np.array(self.upper[: len(values)]) > 1.0:
                self.add_row(columns, values[columns], -np.inf, 1.0)

    def set_packing(self, values: FloatArray, usage: Usage) -> None:
        """Set the indicators and nodes among the columns' values to those of a usage."""
        for column, (members, count) in self.indicators.items():
            values[column] = float(usage.replicas[members].sum() >= count)
        for pool, column in self.nodes.items():
            values[column] = float(usage.nodes[pool] - self.problem.base_nodes[pool])

    def require_nodes(self, values: FloatArray, usage: Usage) -> bool:
        """Return whether replicas of a usage need more nodes than the columns' values pay, and require them if so."""
        problem, added = self.problem, False
        for pool, column in self.nodes.items():
            paid = int(problem.base_nodes[pool]) + round(values[column])
            if usage.nodes[pool] <= paid or not problem.fewest_nodes(pool, usage.replicas).proved:
                continue
            cut = packing_cut(problem, usage, pool, paid, proved=True)
            indicators = np.array([self.add_indicator(members, count) for members, count in cut.groups])
            further = paid + 1.0 - problem.base_nodes[pool]
            coefficients = np.append(np.full(len(indicators), -further), 1.0)
            self.add_row(np.append(indicators, column), coefficients, -further * (len(indicators) - 1), np.inf)
            added = True
        return added

    def add_packing_cut(self, cut: PackingCut | PoolCut) -> None:
        """Exclude replicas that do not pack on the nodes of a pool."""
        if isinstance(cut, PoolCut):
            rows = cut.rows(self.problem)
            limit = self.problem.rows.limit[rows]
            for values in (self.problem.rows.coefficients[rows] / limit[:, None]) @ self.expression:
                columns = np.flatnonzero(values)
                self.add_row(columns, values[columns], -np.inf, cut.share)
            return
        counts = [self.expression[members].sum(axis=0) for members, _ in cut.groups]
        if len(cut.groups) == 1:
            columns = np.flatnonzero(counts[0])
            self.add_row(columns, counts[0][columns], -np.inf, float(cut.groups[0][1] - 1))
            return
        indicators = np.array([self.add_indicator(members, count) for members, count in cut.groups])
        self.add_row(indicators, np.ones(len(indicators)), -np.inf, float(len(indicators) - 1))

    def add_indicator(self, members: IntArray, count: int) -> int:
        """Add a column that is 1 if the replicas of some deployments reach a count."""
        values = self.expression[members].sum(axis=0)
        column = len(self.upper)
        self.upper.append(1.0)
        self.indicators[column] = members, count
        max_replicas = max(float(self.replica_bound[members].sum()), float(count))
        columns = np.append(np.flatnonzero(values), column)
        excess = max_replicas - count + 1
        self.add_row(columns, np.append(values[columns[:-1]], -excess), -np.inf, float(count - 1))
        return column
