"""The dual of the relaxed matching, exact and smoothed.

Maximize the value of the chosen plans, at most one for each query, subject to a usage of at most 1 of every resource.
For any prices L >= 0, sum(L) + sum over queries of max(0, value of a plan - L @ its usage) is an upper bound on that.
It is convex in the prices and its minimum is the optimum of the linear relaxation. It has kinks where queries change
their plans; replacing the maximum by T log(1 + sum exp(. / T)) smooths them, with an error of at most T log(1 + plans)
for each query (Nesterov, "Smooth minimization of non-smooth functions", Mathematical Programming 103, 2005).
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
from circinus.matching.lagrangian.relaxed_problem import Amounts, RelaxedProblem
from circinus.matching.tolerances import CAPACITY_TOLERANCE

T = TypeVar("T")
_NEGLIGIBLE = 1e-9
"""Share of a query below which it is skipped in sums."""
_CHUNK_CLASSES = 1024
"""Number of classes per chunk, so that its arrays fit into the processor's cache."""


_MAX_SEQUENTIAL_CHUNKS = 2
"""Maximum number of chunks for which threads do not pay."""


@dataclass(frozen=True)
class DualObjective:
    """Objective of a served query: `weight` times its weight, minus `cost` times its plan's cost.

    With a minimum total weight, the dual has a price for it.
    """

    weight: float
    cost: float
    min_weight: float | None = None


@dataclass(frozen=True, eq=False)
class Prices:
    """Dual prices of all resources, in the objective's units per whole capacity."""

    local: FloatArray
    """(sites, local) >= 0"""
    shared: FloatArray
    """(shared,) >= 0"""
    weight: float = 0.0
    """>= 0, price of a unit of weight beyond the objective if a minimum weight binds."""

    @classmethod
    def zero(cls, problem: RelaxedProblem) -> Prices:
        """Return prices of 0."""
        return cls(np.zeros((problem.sites, problem.local)), np.zeros(problem.shared))


@dataclass(frozen=True, eq=False)
class SmoothedDual:
    """The smoothed dual at some prices, with derivatives. G' counts the shared resources and the price of weight."""

    value: float
    site_value: FloatArray
    """(sites,) contribution of each site, without shared resources."""
    local_slope: FloatArray
    """(sites, local) capacity minus usage."""
    common_slope: FloatArray
    """(G',)"""
    local_curvature: FloatArray
    """(sites, local, local)"""
    mixed_curvature: FloatArray
    """(sites, local, G')"""
    common_curvature: FloatArray
    """(G', G')"""


def value_scale(problem: RelaxedProblem, objective: DualObjective) -> float:
    """Return the scale of values: the average weight of a query and cost of its cheapest plan."""
    value = objective.weight * problem.weight + objective.cost * problem.min_cost_usd_per_h
    return max(float(problem.multiplicity @ value) / problem.queries, 1e-12)


