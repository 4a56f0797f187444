"""The matching as a mixed-integer program in which the requests of a query may be divided among its candidates."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.problem import Problem, Usage, round_up_replicas
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.highs import LpModel, solve_milp
from circinus.matching.solvers.milp_model import add_link_capacities
from circinus.matching.tolerances import COST_GAP_TOLERANCE, INTEGRALITY_TOLERANCE
from circinus.specification.slo import COST_ROUNDING

_MARGIN_SCALE = 100.0
"""Largest coefficient of an accuracy row, so that the solver's tolerance is far below that of an SLO."""
_MARGIN_SLACK = 1e-7
"""Margin, relative to the largest one, that candidates below an accuracy SLO need in addition, for rounding errors."""
_COST_GAP = 1e-9
"""Relative optimality gap at which the search for a lower cost ends."""
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
    kept_out: BoolArray
    """(Q,) whether each query is not served."""
    fixed: tuple[IntArray, ...] = ()
    """Sets of candidates that each keep one operator of one query on one deployment (`OperatorSpec.split`), grouped: of
    the sets of one operator, the requests of the query use at most one."""
    fixed_groups: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(sets,) the group of each set."""


@dataclass(kw_only=True)
class SplitMilp(LpModel):
    """Columns: shares of candidates, served queries, used sets of `Divisibility.fixed`, replicas, and nodes.

    Queries that are identical but in name have one set of columns together, in units of one query's requests.
    """

    problem: Problem
    classes: tuple[IntArray, ...]
    """Queries with candidates, grouped by those that are identical but in name."""
    candidates: IntArray
    """(x columns,) candidate of each, of the first query of its class."""
    deployments: IntArray
    """(n columns,) deployment of each."""
    served: int
    """First column of the numbers of served queries of each class."""
    replicas: int
    """First column of replicas."""
    nodes: int
    """First column of nodes, of the elastic pools (`Problem.elastic`)."""

    @property
    def queries(self) -> IntArray:
        """Queries with candidates."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self.classes])

    def cost_usd_per_h(self) -> FloatArray:
        """Return (columns,) the coefficients of the total cost."""
        cost = np.zeros(len(self.upper))
        cost[: len(self.candidates)] = self.problem.transfer_cost_usd_per_h[self.candidates]
        cost[self.replicas : self.nodes] = self.problem.billed_usd_per_h[self.deployments]
        cost[self.nodes :] = self.problem.node_price_usd_per_h[self.problem.elastic]
        return cost

    def weight(self, level: int) -> FloatArray:
        """Return (columns,) the weight of the served queries of a level, in multiples of the level's unit."""
        levels = self.problem.priority_levels
        multiples = np.zeros(len(self.problem.queries))
        multiples[levels.descending[level]] = levels.integer_weights[level].multiples
        weight = np.zeros(len(self.upper))
        for group, queries in enumerate(self.classes):
            weight[self.served + group] = multiples[queries[0]]
        return weight

    def values_of(self, chosen: IntArray, usage: Usage) -> FloatArray:
        """Return (columns,) the columns' values for a choice without divided queries."""
        values, block = np.zeros(len(self.upper)), self.problem.block
        column_of = {int(candidate): column for column, candidate in enumerate(self.candidates)}
        for group, queries in enumerate(self.classes):
            for query in queries[chosen[queries] >= 0]:
                values[column_of[int(chosen[query] - block[query] + block[queries[0]])]] += 1.0
                values[self.served + group] += 1.0
        values[self.replicas : self.nodes] = usage.replicas[self.deployments]
        values[self.nodes :] = usage.nodes[self.problem.elastic]
        return values

    def shares_of(self, values: FloatArray, margin: FloatArray) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """Yield (query, [(candidate, share of its requests), ...]) of every served query.

        Args:
            values: (columns,)
            margin: (P,) see `Divisibility`; every query keeps its mean of at least 0.
        """
        block = self.problem.block
        query_of = self.problem.query_of[self.candidates]
        for group, queries in enumerate(self.classes):
            columns = np.flatnonzero((query_of == queries[0]) & (values[: len(self.candidates)] > _MIN_SHARE))
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
    for _ in range(left):
        yield [(index, float(amount / amounts.sum())) for index, amount in enumerate(amounts) if amount > _MIN_SHARE]


def build_split_milp(problem: Problem, divisibility: Divisibility) -> SplitMilp:
    """Return the program without objective: queries, accuracies, fixed operators, loads, capacities.

    All candidates count that fit in an empty pool; those of queries that are not divided must meet their SLOs.
    """
    row, column, fractional = problem.fractional_load.entries(0, len(problem.candidates))
    dedicated = round_up_replicas(fractional, np.ones(len(fractional), dtype=bool))
    divided = divisibility.queries[problem.query_of] & divisibility.may_be_part
    usable = divided | (divisibility.margin >= 0)
    usable &= ~divisibility.kept_out[problem.query_of]
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
    served, first_set = len(candidates), len(candidates) + len(classes)
    replicas = first_set + len(kept)
    most = np.zeros((len(problem.deployments), len(problem.queries)))
    np.maximum.at(most, (column, problem.query_of[row]), fractional)
    bound = np.minimum(np.ceil(most @ times) + 1, problem.max_replicas)
    fluid_usd_per_h = problem.transfer_cost_usd_per_h.copy()
    np.add.at(fluid_usd_per_h, row, problem.price_usd_per_h[column] * fractional)
    programme = SplitMilp(
        upper=[
            *times[problem.query_of[candidates]].tolist(),
            *(float(len(queries)) for queries in classes),
            *(times[problem.query_of[sets[index][0]]] for index in kept),
            *bound[deployments].tolist(),
            *problem.nodes[problem.elastic].tolist(),
        ],
        continuous=int(divided[candidates].sum()),
        problem=problem,
        classes=classes,
        candidates=candidates,
        deployments=deployments,
        served=served,
        replicas=replicas,
        nodes=replicas + len(deployments),
    )
    x_of = np.full(len(problem.candidates), -1, dtype=np.int64)
    x_of[candidates] = np.arange(len(candidates))
    _add_queries(programme, divisibility, x_of, fluid_usd_per_h)
    _add_fixed(programme, [sets[index] for index in kept], divisibility.fixed_groups[kept], first_set, x_of)
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
    _add_capacities(programme)
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
            slack = _MARGIN_SLACK * (margin < 0)
            programme.add_row(columns, _MARGIN_SCALE * (margin / np.abs(margin).max() - slack), 0.0, np.inf)


