"""The matching as a mixed-integer program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import ChurnCut, CostShareCut, Cut, PackingCut, PoolCut, SizingCut
from circinus.matching.problem import Problem, Usage, round_up_replicas
from circinus.matching.solvers.mir_cuts import DeploymentColumns, links
from circinus.matching.solvers.node_patterns import PatternColumns, add_patterns
from circinus.matching.solvers.replica_milp import ReplicaMilp
from circinus.matching.solvers.viable_candidates import max_loads, viable_candidates
from circinus.matching.tolerances import REPLICA_TOLERANCE

_LOAD_TOLERANCE = REPLICA_TOLERANCE / 2
"""Tolerance of loads over whole replicas; half of the total tolerance is left for the solver."""


@dataclass(kw_only=True)
class MatchingMilp(ReplicaMilp):
    """A program with one column per usable candidate, one integer per shared deployment, and indicators of cuts.

    A deployment that only one query could use needs no column: its replicas follow from the candidate. Of queries that
    are alike, the candidates of the first have columns, which count how many of the queries get each: branching on the
    exchange of two of them would repeat the same work.
    """

    classes: tuple[IntArray, ...]
    """Queries with usable candidates, grouped by those that are identical but in name."""
    shared: IntArray
    """(n columns,) deployment of each of the columns behind those of candidates, which are of a class's first query."""
    loads: list[DeploymentColumns] = field(default_factory=list)
    """Columns of each shared deployment."""
    patterns: tuple[PatternColumns, ...] = ()
    """Columns of the nodes of pools, by pattern."""
    load_columns: dict[int, int] = field(default_factory=dict)
    """Shared deployment -> column of its load."""

    def serve_all(self) -> None:
        """Require one candidate of every query that has any: tighter than the equivalent bound on the weight."""
        self.row_lower[: len(self.classes)] = [float(len(queries)) for queries in self.classes]

    @property
    def queries(self) -> IntArray:
        """Queries with usable candidates."""
        return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *self.classes]))

    def forbid(self, columns: BoolArray) -> None:
        """Require 0 of `columns` (columns,)."""
        for column in np.flatnonzero(columns):
            self.upper[column] = 0.0

    @contextmanager
    def forbidden(self, columns: BoolArray) -> Iterator[None]:
        """Require 0 of `columns` (columns,) for the duration of the context."""
        upper = self.upper.copy()
        self.forbid(columns)
        try:
            yield
        finally:
            self.upper[: len(upper)] = upper

    def columns_of(self, candidates: IntArray) -> IntArray:
        """Return the columns of the given candidates that have one."""
        return np.flatnonzero(np.isin(self.candidates, candidates)).astype(np.int64)

    def counted_usd_per_h(self) -> FloatArray:
        """Return (columns,) the coefficients of the total cost including churn, without `constant_usd_per_h`."""
        cost = np.zeros(len(self.upper))
        cost[: self.expression.shape[1]] = self.problem.billed_usd_per_h @ self.expression
        for pool, column in self.nodes.items():
            cost[column] = self.problem.node_price_usd_per_h[pool]
        cost[: len(self.candidates)] += self.problem.transfer_cost_usd_per_h[self.candidates]
        if self.problem.incumbent is not None:
            runs = self.problem.runs[self.candidates]
            cost[: len(self.candidates)][runs] -= self.problem.incumbent.change_usd_per_h
        return cost

    @property
    def constant_usd_per_h(self) -> float:
        """Cost of nodes that always run, and the churn price of all running plans: each that stays is deducted."""
        problem = self.problem
        return problem.max_change_usd_per_h + float(problem.node_price_usd_per_h @ problem.base_nodes)

    def values_of(self, chosen: IntArray, usage: Usage) -> FloatArray:
        """Return (columns,) the columns' values for a choice whose candidates all have one."""
        values, block = np.zeros(len(self.upper)), self.problem.block
        column_of = np.full(len(self.problem.candidates), -1)
        column_of[self.candidates] = np.arange(len(self.candidates))
        for queries in self.classes:
            served = queries[chosen[queries] >= 0]
            columns = column_of[chosen[served] - block[served] + block[queries[0]]]
            np.add.at(values, columns[columns >= 0], 1.0)
        values[len(self.candidates) : self.expression.shape[1]] = usage.replicas[self.shared]
        self.set_packing(values, usage)
        for patterns in self.patterns:
            values[patterns.columns] = patterns.counts(self.problem, usage)
        for deployment, column in self.load_columns.items():
            values[column] = usage.fractional_load[deployment]
        return values

    def rounded_choice(self, values: FloatArray) -> IntArray:
        """Return (Q,) the most selected candidates of the queries that fractional values mostly serve."""
        counts, x = np.zeros(len(self.candidates)), np.array(values[: len(self.candidates)])
        for columns in self.columns_of_classes():
            for _ in range(round(x[columns].sum() - 1e-9)):
                most = columns[np.argmax(x[columns])]
                counts[most] += 1.0
                x[most] -= 1.0
        return self.choice_of(counts)

    def choice_of(self, values: FloatArray) -> IntArray:
        """Return (Q,) the choice of the columns' values."""
        chosen, block = np.full(len(self.problem.queries), -1, dtype=np.int64), self.problem.block
        counts = np.rint(values[: len(self.candidates)]).astype(np.int64)
        for queries, columns in zip(self.classes, self.columns_of_classes(), strict=True):
            position = np.repeat(self.candidates[columns] - block[queries[0]], counts[columns])
            served = queries[: len(position)]
            chosen[served] = block[served] + position
        return chosen

    def columns_of_classes(self) -> list[IntArray]:
        """Return the candidate columns of each class."""
        query_of = self.problem.query_of[self.candidates]
        return [np.flatnonzero(query_of == queries[0]).astype(np.int64) for queries in self.classes]