def dual_bound(problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> float:
    """Return an upper bound on the value of any choice, even of divisible queries; valid at any prices.

    In double precision, and also for choices that exceed capacities by the rounding tolerance.
    """

    def gain(chunk: _Chunk) -> float:
        best = np.maximum(_reduced_values(problem, objective, prices, chunk, np.float64).max(axis=1), 0.0)
        return float(best @ problem.multiplicity[chunk.classes])

    total = sum(_map_chunks(_chunks(problem), gain))
    floor = 0.0 if objective.min_weight is None else prices.weight * objective.min_weight
    return float(total + (prices.local.sum() + prices.shared.sum()) * (1.0 + CAPACITY_TOLERANCE) - floor)


def reduced_profits(
    problem: RelaxedProblem, objective: DualObjective, prices: Prices
) -> Iterator[tuple[slice, Amounts]]:
    """Yield classes and their (classes, P) values minus payments; -inf if there is no plan."""
    for chunk in _chunks(problem):
        yield chunk.classes, _reduced_values(problem, objective, prices, chunk)


def softmax_shares(problem: RelaxedProblem, objective: DualObjective, prices: Prices, temperature: float) -> FloatArray:
    """Return (C, P) shares of each class that choose each plan in the dual smoothed at a temperature."""
    shares = np.zeros(problem.cost_usd_per_h.shape)
    for rows, values in reduced_profits(problem, objective, prices):
        max_value = np.maximum(values.max(axis=1, keepdims=True), 0.0)
        share = np.exp((values - max_value) / values.dtype.type(temperature))
        shares[rows] = share / (share.sum(axis=1, keepdims=True) + np.exp(-max_value / values.dtype.type(temperature)))
    return shares


def smoothed_dual(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    temperature: float,
    *,
    sites: BoolArray | None = None,
) -> SmoothedDual:
    """Return the dual smoothed at a temperature, in the objective's units.

    Args:
        problem: of any size.
        objective: to be maximized.
        prices: of the resources.
        temperature: above 0.
        sites: (sites,) restricts the evaluation; only the values and derivatives of these sites are then valid.
    """
    local, slots, count = problem.local, problem.amounts.shape[2], problem.sites
    value, usage, curvature = np.zeros(count), np.zeros((count, slots + 1)), np.zeros((count, slots + 1, slots + 1))
    chunks = _chunks(problem)
    if sites is not None:
        chunks = tuple(chunk for chunk in chunks if sites[chunk.site : chunk.site + chunk.sites].any())

    def derivatives(chunk: _Chunk) -> tuple[FloatArray, FloatArray, FloatArray]:
        return _chunk_derivatives(problem, objective, prices, temperature, chunk)

    for chunk, (chunk_value, chunk_usage, chunk_curvature) in zip(
        chunks, _map_chunks(chunks, derivatives), strict=True
    ):
        rows = slice(chunk.site, chunk.site + chunk.sites)
        value[rows] += chunk_value
        usage[rows] += chunk_usage
        curvature[rows] += chunk_curvature
    curvature /= temperature
    value += prices.local.sum(axis=1)
    has_min_weight = objective.min_weight is not None
    common = slice(local, slots + has_min_weight)
    capacity = np.ones(problem.shared + has_min_weight)
    total = float(value.sum() + prices.shared.sum())
    if objective.min_weight is not None:
        capacity[-1] = -objective.min_weight
        total -= prices.weight * objective.min_weight
    return SmoothedDual(
        value=total,
        site_value=value,
        local_slope=1.0 - usage[:, :local],
        common_slope=capacity - usage[:, common].sum(axis=0),
        local_curvature=curvature[:, :local, :local],
        mixed_curvature=curvature[:, :local, common],
        common_curvature=curvature[:, common, common].sum(axis=0),
    )


def _chunk_derivatives(
    problem: RelaxedProblem, objective: DualObjective, prices: Prices, temperature: float, chunk: _Chunk
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (value, usage, curvature times temperature) by site of a chunk; weight is the last slot, negated."""
    amounts, count = problem.amounts[chunk.classes], problem.multiplicity[chunk.classes]
    share = _reduced_values(problem, objective, prices, chunk)
    share /= share.dtype.type(temperature)
    max_value = np.maximum(share.max(axis=1, keepdims=True), 0.0)
    share -= max_value
    np.exp(share, out=share)
    total = share.sum(axis=1, keepdims=True) + np.exp(-max_value)
    gain = temperature * (np.log(total) + max_value)[:, 0].astype(np.float64) * count
    share /= total
    # At low temperatures, hardly more than one plan of each class has a share.
    selected = np.flatnonzero(share > _NEGLIGIBLE)
    row = selected // share.shape[1]
    plan = np.empty((len(selected), amounts.shape[2] + 1))
    plan[:, :-1] = amounts.reshape(-1, amounts.shape[2])[selected]
    plan[:, -1] = -problem.weight[chunk.classes][row]
    weighted = share.reshape(-1)[selected].astype(np.float64)[:, None] * plan
    mean = np.zeros((len(share), plan.shape[1]))
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    if len(starts):
        mean[row[starts]] = np.add.reduceat(weighted, starts, axis=0)
    plan *= count[row][:, None]
    usage = mean * count[:, None]
    if chunk.sites == 1:
        return gain.sum(keepdims=True), usage.sum(axis=0)[None], (weighted.T @ plan - mean.T @ usage)[None]
    site = problem.site[chunk.classes] - chunk.site
    curvature = np.empty((chunk.sites, plan.shape[1], plan.shape[1]))
    classes, rows = (np.searchsorted(sites, np.arange(chunk.sites + 1)) for sites in (site, site[row]))
    for index in range(chunk.sites):
        class_rows, selected_rows = slice(classes[index], classes[index + 1]), slice(rows[index], rows[index + 1])
        curvature[index] = weighted[selected_rows].T @ plan[selected_rows] - mean[class_rows].T @ usage[class_rows]
    return _by_site(gain, site, chunk.sites), _by_site(usage, site, chunk.sites), curvature


def _by_site(values: FloatArray, site: IntArray, sites: int) -> FloatArray:
    """Return (sites, ...) sums of rows whose sites ascend."""
    sums = np.zeros((sites, *values.shape[1:]))
    if len(site):
        starts = np.flatnonzero(np.diff(site, prepend=-1))
        sums[site[starts]] = np.add.reduceat(values, starts, axis=0)
    return sums


@dataclass(frozen=True)
class _Chunk:
    """Consecutive classes: part of one site, or several whole sites."""

    site: int
    """First site."""
    sites: int
    classes: slice


@lru_cache(maxsize=64)
def _split_into_chunks(starts: tuple[int, ...]) -> tuple[_Chunk, ...]:
    chunks: list[_Chunk] = []
    for site, (start, end) in enumerate(pairwise(starts)):
        previous = chunks[-1] if chunks else None
        if previous is not None and previous.classes.stop == start and end - previous.classes.start <= _CHUNK_CLASSES:
            chunks[-1] = _Chunk(previous.site, site + 1 - previous.site, slice(previous.classes.start, end))
            continue
        chunks += [
            _Chunk(site, 1, slice(first, min(first + _CHUNK_CLASSES, end)))
            for first in range(start, max(end, start + 1), _CHUNK_CLASSES)
        ]
    return tuple(chunks)


def _chunks(problem: RelaxedProblem) -> tuple[_Chunk, ...]:
    return _split_into_chunks(problem.starts)


def _map_chunks(chunks: Sequence[_Chunk], part: Callable[[_Chunk], T]) -> list[T]:
    """Map all chunks in order, so that sums do not depend on threads."""
    if len(chunks) <= _MAX_SEQUENTIAL_CHUNKS:
        return [part(chunk) for chunk in chunks]
    return list(_threads().map(part, chunks))


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="prices")


def _reduced_values(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    chunk: _Chunk,
    precision: type[np.floating[Any]] | None = None,
) -> Amounts:
    """Return (classes, P) values minus payments, in the given precision or that of the amounts."""
    amounts = problem.amounts[chunk.classes]
    if precision is not None:
        amounts = amounts.astype(precision, copy=False)
    dtype = amounts.dtype.type
    value = ((objective.weight + prices.weight) * problem.weight[chunk.classes]).astype(dtype)
    # The minimum factor keeps the infinite cost of a missing plan infinite.
    cost = problem.cost_usd_per_h[chunk.classes].astype(dtype) * dtype(max(objective.cost, 1e-30))
    if chunk.sites == 1:
        price = np.concatenate([prices.local[chunk.site], prices.shared]).astype(dtype)
        payment = (amounts.reshape(-1, amounts.shape[2]) @ price).reshape(amounts.shape[:2])
    else:
        class_prices = np.empty((len(amounts), amounts.shape[2], 1), dtype=dtype)
        class_prices[:, : problem.local, 0] = prices.local[problem.site[chunk.classes]]
        class_prices[:, problem.local :, 0] = prices.shared
        payment = np.matmul(amounts, class_prices)[:, :, 0]
    return np.asarray(value[:, None] - cost - payment)
