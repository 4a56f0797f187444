"""The matching as a mixed-integer programme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import ChurnCut, CostShareCut, Cut, PackingCut, PoolCut, SizingCut
from circinus.matching.problem import REPLICA_TOLERANCE, Problem, Usage, round_up_replicas
from circinus.matching.solvers.highs import LpModel
from circinus.matching.solvers.mir_cuts import DeploymentColumns

_SLACK = REPLICA_TOLERANCE / 2
"""Loads may exceed whole replicas by this; half the tolerance leaves the other half to the solver's own."""


@dataclass(kw_only=True)
class MatchingMilp(LpModel):
    """Columns: one binary a usable candidate, one integer a shared deployment, one binary a watched group of a cut.

    A deployment that only one query could use needs no column: its replicas follow from the candidate.
    """

    problem: Problem
    candidates: IntArray
    """(x columns,) candidate of each."""
    shared: IntArray
    """(n columns,) deployment of each."""
    expression: FloatArray
    """(D, x and n columns) replicas of each deployment as a linear form in the columns."""
    loads: list[DeploymentColumns] = field(default_factory=list)
    """Of each shared deployment."""
    watched: list[tuple[IntArray, int]] = field(default_factory=list)
    """Group of each watched column: 1 where the group's replicas reach the count."""

    def serve_all(self) -> None:
        """Ask for one candidate of every query that has any: tighter than a bound on the weight that says the same."""
        servable = len(np.unique(self.problem.query_of[self.candidates]))
        self.row_lower[:servable] = [1.0] * servable

    def forbid(self, columns: BoolArray) -> None:
        """Take the candidates among `columns` (columns,) out of the programme."""
        for column in np.flatnonzero(columns[: len(self.candidates)]):
            self.upper[column] = 0.0

    def columns_of(self, candidates: IntArray) -> IntArray:
        """Columns of those of the given candidates that have one."""
        return np.flatnonzero(np.isin(self.candidates, candidates)).astype(np.int64)

    def counted_usd_per_h(self) -> FloatArray:
        """(columns,) what each column adds to the total cost and to what changes count.

        The latter begins with `Problem.most_change_usd_per_h`, off which comes a part for each plan that stays.
        """
        cost = np.zeros(len(self.upper))
        cost[: self.expression.shape[1]] = self.problem.price_usd_per_h @ self.expression
        cost[: len(self.candidates)] += self.problem.transfer_cost_usd_per_h[self.candidates]
        if self.problem.incumbent is not None:
            runs = self.problem.runs[self.candidates]
            cost[: len(self.candidates)][runs] -= self.problem.incumbent.change_usd_per_h
        return cost

    def values_of(self, chosen: IntArray, usage: Usage) -> FloatArray:
        """(columns,) the columns' values for a choice whose candidates all have one."""
        values = np.zeros(len(self.upper))
        values[self.columns_of(chosen[chosen >= 0])] = 1.0
        values[len(self.candidates) : self.expression.shape[1]] = usage.replicas[self.shared]
        for position, (members, count) in enumerate(self.watched):
            values[self.expression.shape[1] + position] = float(usage.replicas[members].sum() >= count)
        return values

    def rounded_choice(self, values: FloatArray) -> IntArray:
        """(Q,) for each query that fractional values mostly serve, its most taken candidate."""
        chosen = np.full(len(self.problem.queries), -1, dtype=np.int64)
        x = np.asarray(values[: len(self.candidates)])
        query_of = self.problem.query_of[self.candidates]
        for query in np.unique(query_of):
            columns = np.flatnonzero(query_of == query)
            if x[columns].sum() > 0.5:
                chosen[query] = self.candidates[columns[np.argmax(x[columns])]]
        return chosen

    def choice_of(self, values: FloatArray) -> IntArray:
        """(Q,) the choice that the columns' values stand for."""
        chosen = np.full(len(self.problem.queries), -1, dtype=np.int64)
        taken = self.candidates[np.asarray(values[: len(self.candidates)]) > 0.5]
        chosen[self.problem.query_of[taken]] = taken
        return chosen