def build_milp(
    problem: Problem, cuts: Sequence[Cut], *, eligible: BoolArray | None = None, is_large: bool = False
) -> MatchingMilp:
    """Return the program of `problem` under `cuts`, without objective: queries (first), loads, capacities, costs, cuts.

    Args:
        problem: the matching problem.
        cuts: to be satisfied.
        eligible: (P,) candidates that may be chosen; None: all.
        is_large: whether to pack replicas on nodes, to give loads columns of their own, and to leave out rows that
            integers imply (`violated_links`).
    """
    usable = viable_candidates(problem, cuts)
    if eligible is not None:
        usable &= eligible
    classes = _query_classes(problem, usable, cuts)
    firsts = np.isin(problem.query_of, [queries[0] for queries in classes])
    max_load = max_loads(problem, usable)
    usable = usable & firsts
    candidates = np.flatnonzero(usable).astype(np.int64)
    row, column, fractional = problem.fractional_load.entries(0, len(problem.candidates))
    is_usable = usable[row]
    row, column, fractional = row[is_usable], column[is_usable], fractional[is_usable]
    spare = problem.spare_replicas
    dedicated = round_up_replicas(fractional, True, spare[column])

    users = max_load > 0
    shared = np.flatnonzero(users.sum(axis=1) > 1).astype(np.int64)
    most = round_up_replicas(max_load.sum(axis=1), np.asarray(users.any(axis=1)), spare)
    bound = np.minimum(most, problem.max_replicas)

    x_of = np.full(len(problem.candidates), -1, dtype=np.int64)
    x_of[candidates] = np.arange(len(candidates))
    expression = np.zeros((len(problem.deployments), len(candidates) + len(shared)))
    unshared = ~np.isin(column, shared)
    expression[column[unshared], x_of[row[unshared]]] = dedicated[unshared]
    expression[shared, len(candidates) + np.arange(len(shared))] = 1.0

    times = np.zeros(len(problem.candidates))
    for queries in classes:
        times[problem.candidates_of(int(queries[0]))] = len(queries)
    programme = MatchingMilp(
        problem=problem,
        classes=classes,
        candidates=candidates,
        shared=shared,
        upper=[*times[candidates].tolist(), *(float(bound[deployment]) for deployment in shared)],
        expression=expression,
        replica_bound=bound,
    )
    for queries, columns in zip(classes, programme.columns_of_classes(), strict=True):
        programme.add_row(columns, np.ones(len(columns)), 0.0, float(len(queries)))
    for position, deployment in enumerate(shared):
        on_deployment = column == deployment
        x = x_of[row[on_deployment]]
        load = DeploymentColumns(
            len(candidates) + position,
            x,
            fractional[on_deployment],
            problem.query_of[candidates[x]],
            times[candidates[x]].astype(np.int64),
        )
        programme.loads.append(load)
        _add_load(programme, load, int(spare[deployment]))
        if is_large:
            _add_load_column(programme, int(deployment), load)
        else:
            for link in links(load, dedicated[on_deployment]):
                programme.add_row(link.columns, link.values, link.lower, np.inf)
    programme.add_capacities()
    if is_large:
        programme.is_large, programme.patterns = True, add_patterns(programme, problem, programme.expression)
    _add_cost_limits(programme)
    packed = {patterns.pool for patterns in programme.patterns}
    for cut in cuts:
        if not (isinstance(cut, PoolCut) and cut.pool in packed):
            _add_cut(programme, cut)
    return programme


