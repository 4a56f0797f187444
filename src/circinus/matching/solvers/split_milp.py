"""The matching as a mixed-integer program in which the requests of a query may be divided among its candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import PackingCut, PoolCut
from circinus.matching.problem import Problem, Usage, round_up_replicas
from circinus.matching.solvers.replica_milp import ReplicaMilp
from circinus.matching.tolerances import INTEGRALITY_TOLERANCE
from circinus.specification.slo import COST_ROUNDING

Shares = Mapping[int, Sequence[tuple[int, float]]]
"""Query -> [(candidate, share of its requests), ...] of every served query."""

_MARGIN_SCALE = 100.0
"""Largest coefficient of an accuracy row, so that the solver's tolerance is far below that of an SLO."""
_SHARE_STEP = 1e-9
"""Step of shares that are rounded."""
_MARGIN_TOLERANCE = 1e-13
"""Mean margin below 0 that is a rounding error, well below that of an accuracy SLO."""
_MIN_SHARE = 1e-7
"""Share of the requests below which a candidate counts as unused."""


@dataclass(frozen=True, eq=False)
class Divisibility:
    """Queries and candidates whose requests may be divided, and what a division keeps."""

    queries: BoolArray
    """(Q,) whether the requests of each query may be divided."""
    margin: FloatArray
    """(P,) by how much each candidate exceeds its query's accuracy SLO; the mean over the requests must not be below 0.
    """
    may_be_part: BoolArray
    """(P,) whether a candidate may take only a part of the requests, or those of a query that misses its SLO alone."""
    usable: BoolArray
    """(P,) whether a candidate may be used at all."""
    fixed: tuple[IntArray, ...] = ()
    """Sets of candidates that each keep one operator of one query on one deployment (`OperatorSpec.split`), grouped: of
    the sets of one operator, the requests of the query use at most one."""
    fixed_groups: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(sets,) the group of each set."""
    priced: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Candidates that take all requests only if others leave few enough replicas to pay for (`_add_cost_limits`)."""