def build_milp(
    problem: Problem, cuts: Sequence[Cut], *, conservative: bool = False, allowed: BoolArray | None = None
) -> MatchingMilp:
    """The programme of `problem` under `cuts`, without objective: queries (first), loads, capacities, costs, cuts.

    Args:
        problem: what to choose from.
        cuts: what was learnt from earlier choices.
        conservative: forbid everything that might break a cost objective, instead of what surely does.
        allowed: (P,) candidates that may be chosen; None: all.
    """
    usable = viable_candidates(problem, cuts)
    if allowed is not None:
        usable &= allowed
    candidates = np.flatnonzero(usable).astype(np.int64)
    row, column, fluid = problem.fractional_load.entries(0, len(problem.candidates))
    kept = usable[row]
    row, column, fluid = row[kept], column[kept], fluid[kept]
    alone = round_up_replicas(fluid, np.ones(len(fluid), dtype=bool))

    most = _most_loads(problem, usable)
    users = most > 0
    shared = np.flatnonzero(users.sum(axis=1) > 1).astype(np.int64)
    bound = np.minimum(round_up_replicas(most.sum(axis=1), np.asarray(users.any(axis=1))), problem.max_replicas)

    x_of = np.full(len(problem.candidates), -1, dtype=np.int64)
    x_of[candidates] = np.arange(len(candidates))
    expression = np.zeros((len(problem.deployments), len(candidates) + len(shared)))
    own = ~np.isin(column, shared)
    expression[column[own], x_of[row[own]]] = alone[own]
    expression[shared, len(candidates) + np.arange(len(shared))] = 1.0

    programme = MatchingMilp(
        problem=problem,
        candidates=candidates,
        shared=shared,
        upper=[1.0] * len(candidates) + [float(bound[deployment]) for deployment in shared],
        expression=expression,
    )
    for query in range(len(problem.queries)):
        columns = np.flatnonzero(problem.query_of[candidates] == query)
        if len(columns):
            programme.add_row(columns, np.ones(len(columns)), 0.0, 1.0)
    for position, deployment in enumerate(shared):
        here = column == deployment
        x = x_of[row[here]]
        load = DeploymentColumns(len(candidates) + position, x, fluid[here], problem.query_of[candidates[x]])
        programme.loads.append(load)
        _add_load(programme, load, alone[here])
    _add_capacities(programme)
    _add_cost_limits(programme, bound, conservative=conservative)
    for cut in cuts:
        _add_cut(programme, cut, bound)
    return programme


def viable_candidates(problem: Problem, cuts: Sequence[Cut]) -> BoolArray:
    """(P,) candidates that could run and pay within their objective in the best of company."""
    row, column, fluid = problem.fractional_load.entries(0, len(problem.candidates))
    alone = round_up_replicas(fluid, np.ones(len(fluid), dtype=bool))
    usable = np.ones(len(problem.candidates), dtype=bool)
    usable[row[alone > problem.max_replicas[column]]] = False
    for cut in cuts:
        if isinstance(cut, SizingCut) and not cut.valid:
            usable[cut.candidate] = False
    limit = problem.cost_limit_usd_per_h[problem.query_of]
    while True:  # a candidate that is out is no company for others any more
        most = _most_loads(problem, usable)
        only = (most > 0).sum(axis=1) <= 1
        # A deployment's replicas for each unit of its load are never fewer than 1 / (the most load it could get).
        load = np.maximum(most.sum(axis=1)[column], fluid)
        ratio = np.where(only[column], alone / fluid, np.maximum(1.0, 1.0 / load))
        least = problem.transfer_cost_usd_per_h.copy()
        np.add.at(least, row, problem.price_usd_per_h[column] * fluid * ratio)
        too_dear = usable & (least > limit * (1 + 1e-9) + 1e-9)
        if not too_dear.any():
            return usable
        usable &= ~too_dear