def _query_classes(problem: Problem, usable: BoolArray, cuts: Sequence[Cut]) -> tuple[IntArray, ...]:
    """Return the queries with usable candidates, grouped by those whose exchange changes nothing.

    Cost SLOs and some cuts are about single candidates, and so are the price of changes and spare replicas.
    """
    are_distinct = problem.incumbent is not None or bool(problem.spare_replicas.any())
    are_distinct = are_distinct or any(not isinstance(cut, PackingCut | PoolCut) for cut in cuts)
    weight, rank = problem.priority_levels.weight, problem.priority_levels.rank
    groups: dict[object, list[int]] = {}
    for query in range(len(problem.queries)):
        if usable[problem.block[query] : problem.block[query + 1]].any():
            key: object = int(rank[query]), float(weight[query]), problem.exchange_key(query, usable)
            if are_distinct or np.isfinite(problem.cost_limit_usd_per_h[query]):
                key = query
            groups.setdefault(key, []).append(query)
    return tuple(np.array(queries, dtype=np.int64) for queries in groups.values())


def _add_load(programme: MatchingMilp, load: DeploymentColumns, spare: int) -> None:
    """Require replicas for the total load of a shared deployment, and the spare ones beside if any query is on it."""
    columns = np.append(load.candidates, load.replicas)
    programme.add_row(columns, np.append(-load.fractional, 1.0), -_LOAD_TOLERANCE, np.inf)
    for query in np.unique(load.query_of) if spare else ():
        of_query = load.query_of == query
        programme.add_row(columns, np.append(-load.fractional - spare * of_query, 1.0), -_LOAD_TOLERANCE, np.inf)


def _add_load_column(programme: MatchingMilp, deployment: int, load: DeploymentColumns) -> None:
    """Add a column for the load of a shared deployment, which keeps rows about it short."""
    programme.load_columns[deployment] = column = len(programme.upper)
    programme.upper.append(float(programme.replica_bound[deployment]))
    programme.continuous.append(column)
    programme.add_row(np.append(load.candidates, column), np.append(load.fractional, -1.0), 0.0, np.inf)


def _add_cost_limits(programme: MatchingMilp) -> None:
    """Add cost SLOs, deployment by deployment.

    A query pays price * fractional * replicas / load for a deployment. If the others are fully shared, the remaining
    limit for one deployment is linear in its replicas and its load. Several partly shared deployments may still exceed
    the limit together: that is found by the sizing, and cut (`CostShareCut`).
    """
    problem = programme.problem
    load_of = {int(d): load for d, load in zip(programme.shared, programme.loads, strict=True)}
    is_shared = np.isin(np.arange(len(problem.deployments)), programme.shared)
    for x, candidate in enumerate(programme.candidates):
        limit = problem.cost_limit_usd_per_h[problem.query_of[candidate]]
        if not np.isfinite(limit):
            continue
        columns, fractional = problem.fractional_load.row(int(candidate))
        price = problem.price_usd_per_h[columns]
        shared = is_shared[columns]
        spare = problem.spare_replicas[columns]
        dedicated = price * round_up_replicas(fractional, True, spare)
        min_cost = np.where(shared, price * fractional, dedicated)
        max_cost = np.where(shared, price * (fractional + 1 + spare), dedicated)
        slack = limit - problem.transfer_cost_usd_per_h[candidate] - min_cost.sum()
        for position in np.flatnonzero(shared & (price > 0) & (max_cost - min_cost > slack)):
            # Replicas for each unit of load; 0 excludes the candidate.
            max_ratio = max((min_cost[position] + slack) / min_cost[position], 0.0)
            max_replicas = float(programme.replica_bound[columns[position]])
            load = load_of[int(columns[position])]
            total = programme.load_columns.get(int(columns[position]))
            _add_ratio(programme, x, load, total, max_ratio, max_replicas)