@dataclass(kw_only=True)
class SplitMilp(ReplicaMilp):
    """Columns: shares of candidates, served queries, used sets of `Divisibility.fixed`, plans that stay, and replicas.

    Queries that are identical but in name have one set of columns together, in units of one query's requests. A running
    plan stays if it takes all requests.
    """

    classes: tuple[IntArray, ...]
    """Queries with candidates, grouped by those that are identical but in name."""
    deployments: IntArray
    """(n columns,) deployment of each column of replicas."""
    served: int
    """First column of the numbers of served queries of each class."""
    sets: tuple[IntArray, ...]
    """Candidate columns of each used set, whose columns follow."""
    running: IntArray
    """Candidate columns of the running plans, whose columns follow: whether each stays."""
    replicas: int
    """First column of replicas."""

    @property
    def queries(self) -> IntArray:
        """Queries with candidates."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self.classes])

    def counted_usd_per_h(self) -> FloatArray:
        """Return (columns,) the coefficients of the total cost including churn, without `constant_usd_per_h`."""
        cost, problem = np.zeros(len(self.upper)), self.problem
        cost[: len(self.candidates)] = problem.transfer_cost_usd_per_h[self.candidates]
        if problem.incumbent is not None:
            cost[self.replicas - len(self.running) : self.replicas] = -problem.incumbent.change_usd_per_h
        cost[self.replicas : self.expression.shape[1]] = problem.billed_usd_per_h[self.deployments]
        for pool, column in self.nodes.items():
            cost[column] = problem.node_price_usd_per_h[pool]
        return cost

    @property
    def constant_usd_per_h(self) -> float:
        """Cost of nodes that always run, and the churn price of all running plans: each that stays is deducted."""
        problem = self.problem
        return problem.max_change_usd_per_h + float(problem.node_price_usd_per_h @ problem.base_nodes)

    def weight(self, level: int) -> FloatArray:
        """Return (columns,) the weight of the served queries of a level, in multiples of the level's unit."""
        levels = self.problem.priority_levels
        multiples = np.zeros(len(self.problem.queries))
        multiples[levels.descending[level]] = levels.integer_weights[level].multiples
        weight = np.zeros(len(self.upper))
        for group, queries in enumerate(self.classes):
            weight[self.served + group] = multiples[queries[0]]
        return weight

    def values_of(self, shares: Shares) -> FloatArray:
        """Return (columns,) the columns' values for shares of usable candidates."""
        values, block = np.zeros(len(self.upper)), self.problem.block
        column_of = {int(candidate): column for column, candidate in enumerate(self.candidates)}
        for group, queries in enumerate(self.classes):
            for query in queries[[int(query) in shares for query in queries]].tolist():
                for candidate, share in shares[query]:
                    values[column_of[int(candidate - block[query] + block[queries[0]])]] += share
                values[self.served + group] += 1.0
        for column, members in enumerate(self.sets, start=self.served + len(self.classes)):
            values[column] = np.ceil(values[members].sum() - INTEGRALITY_TOLERANCE)
        stays = values[self.running] >= 1.0 - INTEGRALITY_TOLERANCE
        values[self.replicas - len(self.running) : self.replicas] = stays
        self.set_usage(values)
        return values

    def set_usage(self, values: FloatArray) -> Usage:
        """Return the usage of the shares among the columns' values, and set replicas and nodes to it."""
        problem, x = self.problem, values[: len(self.candidates)]
        weight = np.zeros(len(problem.candidates))
        weight[self.candidates] = np.where(x > _MIN_SHARE, x, 0.0)
        row, column, fractional = problem.fractional_load.entries(0, len(weight))
        load, traffic_bytes_per_s = np.zeros(len(problem.deployments)), np.zeros(len(problem.links))
        np.add.at(load, column, weight[row] * fractional)
        row, link, volume = problem.traffic.entries(0, len(weight))
        np.add.at(traffic_bytes_per_s, link, weight[row] * volume)
        replicas = round_up_replicas(load, load > 0, problem.spare_replicas)
        nodes = problem.nodes_of(replicas)
        transfer_usd_per_h = float(problem.transfer_cost_usd_per_h @ weight)
        stays = float(values[self.replicas - len(self.running) : self.replicas].sum())
        usage = Usage(
            fractional_load=load,
            used=load > 0,
            replicas=replicas,
            traffic_bytes_per_s=traffic_bytes_per_s,
            rows=problem.rows.coefficients @ replicas,
            nodes=nodes,
            cost_usd_per_h=problem.cost_usd_per_h(replicas, nodes) + transfer_usd_per_h,
            changes=round(problem.runs.sum() - stays),
        )
        values[self.replicas : self.expression.shape[1]] = replicas[self.deployments]
        self.set_packing(values, usage)
        return usage

    def count_parts(self, values: FloatArray, min_share: float) -> tuple[FloatArray, FloatArray, list[int]]:
        """Add a column for each part that may be used with the replicas and the cost of the columns' values.

        Args:
            values: (columns,)
            min_share: minimum share of a query's requests that a part takes.

        Returns:
            (columns,) coefficients of the number of parts, (columns,) the extended values, rows of the minimum share.
        """
        problem, cost, nothing = self.problem, self.counted_usd_per_h(), np.zeros(0, dtype=np.int64)
        row, column, _ = problem.fractional_load.entries(0, len(problem.candidates))
        is_possible = np.ones(len(problem.candidates), dtype=bool)
        is_possible[row[~self.set_usage(values).used[column]]] = False
        singles = np.concatenate([nothing, *(queries for queries in self.classes if len(queries) == 1)])
        is_single = np.isin(problem.query_of[self.candidates], singles)
        self.upper[self.replicas :] = values[self.replicas :].tolist()
        columns = np.flatnonzero(cost[: self.replicas])
        scale = max(float(np.abs(cost[columns]).max(initial=0.0)), 1e-9)
        most = float(cost[columns] @ values[columns]) / scale
        self.add_row(columns, cost[columns] / scale, -np.inf, most + INTEGRALITY_TOLERANCE)
        count, start, rows = [0.0] * len(self.upper), values.tolist(), list[int]()
        count[len(self.continuous) : len(self.candidates)] = [1.0] * (len(self.candidates) - len(self.continuous))
        for share in self.continuous:
            if not is_possible[self.candidates[share]]:
                self.upper[share] = 0.0
                continue
            pair = np.array([share, len(self.upper)])
            self.add_row(pair, np.array([1.0, -self.upper[share]]), -np.inf, 0.0)
            if is_single[share]:
                rows.append(len(self.row_lower))
                self.add_row(pair, np.array([1.0, -min_share]), 0.0, np.inf)
            self.upper.append(1.0)
            count.append(1.0)
            start.append(float(values[share] > _MIN_SHARE))
        return np.array(count), np.array(start), rows

    def shares_of(self, values: FloatArray, margin: FloatArray) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """Yield (query, [(candidate, share of its requests), ...]) of every served query.

        Args:
            values: (columns,)
            margin: (P,) see `Divisibility`; every query keeps its mean of at least 0.
        """
        block = self.problem.block
        query_of = self.problem.query_of[self.candidates]
        for group, queries in enumerate(self.classes):
            columns = np.flatnonzero((query_of == queries[0]) & (values[: len(query_of)] > _MIN_SHARE))
            candidates, count = self.candidates[columns], round(values[self.served + group])
            positions = candidates - block[queries[0]]
            for query, shares in zip(
                queries.tolist(), _divided(values[columns], margin[candidates], count), strict=False
            ):
                yield query, [(int(block[query] + positions[i]), share) for i, share in shares]


