"""The relaxation of a problem with whole replicas to divisible ones.

A deployment has at least as many replicas as its load, so that shares of capacities by load are a relaxation, whose
bounds hold for whole replicas, too. For choosing, loads may be stretched: a query then uses the deployment's whole
replicas per unit of its current load (dynamic slope scaling after Kim and Pardalos, "A solution approach to the fixed
charge network flow problem", Operations Research Letters 24, 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import Cut, PoolCut
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem
from circinus.matching.lagrangian.solve import cost_tiebreak_weight
from circinus.matching.problem import Problem


@dataclass(frozen=True, eq=False)
class RelaxedView:
    """A relaxed view of a problem, with the candidates and queries behind its plans and classes."""

    problem: Problem
    weight: FloatArray
    """(Q,) weight of each query in the objective."""
    usable: BoolArray
    """(P,) candidates that may be chosen."""
    queries: tuple[IntArray, ...]
    """Queries of each class; they are identical in the relaxation."""
    first: IntArray
    """(C,) the first query of each class."""
    slot: IntArray
    """(resources,) slot of each capacity row, then of each link."""
    owner: IntArray
    """(resources,) site that exclusively uses each; -1: shared."""
    site: IntArray
    """(C,)"""
    sites: int
    local: int
    shared: int

    @classmethod
    def of(cls, problem: Problem, weight: FloatArray, usable: BoolArray) -> RelaxedView:
        """Group identical queries, and find the resources that only one source can use."""
        sources, source_of = np.unique(np.array(problem.sources), return_inverse=True)
        groups: dict[object, list[int]] = {}
        for query in range(len(problem.queries)):
            if usable[problem.block[query] : problem.block[query + 1]].any():
                key = int(source_of[query]), float(weight[query]), problem.exchange_key(query, usable)
                groups.setdefault(key, []).append(query)
        ordered = sorted(groups.values(), key=lambda members: (source_of[members[0]], members[0]))
        first = np.array([members[0] for members in ordered], dtype=np.int64)
        candidate, resource, _ = _entries(problem, np.ones(len(problem.deployments)))
        is_usable = usable[candidate]
        used = np.zeros((len(sources), _resources(problem)), dtype=bool)
        used[source_of[problem.query_of[candidate[is_usable]]], resource[is_usable]] = True
        is_local = (used.sum(axis=0) == 1) & (len(sources) > 1)
        slot, owner = np.zeros(_resources(problem), dtype=np.int64), np.full(_resources(problem), -1)
        for site in range(len(sources)):
            site_resources = np.flatnonzero(is_local & used[site])
            slot[site_resources], owner[site_resources] = np.arange(len(site_resources)), site
        local = int((is_local & used).sum(axis=1).max(initial=0))
        slot[~is_local] = local + np.arange(int((~is_local).sum()))
        return cls(
            problem=problem,
            weight=weight,
            usable=usable,
            queries=tuple(np.array(members, dtype=np.int64) for members in ordered),
            first=first,
            slot=slot,
            owner=owner,
            site=source_of[first].astype(np.int64) if local else np.zeros(len(first), dtype=np.int64),
            sites=len(sources) if local else 1,
            local=local,
            shared=int((~is_local).sum()),
        )

    def scaled(
        self,
        load_factor: FloatArray,
        available_fraction: FloatArray | None = None,
        price_usd_per_h: FloatArray | None = None,
    ) -> RelaxedProblem:
        """Return the relaxed problem in which a unit of a deployment's load uses `load_factor` times its own demand.

        Args:
            load_factor: (D,)
            available_fraction: (resources,) usable share of each capacity; None: all of it.
            price_usd_per_h: (D,) of a replica; None: as if nodes were divisible.
        """
        problem = self.problem
        sizes = np.diff(problem.block)[self.first]
        plans = int(sizes.max(initial=1))
        class_of = np.full(len(problem.queries), -1)
        class_of[self.first] = np.arange(len(self.first))
        cost = np.full((len(self.first), plans), np.inf)
        amounts = np.zeros((len(self.first), plans, self.local + self.shared))
        price_usd_per_h = problem.divided_usd_per_h if price_usd_per_h is None else price_usd_per_h
        candidate_cost = _costs(problem, load_factor, price_usd_per_h)
        candidates = np.flatnonzero(self.usable & (class_of[problem.query_of] >= 0))
        row = class_of[problem.query_of[candidates]]
        position = candidates - problem.block[problem.query_of[candidates]]
        cost[row, position] = candidate_cost[candidates]
        candidate, resource, share = _entries(problem, load_factor)
        is_usable = self.usable[candidate] & (class_of[problem.query_of[candidate]] >= 0)
        candidate, resource, share = candidate[is_usable], resource[is_usable], share[is_usable]
        share = share if available_fraction is None else share / available_fraction[resource]
        query = problem.query_of[candidate]
        np.add.at(amounts, (class_of[query], candidate - problem.block[query], self.slot[resource]), share)
        return RelaxedProblem(
            multiplicity=np.array([len(members) for members in self.queries], dtype=np.float64),
            weight=self.weight[self.first],
            cost_usd_per_h=cost,
            amounts=amounts,
            site=self.site,
            sites=self.sites,
            local=self.local,
        )

    def by_resource(self, prices: Prices) -> FloatArray:
        """Return (resources,) prices of whole capacities: of capacity rows, then of links."""
        resource_prices = np.empty(len(self.slot))
        shared = self.owner < 0
        resource_prices[shared] = prices.shared[self.slot[shared] - self.local]
        resource_prices[~shared] = prices.local[self.owner[~shared], self.slot[~shared]]
        return resource_prices

    def candidates(self, chosen: IntArray) -> IntArray:
        """Return (Q,) candidates for a choice of plans (N,) of the relaxed problem's queries."""
        candidates = np.full(len(self.problem.queries), NOT_SERVED, dtype=np.int64)
        queries = np.concatenate(self.queries) if self.queries else np.zeros(0, dtype=np.int64)
        candidates[queries] = np.where(chosen >= 0, self.problem.block[queries] + chosen, NOT_SERVED)
        return candidates