def _add_fixed(programme: SplitMilp, sets: Sequence[IntArray], groups: IntArray, first: int, x_of: IntArray) -> None:
    """Require that a query uses at most one set of each group."""
    for position, members in enumerate(sets):
        columns = np.append(x_of[members], first + position)
        programme.add_row(columns, np.append(np.ones(len(members)), -1.0), -np.inf, 0.0)
    for group in np.unique(groups):
        columns = first + np.flatnonzero(groups == group)
        programme.add_row(columns, np.ones(len(columns)), -np.inf, 1.0)


def _add_capacities(programme: SplitMilp) -> None:
    """Require the nodes that always run, and capacity for replicas and transfers; replicas are not packed on nodes."""
    problem, elastic = programme.problem, programme.problem.elastic.tolist()
    for column, pool in enumerate(elastic, start=programme.nodes):
        programme.add_row(np.array([column]), np.ones(1), float(problem.base_nodes[pool]), np.inf)
    shares = problem.rows.coefficients / problem.rows.limit[:, None]
    for pool, values in zip(problem.rows.pool.tolist(), shares[:, programme.deployments], strict=True):
        columns = np.flatnonzero(values)
        if not len(columns):
            continue
        if pool in elastic:
            node = programme.nodes + elastic.index(pool)
            with_nodes = np.append(programme.replicas + columns, node)
            programme.add_row(with_nodes, np.append(values[columns], -1.0 / problem.nodes[pool]), -np.inf, 0.0)
        else:
            programme.add_row(programme.replicas + columns, values[columns], -np.inf, 1.0)
    add_link_capacities(programme, problem, programme.candidates)


@dataclass(frozen=True)
class SplitBounds:
    """Bounds of all choices with divided requests."""

    weights: tuple[float, ...]
    """Lexicographic upper bound on the weights by level; see `PriorityLevels.lexicographic_bound`."""
    cost_usd_per_h: float
    """Lower bound on the cost at the weight of the solution."""
    optimal: bool
    """True if the solution reaches both."""


@dataclass(frozen=True)
class SplitSolution:
    """Shares of candidates, and bounds."""

    shares: Mapping[int, Sequence[tuple[int, float]]]
    """Query -> [(candidate, share of its requests), ...]"""
    bounds: SplitBounds


def solve_split(
    problem: Problem, divisibility: Divisibility, start: IntArray, *, limit_s: float, seed: int
) -> SplitSolution:
    """Return the division of maximum weight, then minimum cost, as far as there is time.

    Args:
        problem: the matching problem.
        divisibility: what may be divided.
        start: (Q,) a feasible choice without divided queries.
        limit_s: time limit.
        seed: of the solver.
    """
    deadline_s = time.monotonic() + limit_s
    programme, levels = build_split_milp(problem, divisibility), problem.priority_levels
    values = programme.values_of(start, problem.usage_of(start))
    servable = np.where(np.isin(np.arange(len(problem.queries)), programme.queries), 0, -1)
    bounds = list(levels.multiples_of(servable))
    reached = list(levels.multiples_of(start))

    def minimise(objective: FloatArray, gap: float) -> float:
        nonlocal values
        remaining_s = max(deadline_s - time.monotonic(), MATCHING.min_step_s)
        found, bound = solve_milp(programme, objective, values, time_limit_s=remaining_s, gap=gap, seed=seed)
        if found is not None and found @ objective < values @ objective:
            values = found
        return bound

    for level, most in enumerate(bounds):
        weight = programme.weight(level)
        reached[level] = round(float(weight @ values))  # a higher level may have changed it
        if reached[level] < most:
            bound = minimise(-weight, 1 - INTEGRALITY_TOLERANCE)
            reached[level] = max(reached[level], round(float(weight @ values)))
            if math.isfinite(bound):
                bounds[level] = max(min(most, math.floor(-bound + INTEGRALITY_TOLERANCE)), reached[level])
        columns = np.flatnonzero(weight)
        programme.add_row(columns, weight[columns], reached[level] - 0.5, np.inf)
    cost = programme.cost_usd_per_h()
    scale, fixed_usd_per_h = max(float(cost @ values), 1e-9), problem.fixed_usd_per_h
    bound = scale * minimise(cost / scale, _COST_GAP) + fixed_usd_per_h
    usd_per_h = float(cost @ values) + fixed_usd_per_h
    return SplitSolution(
        dict(programme.shares_of(values, divisibility.margin)),
        SplitBounds(
            weights=levels.lexicographic_bound(
                bounds=[b * w.unit + w.rounding for b, w in zip(bounds, levels.integer_weights, strict=True)],
                proved=[weight == bound for weight, bound in zip(reached, bounds, strict=True)],
                max_weights=levels.weights_of(servable),
            ),
            cost_usd_per_h=min(max(bound, 0.0), usd_per_h),
            optimal=reached == bounds and usd_per_h - bound <= COST_GAP_TOLERANCE * scale,
        ),
    )