def _divided(amounts: FloatArray, margin: FloatArray, count: int) -> Iterator[list[tuple[int, float]]]:
    """Yield for each of `count` identical queries its [(index, share), ...] of the amounts.

    Queries take a whole candidate as long as the remaining mean is not below 0; all others get equal mixtures.
    """
    amounts, left = amounts * count / amounts.sum(), count
    while left:
        rest = float(amounts @ margin) - margin
        whole = np.flatnonzero(
            (amounts >= 1.0 - INTEGRALITY_TOLERANCE) & (margin >= 0) & (rest >= 0 if left > 1 else True)
        )
        if not len(whole):
            break
        index = int(whole[np.argmin(margin[whole])])
        yield [(index, 1.0)]
        amounts, left = np.maximum(amounts - (np.arange(len(amounts)) == index), 0.0), left - 1
    parts = np.flatnonzero(amounts > _MIN_SHARE)
    shares = _rounded(amounts[parts] / amounts[parts].sum(), margin[parts]) if left else amounts
    for _ in range(left):
        yield list(zip(parts.tolist(), shares.tolist(), strict=True))


def _rounded(shares: FloatArray, margin: FloatArray) -> FloatArray:
    """Return shares in steps, whose mean margin is at least 0 if that of the shares is, but for the solver's tolerance.

    Of shares that fill replicas and meet an accuracy SLO exactly, such as 0.4 and 0.6, nothing is left to give.
    """
    rounded = np.round(shares / _SHARE_STEP) * _SHARE_STEP
    rounded[rounded.argmax()] += 1.0 - rounded.sum()
    mean, worst, best = float(rounded @ margin), int(margin.argmin()), int(margin.argmax())
    if mean < -_MARGIN_TOLERANCE and margin[best] > margin[worst]:
        moved = np.ceil(-mean / (margin[best] - margin[worst]) / _SHARE_STEP) * _SHARE_STEP
        moved = min(moved, rounded[worst])
        rounded[[worst, best]] += [-moved, moved]
    return rounded