def _resources(problem: Problem) -> int:
    return len(problem.rows.limit) + len(problem.links)


def _entries(problem: Problem, load_factor: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Return (candidate, resource, share of its capacity) of all usage; pairs may repeat."""
    count = len(problem.candidates)
    candidate, column, load = problem.fractional_load.entries(0, count)
    rows, deployment = np.nonzero(problem.rows.coefficients)
    order = np.argsort(deployment, kind="stable")
    rows, deployment = rows[order], deployment[order]
    start = np.searchsorted(deployment, np.arange(len(problem.deployments) + 1))
    times = np.diff(start)[column]
    entry = np.repeat(np.arange(len(column)), times)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(times) - times, times)
    row = rows[start[column[entry]] + within]
    share = (
        load[entry]
        * load_factor[column[entry]]
        * problem.rows.coefficients[row, column[entry]]
        / problem.rows.limit[row]
    )
    crossing, link, volume = problem.traffic.entries(0, count)
    return (
        np.concatenate([candidate[entry], crossing]),
        np.concatenate([row, len(problem.rows.limit) + link]),
        np.concatenate([share, volume / problem.link_capacity_bytes_per_s[link]]),
    )


def _costs(problem: Problem, load_factor: FloatArray, price_usd_per_h: FloatArray) -> FloatArray:
    """Return (P,) US dollars per hour of candidates' shares and transfers, including churn.

    The churn of a running query that is stopped is omitted, which only loosens bounds.
    """
    candidate, column, load = problem.fractional_load.entries(0, len(problem.candidates))
    cost = problem.transfer_cost_usd_per_h + problem.change_usd_per_h
    np.add.at(cost, candidate, load * load_factor[column] * price_usd_per_h[column])
    return cost


def capacity_scaling(problem: Problem, cuts: Sequence[Cut]) -> FloatArray:
    """Return (resources,) the share of each capacity that the cuts leave."""
    available_fraction = np.ones(_resources(problem))
    for cut in cuts:
        if isinstance(cut, PoolCut):
            rows = cut.rows(problem)
            available_fraction[rows] = np.minimum(available_fraction[rows], cut.share)
    return available_fraction


def replica_scaling(
    problem: Problem, load: FloatArray, replicas: Sequence[int] | IntArray, previous: FloatArray
) -> FloatArray:
    """Return (D,) replicas per unit of load for running deployments, else the previous value."""
    running = np.asarray(replicas) > 0
    return np.where(running, np.asarray(replicas) / np.where(running, np.maximum(load, 1e-12), 1.0), previous)


def level_prices(
    problem: Problem, usable: BoolArray, level: int, above: float, seed: int
) -> tuple[RelaxedProblem, DualObjective, Prices, FloatArray] | None:
    """Price capacities for one priority level, counted from the highest, next to the higher ones.

    Args:
        problem: the matching problem.
        usable: (P,) candidates that may be chosen.
        level: index of the level; lower ones are left out.
        above: factor on the weight of higher levels.
        seed: of samples.

    Returns:
        The relaxed problem, its objective, the prices, and (resources,) prices of whole capacities; None if no query
        has a usable candidate.
    """
    levels = problem.priority_levels
    in_levels = usable & (levels.rank[problem.query_of] >= levels.count - 1 - level)
    view = RelaxedView.of(problem, levels.level_weight(level, above), in_levels)
    if not view.queries:
        return None
    relaxed = view.scaled(np.ones(len(problem.deployments)))
    objective = DualObjective(1.0, cost_tiebreak_weight(relaxed))
    prices = solve_lp_prices(relaxed, objective, seed=seed).prices
    return relaxed, objective, prices, view.by_resource(prices)


def cost_prices(relaxed: RelaxedProblem, weight: float, seed: int) -> tuple[Prices, float]:
    """Return prices of cost at which a weight is served, and their bound on its cost."""
    objective = DualObjective(0.0, 1.0, weight)
    prices = solve_lp_prices(relaxed, objective, seed=seed).prices
    return prices, -dual_bound(relaxed, objective, prices)
