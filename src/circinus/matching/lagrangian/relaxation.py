"""The fluid matching of a problem of whole replicas: what its prices are made from.

A deployment's replicas are never fewer than its load, so that shares of capacities by load are a relaxation: bounds of
it hold for whole replicas, too. To choose by, loads may be stretched: a query then takes what the deployment takes for
each unit of its load as it stands, rounded up (dynamic slope scaling after Kim and Pardalos, "A solution approach to
the fixed charge network flow problem", Operations Research Letters 24, 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import Cut, PoolCut
from circinus.matching.lagrangian.dual import Prices
from circinus.matching.lagrangian.query_expansion import NOT_SERVED
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.problem import Problem


@dataclass(frozen=True, eq=False)
class RelaxedView:
    """A fluid problem, and which of the problem's candidates and queries its plans and classes stand for."""

    problem: Problem
    usable: BoolArray
    """(P,) candidates that may be chosen."""
    queries: tuple[IntArray, ...]
    """Of each class; queries that are alike in all that matters here."""
    first: IntArray
    """(C,) the first query of each class."""
    slot: IntArray
    """(resources,) of capacity rows, then links: slot of each."""
    owner: IntArray
    """(resources,) the site that alone can use each; -1: it is shared."""
    site: IntArray
    """(C,)"""
    sites: int
    local: int
    shared: int

    @classmethod
    def of(cls, problem: Problem, usable: BoolArray) -> RelaxedView:
        """Group queries that are alike, and find out which resources only one source can use."""
        sources, source_of = np.unique(np.array(problem.sources), return_inverse=True)
        groups: dict[object, list[int]] = {}
        for query in range(len(problem.queries)):
            if usable[problem.block[query] : problem.block[query + 1]].any():
                groups.setdefault(_key(problem, query, int(source_of[query]), usable), []).append(query)
        ordered = sorted(groups.values(), key=lambda members: (source_of[members[0]], members[0]))
        first = np.array([members[0] for members in ordered], dtype=np.int64)
        candidate, resource, _ = _entries(problem, np.ones(len(problem.deployments)))
        kept = usable[candidate]
        used = np.zeros((len(sources), _resources(problem)), dtype=bool)
        used[source_of[problem.query_of[candidate[kept]]], resource[kept]] = True
        own = (used.sum(axis=0) == 1) & (len(sources) > 1)
        slot, owner = np.zeros(_resources(problem), dtype=np.int64), np.full(_resources(problem), -1)
        for site in range(len(sources)):
            mine = np.flatnonzero(own & used[site])
            slot[mine], owner[mine] = np.arange(len(mine)), site
        local = int((own & used).sum(axis=1).max(initial=0))
        slot[~own] = local + np.arange(int((~own).sum()))
        return cls(
            problem=problem,
            usable=usable,
            queries=tuple(np.array(members, dtype=np.int64) for members in ordered),
            first=first,
            slot=slot,
            owner=owner,
            site=source_of[first].astype(np.int64) if local else np.zeros(len(first), dtype=np.int64),
            sites=len(sources) if local else 1,
            local=local,
            shared=int((~own).sum()),
        )

    def scaled(self, stretch: FloatArray, filled: FloatArray | None = None) -> RelaxedProblem:
        """Where every unit of a deployment's load takes `stretch` (D,) times what it would alone.

        Args:
            stretch: (D,)
            filled: (resources,) share of each capacity that may be taken; None: all of it.
        """
        problem = self.problem
        sizes = np.diff(problem.block)[self.first]
        plans = int(sizes.max(initial=1))
        class_of = np.full(len(problem.queries), -1)
        class_of[self.first] = np.arange(len(self.first))
        cost = np.full((len(self.first), plans), np.inf)
        amounts = np.zeros((len(self.first), plans, self.local + self.shared))
        own_cost = _costs(problem, stretch)
        candidates = np.flatnonzero(self.usable & (class_of[problem.query_of] >= 0))
        row = class_of[problem.query_of[candidates]]
        position = candidates - problem.block[problem.query_of[candidates]]
        cost[row, position] = own_cost[candidates]
        candidate, resource, share = _entries(problem, stretch)
        kept = self.usable[candidate] & (class_of[problem.query_of[candidate]] >= 0)
        candidate, resource, share = candidate[kept], resource[kept], share[kept]
        share = share if filled is None else share / filled[resource]
        query = problem.query_of[candidate]
        np.add.at(amounts, (class_of[query], candidate - problem.block[query], self.slot[resource]), share)
        return RelaxedProblem(
            multiplicity=np.array([len(members) for members in self.queries], dtype=np.float64),
            weight=problem.weight[self.first],
            cost_usd_per_h=cost,
            amounts=amounts,
            site=self.site,
            sites=self.sites,
            local=self.local,
        )

    def by_resource(self, prices: Prices) -> FloatArray:
        """(resources,) prices of whole capacities: of capacity rows, then of links."""
        found = np.empty(len(self.slot))
        shared = self.owner < 0
        found[shared] = prices.shared[self.slot[shared] - self.local]
        found[~shared] = prices.local[self.owner[~shared], self.slot[~shared]]
        return found

    def candidates(self, chosen: IntArray) -> IntArray:
        """(Q,) candidates for a choice of plans (N,) of the fluid problem's queries."""
        found = np.full(len(self.problem.queries), NOT_SERVED, dtype=np.int64)
        queries = np.concatenate(self.queries) if self.queries else np.zeros(0, dtype=np.int64)
        found[queries] = np.where(chosen >= 0, self.problem.block[queries] + chosen, NOT_SERVED)
        return found