def build_split_milp(
    problem: Problem, divisibility: Divisibility, cuts: Sequence[PackingCut | PoolCut] = ()
) -> SplitMilp:
    """Return the program without objective: queries, accuracies, fixed operators, loads, capacities, cuts.

    All candidates count that fit in an empty pool; those of queries that are not divided must meet their SLOs.
    """
    row, column, fractional = problem.fractional_load.entries(0, len(problem.candidates))
    dedicated = round_up_replicas(fractional, True, problem.spare_replicas[column])
    divided = divisibility.queries[problem.query_of] & divisibility.may_be_part
    usable = divisibility.usable & (divided | (divisibility.margin >= 0))
    usable[row[(dedicated > problem.max_replicas[column]) & ~divided[row]]] = False
    classes = tuple(np.array(queries) for queries in _query_classes(problem, divisibility, usable))
    times = np.zeros(len(problem.queries))
    for queries in classes:
        times[queries[0]] = len(queries)
    usable &= times[problem.query_of] > 0
    order = np.flatnonzero(usable)
    candidates = np.concatenate([order[divided[order]], order[~divided[order]]]).astype(np.int64)
    of_column = usable[row]
    row, column, fractional, dedicated = row[of_column], column[of_column], fractional[of_column], dedicated[of_column]
    deployments = np.unique(column)
    sets = [members[usable[members]] for members in divisibility.fixed]
    kept = [index for index, members in enumerate(sets) if len(members)]
    x_of = np.full(len(problem.candidates), -1, dtype=np.int64)
    x_of[candidates] = np.arange(len(candidates))
    running = x_of[problem.runs & usable]
    served, first_set = len(candidates), len(candidates) + len(classes)
    replicas = first_set + len(kept) + len(running)
    most = np.zeros((len(problem.deployments), len(problem.queries)))
    np.maximum.at(most, (column, problem.query_of[row]), fractional)
    bound = np.minimum(np.ceil(most @ times) + 1, problem.max_replicas).astype(np.int64)
    expression = np.zeros((len(problem.deployments), replicas + len(deployments)))
    expression[deployments, replicas + np.arange(len(deployments))] = 1.0
    fluid_usd_per_h = problem.transfer_cost_usd_per_h.copy()
    np.add.at(fluid_usd_per_h, row, problem.price_usd_per_h[column] * fractional)
    programme = SplitMilp(
        upper=[
            *times[problem.query_of[candidates]].tolist(),
            *(float(len(queries)) for queries in classes),
            *(float(times[problem.query_of[sets[index][0]]]) for index in kept),
            *np.ones(len(running)).tolist(),
            *bound[deployments].astype(np.float64).tolist(),
        ],
        continuous=np.flatnonzero(divided[candidates]).tolist(),
        problem=problem,
        classes=classes,
        candidates=candidates,
        expression=expression,
        replica_bound=bound,
        deployments=deployments,
        served=served,
        sets=tuple(x_of[sets[index]] for index in kept),
        running=running,
        replicas=replicas,
    )
    _add_queries(programme, divisibility, x_of, fluid_usd_per_h)
    _add_fixed(programme, divisibility.fixed_groups[kept])
    for stays, share in enumerate(running.tolist(), start=replicas - len(running)):
        programme.add_row(np.array([share, stays]), np.array([1.0, -1.0]), 0.0, np.inf)
    for position, deployment in enumerate(deployments):
        entries = np.flatnonzero(column == deployment)
        shares, owners = x_of[row[entries]], problem.query_of[row[entries]]
        whole = np.where(divided[row[entries]], 1.0, dedicated[entries])
        n = replicas + position
        programme.add_row(np.append(shares, n), np.append(-fractional[entries], 1.0), 0.0, np.inf)
        for query in np.unique(owners):
            own = owners == query
            columns = np.append(shares[own], n)
            programme.add_row(columns, np.append(-whole[own] / times[query], 1.0), 0.0, np.inf)
    _add_cost_limits(programme, x_of[divisibility.priced[usable[divisibility.priced]]])
    programme.add_capacities()
    for cut in cuts:
        programme.add_packing_cut(cut)
    return programme


