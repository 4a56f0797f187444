"""The dual of the fluid matching: what all queries together would pay at given prices, smoothed or not.

Maximise the value of the plans chosen, at most one for each query, with what they take at most 1 of every resource.
For any prices L >= 0, sum(L) + sum over queries of max(0, value of a plan - L @ what it takes) is an upper bound on
that. It is convex in the prices and falls to the optimum of the linear relaxation. Where queries change their plans
it has kinks; taking T log(1 + sum exp(. / T)) for the maximum smooths them, and is off by at most T log(1 + plans) for
each query (Nesterov, "Smooth minimization of non-smooth functions", Mathematical Programming 103, 2005).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.relaxed_problem import TOLERANCE, Amounts, RelaxedProblem

T = TypeVar("T")
_NEGLIGIBLE = 1e-9
"""Share of a query that is not worth adding up."""
_CHUNK = 1024
"""Classes that are evaluated at once: their arrays stay in the processor's cache."""


_ALONE = 2
"""Chunks for which threads do not pay."""


@dataclass(frozen=True)
class DualObjective:
    """What a query is worth when served: `weight` times its weight, less `cost` times what its plan costs.

    With a least weight that must be served in all, its price is sought, too.
    """

    weight: float
    cost: float
    least_weight: float | None = None


@dataclass(frozen=True, eq=False)
class Prices:
    """Of all resources, in the objective's units for the whole capacity."""

    local: FloatArray
    """(sites, local) >= 0"""
    shared: FloatArray
    """(shared,) >= 0"""
    weight: float = 0.0
    """>= 0, what a unit of weight is worth beyond the objective where a least weight binds."""

    @classmethod
    def zero(cls, problem: RelaxedProblem) -> Prices:
        """Of resources that nobody lacks."""
        return cls(np.zeros((problem.sites, problem.local)), np.zeros(problem.shared))


@dataclass(frozen=True, eq=False)
class SmoothedDual:
    """The smoothed dual at some prices, with derivatives. G' stands for the shared resources and the weight's price."""

    value: float
    site_value: FloatArray
    """(sites,) what the value would be of each site alone, without what is shared."""
    local_slope: FloatArray
    """(sites, local) capacity less usage."""
    common_slope: FloatArray
    """(G',)"""
    local_curvature: FloatArray
    """(sites, local, local)"""
    mixed_curvature: FloatArray
    """(sites, local, G')"""
    common_curvature: FloatArray
    """(G', G')"""


def value_scale(problem: RelaxedProblem, objective: DualObjective) -> float:
    """The scale of values: of a query's weight and of its cheapest plan, on average."""
    worth = objective.weight * problem.weight + objective.cost * problem.least_cost_usd_per_h
    return max(float(problem.multiplicity @ worth) / problem.queries, 1e-12)