def _key(problem: Problem, query: int, source: int, usable: BoolArray) -> object:
    """Equal for queries that are alike."""
    span = slice(problem.block[query], problem.block[query + 1])
    parts = [
        np.array([problem.weight[query], problem.cost_limit_usd_per_h[query]]),
        problem.transfer_cost_usd_per_h[span],
        problem.change_usd_per_h[span],
        usable[span],
    ]
    for incidence in (problem.fractional_load, problem.traffic):
        entries = slice(incidence.start[span.start], incidence.start[span.stop])
        parts += [
            np.diff(incidence.start[span.start : span.stop + 1]),
            incidence.column[entries],
            incidence.value[entries],
        ]
    return (source, *(part.tobytes() for part in parts))


def _resources(problem: Problem) -> int:
    return len(problem.rows.limit) + len(problem.links)


def _entries(problem: Problem, stretch: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """(candidate, resource, share of its capacity) of all that candidates take; a pair may occur more than once."""
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
        load[entry] * stretch[column[entry]] * problem.rows.coefficients[row, column[entry]] / problem.rows.limit[row]
    )
    crossing, link, volume = problem.traffic.entries(0, count)
    return (
        np.concatenate([candidate[entry], crossing]),
        np.concatenate([row, len(problem.rows.limit) + link]),
        np.concatenate([share, volume / problem.link_capacity_bytes_per_s[link]]),
    )


def _costs(problem: Problem, stretch: FloatArray) -> FloatArray:
    """(P,) US dollars per hour of candidates' shares and transfers, and of what changes count.

    That a query which runs gets none counts, too; without it, bounds are only looser.
    """
    candidate, column, load = problem.fractional_load.entries(0, len(problem.candidates))
    found = problem.transfer_cost_usd_per_h + problem.change_usd_per_h
    np.add.at(found, candidate, load * stretch[column] * problem.price_usd_per_h[column])
    return found


def capacity_scaling(problem: Problem, cuts: Sequence[Cut]) -> FloatArray:
    """(resources,) what cuts leave of each capacity."""
    found = np.ones(_resources(problem))
    for cut in cuts:
        if isinstance(cut, PoolCut):
            rows = cut.rows(problem)
            found[rows] = np.minimum(found[rows], cut.share)
    return found


def replica_scaling(
    problem: Problem, load: FloatArray, replicas: Sequence[int] | IntArray, before: FloatArray
) -> FloatArray:
    """(D,) replicas for each unit of load where there is any, else as before."""
    running = np.asarray(replicas) > 0
    return np.where(running, np.asarray(replicas) / np.where(running, np.maximum(load, 1e-12), 1.0), before)