def _query_classes(problem: Problem, divisibility: Divisibility, usable: BoolArray) -> list[list[int]]:
    """Return the queries with usable candidates, grouped by those whose exchange changes nothing."""
    rank, weight, classes = problem.priority_levels.rank, problem.priority_levels.weight, dict[object, list[int]]()
    for query in range(len(problem.queries)):
        if not usable[problem.block[query] : problem.block[query + 1]].any():
            continue
        block = slice(problem.block[query], problem.block[query + 1])
        is_distinct = problem.incumbent is not None or np.isfinite(problem.cost_limit_usd_per_h[query])
        is_distinct |= any(problem.query_of[members[0]] == query for members in divisibility.fixed)
        is_distinct |= not divisibility.may_be_part[block].all()
        key: object = query
        if not is_distinct:
            margin = divisibility.margin[block].tobytes()
            key = int(rank[query]), float(weight[query]), bool(divisibility.queries[query]), margin
            key = (key, problem.exchange_key(query, usable))
        classes.setdefault(key, []).append(query)
    return list(classes.values())


def _add_queries(programme: SplitMilp, divisibility: Divisibility, x_of: IntArray, fluid_usd_per_h: FloatArray) -> None:
    """Require of each query: one unit of shares if it is served, its mean accuracy, and its cost if fully shared."""
    problem = programme.problem
    for group, queries in enumerate(programme.classes):
        columns = x_of[np.array(problem.candidates_of(int(queries[0])))]
        columns = columns[columns >= 0]
        served = programme.served + group
        programme.add_row(np.append(columns, served), np.append(np.ones(len(columns)), -1.0), 0.0, 0.0)
        limit_usd_per_h = float(problem.cost_limit_usd_per_h[queries[0]])
        if np.isfinite(limit_usd_per_h):
            relative = fluid_usd_per_h[programme.candidates[columns]] / max(limit_usd_per_h, 1e-9) - 1.0
            programme.add_row(columns, relative, -np.inf, COST_ROUNDING)
        margin = divisibility.margin[programme.candidates[columns]]
        if divisibility.queries[queries[0]] and (margin < 0).any():
            programme.add_row(columns, _MARGIN_SCALE * margin / np.abs(margin).max(), 0.0, np.inf)


def _add_cost_limits(programme: SplitMilp, shares: IntArray) -> None:
    """Add the cost SLOs of candidates that take all requests, deployment by deployment.

    With all others fully shared, a query pays price * fractional * replicas / load for a deployment at most up to its
    limit (see `milp_model`).
    """
    problem, x_of = programme.problem, np.full(len(programme.problem.candidates), -1, dtype=np.int64)
    x_of[programme.candidates] = np.arange(len(programme.candidates))
    row, column, load = problem.fractional_load.entries(0, len(problem.candidates))
    replica_of = {int(deployment): programme.replicas + n for n, deployment in enumerate(programme.deployments)}
    for share in shares.tolist():
        candidate = int(programme.candidates[share])
        deployments, fractional = problem.fractional_load.row(candidate)
        shared_usd_per_h = problem.price_usd_per_h[deployments] * fractional
        slack_usd_per_h = float(problem.cost_limit_usd_per_h[problem.query_of[candidate]])
        slack_usd_per_h -= float(problem.transfer_cost_usd_per_h[candidate] + shared_usd_per_h.sum())
        for deployment, usd_per_h in zip(deployments.tolist(), shared_usd_per_h.tolist(), strict=True):
            if usd_per_h <= 0 or not np.isfinite(slack_usd_per_h):
                continue
            most, users = float(programme.replica_bound[deployment]), (column == deployment) & (x_of[row] >= 0)
            ratio = max(1.0 + slack_usd_per_h / usd_per_h, 0.0)
            values = np.zeros(len(programme.upper))
            values[x_of[row[users]]] = -ratio * load[users] / most
            values[replica_of[deployment]] = 1.0 / most
            values[share] += 1.0
            columns = np.flatnonzero(values)
            programme.add_row(columns, values[columns], -np.inf, 1.0 + COST_ROUNDING)


def _add_fixed(programme: SplitMilp, groups: IntArray) -> None:
    """Require that a query uses at most one set of each group."""
    first = programme.served + len(programme.classes)
    for column, members in enumerate(programme.sets, start=first):
        programme.add_row(np.append(members, column), np.append(np.ones(len(members)), -1.0), -np.inf, 0.0)
    for group in np.unique(groups):
        columns = first + np.flatnonzero(groups == group)
        programme.add_row(columns, np.ones(len(columns)), -np.inf, 1.0)
