"""Random fractional matchings, too large to enumerate their solutions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem


def crowd(
    rng: np.random.Generator,
    queries: int,
    *,
    plans: int = 6,
    local: int = 0,
    shared: int = 4,
    sites: int = 1,
    load: float = 2.0,
) -> RelaxedProblem:
    """Return a problem of single queries whose average plans together need `load` times the capacity."""
    shape = (queries, plans, local + shared)
    size = rng.lognormal(0, 0.7, (queries, 1, 1))
    amounts = size * rng.lognormal(0, 0.6, shape) * (rng.random(shape) < 0.5)
    site = np.sort(rng.integers(0, sites, queries))
    mean = amounts.mean(axis=1)
    capacity = np.zeros((sites, local + shared))
    np.add.at(capacity, site, mean)
    capacity[:, local:] = capacity[:, local:].sum(axis=0)
    amounts /= np.maximum(capacity / load, 1e-6)[site][:, None, :]
    return RelaxedProblem(
        multiplicity=np.ones(queries),
        weight=rng.choice([1.0, 2.0, 3.0], queries),
        cost_usd_per_h=size[:, :, 0] * rng.lognormal(0, 0.5, (queries, plans)),
        amounts=amounts,
        site=site,
        sites=sites,
        local=local,
    )


def on_one_site(problem: RelaxedProblem) -> RelaxedProblem:
    """Return `problem` on one site, which has the resources of all sites."""
    count, plans, slots = problem.amounts.shape
    amounts = np.zeros((count, plans, problem.capacities))
    rows = np.arange(count)
    for slot in range(slots):
        amounts[rows, :, problem.resources[:, slot]] = problem.amounts[:, :, slot]
    return replace(problem, amounts=amounts, site=np.zeros(count, dtype=np.int64), sites=1, local=0)