def _add_ratio(
    programme: MatchingMilp, x: int, load: DeploymentColumns, total: int | None, max_ratio: float, max_replicas: float
) -> None:
    """Require replicas <= max_ratio * load if candidate column x is chosen; `total` is the load's column, if any."""
    scale = 1.0 / max(max_replicas, 1.0)
    row = np.zeros(len(programme.upper))
    if total is None:
        row[load.candidates] = -max_ratio * load.fractional * scale
    else:
        row[total] = -max_ratio * scale
    row[load.replicas] = scale
    row[x] += max_replicas * scale
    columns = np.flatnonzero(row)
    programme.add_row(columns, row[columns], -np.inf, max_replicas * scale + 1e-9)


def _add_cut(programme: MatchingMilp, cut: Cut) -> None:
    if isinstance(cut, PackingCut | PoolCut):
        programme.add_packing_cut(cut)
    elif isinstance(cut, ChurnCut):
        running = cut.retained[cut.retained >= 0]
        columns = programme.columns_of(running)
        programme.add_row(columns, np.ones(len(columns)), float(len(running) - cut.max_changes), np.inf)
    elif isinstance(cut, CostShareCut):
        _add_share_cut(programme, cut)
    elif isinstance(cut, SizingCut) and cut.valid:
        x = programme.columns_of(np.array([cut.candidate]))
        if not len(x):
            return
        present, absent = programme.columns_of(cut.present), programme.columns_of(cut.absent)
        if len(present) < len(cut.present):
            return  # a neighbour was excluded, so these neighbours cannot recur
        columns = np.concatenate([x, present, absent])
        values = np.concatenate([[1.0], np.ones(len(present)), -np.ones(len(absent))])
        programme.add_row(columns, values, -np.inf, float(len(present)))


def _add_share_cut(programme: MatchingMilp, cut: CostShareCut) -> None:
    """Require start - slope @ loads - relief @ (1 - reached) <= limit if the candidate is chosen."""
    problem = programme.problem
    x = programme.columns_of(np.array([cut.candidate]))
    if not len(x):
        return
    deployments, fractional = problem.fractional_load.row(cut.candidate)
    start, slope, relief, limit = cut.tangents(problem)
    load_of = {int(d): load for d, load in zip(programme.shared, programme.loads, strict=True)}
    reached = {
        position: programme.add_indicator(np.array([deployment]), int(cut.replicas[position]))
        for position, deployment in enumerate(deployments)
        if int(deployment) in load_of and cut.replicas[position] > 1
    }
    row = np.zeros(len(programme.upper))
    upper = limit - start.sum()
    for position, deployment in enumerate(deployments):
        load = load_of.get(int(deployment))
        if load is None:  # only this query could use it: the load is the candidate's own
            upper += slope[position] * fractional[position]
            continue
        row[load.candidates] -= slope[position] * load.fractional
        if position in reached:
            row[reached[position]] += relief[position]
            upper += relief[position]
    inactive_slack = max(-upper, 0.0)
    row[x[0]] += inactive_slack
    scale = max(limit, 1e-9)
    columns = np.flatnonzero(row)
    programme.add_row(columns, row[columns] / scale, -np.inf, (upper + inactive_slack) / scale + _LOAD_TOLERANCE)
