"""Random small fluid matchings, and the enumeration of all their answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from circinus.matching.prices.answer import Members
from circinus.matching.prices.fluid import FluidProblem


def small(rng: np.random.Generator, *, classes: int = 5, plans: int = 3) -> FluidProblem:
    """A few classes, some of several queries, on up to three sites; some plans fit nowhere, some are missing."""
    count, most = int(rng.integers(1, classes + 1)), int(rng.integers(1, plans + 1))
    local = int(rng.integers(0, 3))
    shared = int(rng.integers(0 if local else 1, 3))
    sites = int(rng.integers(1, 4)) if local else 1
    shape = (count, most, local + shared)
    amounts = rng.uniform(0, 1, shape) * (rng.random(shape) < 0.7) * rng.choice([0.4, 0.8, 1.2])
    cost = rng.choice([0.0, 1.0, 2.0, 3.5], (count, most))
    cost[rng.random((count, most)) < 0.15] = np.inf
    amounts[np.isinf(cost)] = 0.0
    return FluidProblem(
        multiplicity=rng.choice([1, 1, 1, 2], count).astype(np.float64),
        weight=rng.choice([1.0, 2.0, 0.5, 3.0], count),
        cost_usd_per_h=cost,
        amounts=amounts,
        site=np.sort(rng.integers(0, sites, count)),
        sites=sites,
        local=local,
    )


def crowd(
    rng: np.random.Generator,
    queries: int,
    *,
    plans: int = 6,
    local: int = 0,
    shared: int = 4,
    sites: int = 1,
    load: float = 2.0,
) -> FluidProblem:
    """Many single queries; `load` times what there is would be taken if everybody took an average plan."""
    shape = (queries, plans, local + shared)
    size = rng.lognormal(0, 0.7, (queries, 1, 1))
    amounts = size * rng.lognormal(0, 0.6, shape) * (rng.random(shape) < 0.5)
    site = np.sort(rng.integers(0, sites, queries))
    mean = amounts.mean(axis=1)
    capacity = np.zeros((sites, local + shared))
    np.add.at(capacity, site, mean)
    capacity[:, local:] = capacity[:, local:].sum(axis=0)
    amounts /= np.maximum(capacity / load, 1e-6)[site][:, None, :]
    return FluidProblem(
        multiplicity=np.ones(queries),
        weight=rng.choice([1.0, 2.0, 3.0], queries),
        cost_usd_per_h=size[:, :, 0] * rng.lognormal(0, 0.5, (queries, plans)),
        amounts=amounts,
        site=site,
        sites=sites,
        local=local,
    )


def on_one_site(problem: FluidProblem) -> FluidProblem:
    """The same problem with the resources of all sites shared by all."""
    members = Members.of(problem)
    count, plans, slots = problem.amounts.shape
    amounts = np.zeros((count, plans, members.capacities))
    rows = np.arange(count)
    for slot in range(slots):
        amounts[rows, :, members.resources[:, slot]] = problem.amounts[:, :, slot]
    return replace(problem, amounts=amounts, site=np.zeros(count, dtype=np.int64), sites=1, local=0)


def best_of_all(problem: FluidProblem) -> tuple[float, float]:
    """(most weight, least cost of it) over all choices, one by one."""
    members = Members.of(problem)
    best = (0.0, 0.0)
    options = [
        [-1, *np.flatnonzero(np.isfinite(problem.cost_usd_per_h[row])).tolist()] for row in members.class_of.tolist()
    ]
    for choice in product(*options):
        chosen = np.array(choice, dtype=np.int64)
        if members.usage(chosen).max(initial=0.0) <= 1.0 + 1e-9:
            found = round(members.weight(chosen), 9), -round(members.cost_usd_per_h(chosen), 9)
            best = max(best, found)
    return best[0], -best[1]