def _most_loads(problem: Problem, usable: BoolArray) -> FloatArray:
    """(D, Q) the most that any usable candidate of each query needs of each deployment."""
    row, column, fluid = problem.fractional_load.entries(0, len(problem.candidates))
    kept = usable[row]
    most = np.zeros((len(problem.deployments), len(problem.queries)))
    np.maximum.at(most, (column[kept], problem.query_of[row[kept]]), fluid[kept])
    return most


def _add_load(programme: MatchingMilp, load: DeploymentColumns, alone: IntArray) -> None:
    """A shared deployment has replicas for all its load, and for each query at least what the query needs alone."""
    programme.add_row(np.append(load.candidates, load.replicas), np.append(-load.fluid, 1.0), -_SLACK, np.inf)
    for query in np.unique(load.query_of):
        of_query = load.query_of == query
        columns = np.append(load.candidates[of_query], load.replicas)
        programme.add_row(columns, np.append(-alone[of_query].astype(float), 1.0), 0.0, np.inf)


def _add_capacities(programme: MatchingMilp) -> None:
    problem = programme.problem
    rows = (problem.rows.coefficients / problem.rows.limit[:, None]) @ programme.expression
    for values in rows:
        columns = np.flatnonzero(values)
        programme.add_row(columns, values[columns], -np.inf, 1.0)
    shares = np.zeros((len(problem.links), len(problem.candidates)))
    row, link, volume = problem.traffic.entries(0, len(problem.candidates))
    shares[link, row] = volume / problem.link_capacity_bytes_per_s[link]
    for values in shares[:, programme.candidates]:
        columns = np.flatnonzero(values)
        if values.sum() > 1.0:
            programme.add_row(columns, values[columns], -np.inf, 1.0)


def _add_cost_limits(programme: MatchingMilp, bound: IntArray, *, conservative: bool) -> None:
    """Cost objectives, deployment by deployment.

    A query pays price * fluid * replicas / load for a deployment. For one deployment the limit that remains when the
    others are fully shared is linear in its replicas and its load. Several deployments that are all shared in part
    may still exceed the limit together: that is found after the sizing, and cut (`ShareCut`). Being cautious, what
    remains is divided over the deployments by the prices of their replicas.
    """
    problem = programme.problem
    load_of = {int(d): load for d, load in zip(programme.shared, programme.loads, strict=True)}
    for x, candidate in enumerate(programme.candidates):
        limit = problem.cost_limit_usd_per_h[problem.query_of[candidate]]
        if not np.isfinite(limit):
            continue
        columns, fluid = problem.fractional_load.row(int(candidate))
        price = problem.price_usd_per_h[columns]
        shared = np.isin(columns, programme.shared)
        alone = price * round_up_replicas(fluid, np.ones(len(fluid), dtype=bool))
        least = np.where(shared, price * fluid, alone)
        most = np.where(shared, price * (fluid + 1), alone)
        rest = limit - problem.transfer_cost_usd_per_h[candidate] - least.sum()
        for position in np.flatnonzero(shared & (price > 0) & (most - least > rest)):
            part = price[position] / price[shared].sum() if conservative else 1.0
            # Replicas for each unit of load; where not even none may be paid for, the candidate is out.
            allowed = max((least[position] + part * rest) / least[position], 0.0)
            most_replicas = float(bound[columns[position]])
            _add_ratio(programme, x, load_of[int(columns[position])], allowed, most_replicas)


def _add_ratio(programme: MatchingMilp, x: int, load: DeploymentColumns, allowed: float, most_replicas: float) -> None:
    """replicas <= allowed * load where candidate column x is chosen."""
    scale = 1.0 / max(most_replicas, 1.0)
    row = np.zeros(len(programme.upper))
    row[load.candidates] = -allowed * load.fluid * scale
    row[load.replicas] = scale
    row[x] += most_replicas * scale
    columns = np.flatnonzero(row)
    programme.add_row(columns, row[columns], -np.inf, most_replicas * scale + 1e-9)