def dual_bound(problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> float:
    """No choice, not even one that divides queries over plans, is worth more; valid at any prices.

    In double precision, and also of choices that exceed capacities by the tolerance that counts as rounding.
    """

    def gain(chunk: _Chunk) -> float:
        best = np.maximum(_reduced(problem, objective, prices, chunk, np.float64).max(axis=1), 0.0)
        return float(best @ problem.multiplicity[chunk.classes])

    total = sum(_each(_chunks(problem), gain))
    floor = 0.0 if objective.least_weight is None else prices.weight * objective.least_weight
    return float(total + (prices.local.sum() + prices.shared.sum()) * (1.0 + TOLERANCE) - floor)


def reduced_profits(
    problem: RelaxedProblem, objective: DualObjective, prices: Prices
) -> Iterator[tuple[slice, Amounts]]:
    """Classes and their (classes, P) values less what their plans pay; -inf where there is no plan."""
    for chunk in _chunks(problem):
        yield chunk.classes, _reduced(problem, objective, prices, chunk)


def softmax_shares(problem: RelaxedProblem, objective: DualObjective, prices: Prices, temperature: float) -> FloatArray:
    """(C, P) share of each class that takes each plan where the dual is smoothed at a temperature."""
    found = np.zeros(problem.cost_usd_per_h.shape)
    for rows, values in reduced_profits(problem, objective, prices):
        most = np.maximum(values.max(axis=1, keepdims=True), 0.0)
        share = np.exp((values - most) / values.dtype.type(temperature))
        found[rows] = share / (share.sum(axis=1, keepdims=True) + np.exp(-most / values.dtype.type(temperature)))
    return found


def smoothed_dual(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    temperature: float,
    *,
    sites: BoolArray | None = None,
) -> SmoothedDual:
    """The dual smoothed at a temperature, in the objective's units.

    Args:
        problem: of any size.
        objective: what is maximised.
        prices: where.
        temperature: above 0.
        sites: (sites,) those whose own values and derivatives are wanted; nothing else is then of use.
    """
    local, slots, count = problem.local, problem.amounts.shape[2], problem.sites
    value, usage, curvature = np.zeros(count), np.zeros((count, slots + 1)), np.zeros((count, slots + 1, slots + 1))
    chunks = _chunks(problem)
    if sites is not None:
        chunks = tuple(chunk for chunk in chunks if sites[chunk.site : chunk.site + chunk.sites].any())

    def part(chunk: _Chunk) -> tuple[FloatArray, FloatArray, FloatArray]:
        return _part(problem, objective, prices, temperature, chunk)

    for chunk, (its_value, its_usage, its_curvature) in zip(chunks, _each(chunks, part), strict=True):
        here = slice(chunk.site, chunk.site + chunk.sites)
        value[here] += its_value
        usage[here] += its_usage
        curvature[here] += its_curvature
    curvature /= temperature
    value += prices.local.sum(axis=1)
    weighing = objective.least_weight is not None
    common = slice(local, slots + weighing)
    capacity = np.ones(problem.shared + weighing)
    total = float(value.sum() + prices.shared.sum())
    if objective.least_weight is not None:
        capacity[-1] = -objective.least_weight
        total -= prices.weight * objective.least_weight
    return SmoothedDual(
        value=total,
        site_value=value,
        local_slope=1.0 - usage[:, :local],
        common_slope=capacity - usage[:, common].sum(axis=0),
        local_curvature=curvature[:, :local, :local],
        mixed_curvature=curvature[:, :local, common],
        common_curvature=curvature[:, common, common].sum(axis=0),
    )


def _part(
    problem: RelaxedProblem, objective: DualObjective, prices: Prices, temperature: float, chunk: _Chunk
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(value, usage, curvature times temperature) of each site of a chunk; weight, as a slot that is given, is last."""
    amounts, count = problem.amounts[chunk.classes], problem.multiplicity[chunk.classes]
    share = _reduced(problem, objective, prices, chunk)
    share /= share.dtype.type(temperature)
    most = np.maximum(share.max(axis=1, keepdims=True), 0.0)
    share -= most
    np.exp(share, out=share)
    total = share.sum(axis=1, keepdims=True) + np.exp(-most)
    gain = temperature * (np.log(total) + most)[:, 0].astype(np.float64) * count
    share /= total
    # At low temperatures hardly more than one plan of each class is taken.
    taken = np.flatnonzero(share > _NEGLIGIBLE)
    row = taken // share.shape[1]
    plan = np.empty((len(taken), amounts.shape[2] + 1))
    plan[:, :-1] = amounts.reshape(-1, amounts.shape[2])[taken]
    plan[:, -1] = -problem.weight[chunk.classes][row]
    weighted = share.reshape(-1)[taken].astype(np.float64)[:, None] * plan
    mean = np.zeros((len(share), plan.shape[1]))
    first = np.flatnonzero(np.diff(row, prepend=-1))
    if len(first):
        mean[row[first]] = np.add.reduceat(weighted, first, axis=0)
    plan *= count[row][:, None]
    usage = mean * count[:, None]
    if chunk.sites == 1:
        return gain.sum(keepdims=True), usage.sum(axis=0)[None], (weighted.T @ plan - mean.T @ usage)[None]
    site = problem.site[chunk.classes] - chunk.site
    second = np.empty((chunk.sites, plan.shape[1], plan.shape[1]))
    classes, rows = (np.searchsorted(where, np.arange(chunk.sites + 1)) for where in (site, site[row]))
    for one in range(chunk.sites):
        its, of = slice(classes[one], classes[one + 1]), slice(rows[one], rows[one + 1])
        second[one] = weighted[of].T @ plan[of] - mean[its].T @ usage[its]
    return _by_site(gain, site, chunk.sites), _by_site(usage, site, chunk.sites), second


def _by_site(values: FloatArray, site: IntArray, sites: int) -> FloatArray:
    """(sites, ...) sums of rows whose sites ascend."""
    found = np.zeros((sites, *values.shape[1:]))
    if len(site):
        first = np.flatnonzero(np.diff(site, prepend=-1))
        found[site[first]] = np.add.reduceat(values, first, axis=0)
    return found


@dataclass(frozen=True)
class _Chunk:
    """Some classes: a part of one site, or several whole ones."""

    site: int
    """The first."""
    sites: int
    classes: slice


@lru_cache(maxsize=64)
def _spans(starts: tuple[int, ...]) -> tuple[_Chunk, ...]:
    found: list[_Chunk] = []
    for site, (start, end) in enumerate(pairwise(starts)):
        last = found[-1] if found else None
        if last is not None and last.classes.stop == start and end - last.classes.start <= _CHUNK:
            found[-1] = _Chunk(last.site, site + 1 - last.site, slice(last.classes.start, end))
            continue
        found += [
            _Chunk(site, 1, slice(begin, min(begin + _CHUNK, end)))
            for begin in range(start, max(end, start + 1), _CHUNK)
        ]
    return tuple(found)


def _chunks(problem: RelaxedProblem) -> tuple[_Chunk, ...]:
    return _spans(problem.starts)


def _each(chunks: Sequence[_Chunk], part: Callable[[_Chunk], T]) -> list[T]:
    """Of every chunk, in their order, so that sums do not depend on threads."""
    if len(chunks) <= _ALONE:
        return [part(chunk) for chunk in chunks]
    return list(_threads().map(part, chunks))


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="prices")


def _reduced(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    chunk: _Chunk,
    precision: type[np.floating[Any]] | None = None,
) -> Amounts:
    """(classes, P) in a precision, else in that of the amounts."""
    amounts = problem.amounts[chunk.classes]
    if precision is not None:
        amounts = amounts.astype(precision, copy=False)
    kind = amounts.dtype.type
    worth = ((objective.weight + prices.weight) * problem.weight[chunk.classes]).astype(kind)
    # The least factor keeps the infinite cost of a plan that is none infinite.
    cost = problem.cost_usd_per_h[chunk.classes].astype(kind) * kind(max(objective.cost, 1e-30))
    if chunk.sites == 1:
        price = np.concatenate([prices.local[chunk.site], prices.shared]).astype(kind)
        paid = (amounts.reshape(-1, amounts.shape[2]) @ price).reshape(amounts.shape[:2])
    else:
        by_class = np.empty((len(amounts), amounts.shape[2], 1), dtype=kind)
        by_class[:, : problem.local, 0] = prices.local[problem.site[chunk.classes]]
        by_class[:, problem.local :, 0] = prices.shared
        paid = np.matmul(amounts, by_class)[:, :, 0]
    return np.asarray(worth[:, None] - cost - paid)