def _add_cut(programme: MatchingMilp, cut: Cut, bound: IntArray) -> None:
    if isinstance(cut, PackingCut):
        _add_packing_cut(programme, cut, bound)
    elif isinstance(cut, PoolCut):
        rows = cut.rows(programme.problem)
        limit = programme.problem.rows.limit[rows]
        for values in (programme.problem.rows.coefficients[rows] / limit[:, None]) @ programme.expression:
            columns = np.flatnonzero(values)
            programme.add_row(columns, values[columns], -np.inf, cut.share)
    elif isinstance(cut, ChurnCut):
        running = cut.kept[cut.kept >= 0]
        columns = programme.columns_of(running)
        programme.add_row(columns, np.ones(len(columns)), float(len(running) - cut.most), np.inf)
    elif isinstance(cut, CostShareCut):
        _add_share_cut(programme, cut, bound)
    elif isinstance(cut, SizingCut) and cut.valid:
        x = programme.columns_of(np.array([cut.candidate]))
        if not len(x):
            return
        present, absent = programme.columns_of(cut.present), programme.columns_of(cut.absent)
        if len(present) < len(cut.present):
            return  # a neighbour has been given up, so the neighbourhood cannot come back
        columns = np.concatenate([x, present, absent])
        values = np.concatenate([[1.0], np.ones(len(present)), -np.ones(len(absent))])
        programme.add_row(columns, values, -np.inf, float(len(present)))


def _add_packing_cut(programme: MatchingMilp, cut: PackingCut, bound: IntArray) -> None:
    counts = [programme.expression[members].sum(axis=0) for members, _ in cut.groups]
    if len(cut.groups) == 1:
        columns = np.flatnonzero(counts[0])
        programme.add_row(columns, counts[0][columns], -np.inf, float(cut.groups[0][1] - 1))
        return
    watched = np.array([_watch(programme, members, count, bound) for members, count in cut.groups])
    programme.add_row(watched, np.ones(len(watched)), -np.inf, float(len(watched) - 1))


def _watch(programme: MatchingMilp, members: IntArray, count: int, bound: IntArray) -> int:
    """A column that is 1 where the replicas of some deployments reach a count."""
    values = programme.expression[members].sum(axis=0)
    column = len(programme.upper)
    programme.upper.append(1.0)
    programme.watched.append((members, count))
    most = max(float(bound[members].sum()), float(count))
    columns = np.append(np.flatnonzero(values), column)
    programme.add_row(columns, np.append(values[columns[:-1]], -(most - count + 1)), -np.inf, float(count - 1))
    return column


def _add_share_cut(programme: MatchingMilp, cut: CostShareCut, bound: IntArray) -> None:
    """start - slope @ loads - fewer @ (1 - reached) <= limit where the candidate is chosen, else no restriction."""
    problem = programme.problem
    x = programme.columns_of(np.array([cut.candidate]))
    if not len(x):
        return
    deployments, fluid = problem.fractional_load.row(cut.candidate)
    start, slope, fewer, limit = cut.tangents(problem)
    load_of = {int(d): load for d, load in zip(programme.shared, programme.loads, strict=True)}
    reached = {
        position: _watch(programme, np.array([deployment]), int(cut.replicas[position]), bound)
        for position, deployment in enumerate(deployments)
        if int(deployment) in load_of and cut.replicas[position] > 1
    }
    row = np.zeros(len(programme.upper))
    upper = limit - start.sum()
    for position, deployment in enumerate(deployments):
        load = load_of.get(int(deployment))
        if load is None:  # only this query could use it: the load is the candidate's own
            upper += slope[position] * fluid[position]
            continue
        row[load.candidates] -= slope[position] * load.fluid
        if position in reached:
            row[reached[position]] += fewer[position]
            upper += fewer[position]
    free = max(-upper, 0.0)
    row[x[0]] += free
    scale = max(limit, 1e-9)
    columns = np.flatnonzero(row)
    programme.add_row(columns, row[columns] / scale, -np.inf, (upper + free) / scale + _SLACK)
