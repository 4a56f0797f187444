"""Random matchings of any size, drawn from a seed: with twelve shared resources, and with many sites."""

from __future__ import annotations

import numpy as np

from circinus.matching.lagrangian import RelaxedProblem

PLANS = 20
_SPEED = np.array([0.3, 0.6, 1.0, 1.0])
_USD_PER_H = np.array([0.02, 0.03, 0.05, 0.06])
"""Price of one second's work per second, on each kind of pool."""
_WEIGHTS = (1.0, 2.0, 3.0, 5.0)
_STAGES = 2
"""Number of pools that a plan uses in sequence, with repetition."""
CROWDED = 8.0
"""Load at which about half of the weight can be served."""


def on_shared_pools(queries: int, seed: int, load: float = CROWDED) -> RelaxedProblem:
    """Draw a problem with four pools (CPUs and memory) and their links: twelve resources that all queries share.

    Args:
        queries: number of queries, all different.
        seed: random seed.
        load: expected usage of a capacity if every query took a random plan.
    """
    rng = np.random.default_rng([seed, queries])
    amounts = np.zeros((queries, PLANS, 12), dtype=np.float32)
    rate, cost = rng.lognormal(0, 0.8, (queries, 1)), np.zeros((queries, PLANS))
    row, plan = np.arange(queries)[:, None], np.arange(PLANS)[None, :]
    for _ in range(_STAGES):
        pool = rng.integers(0, 4, (queries, PLANS))
        work = 0.5 * rate * rng.lognormal(0, 0.6, (queries, PLANS))
        amounts[row, plan, 2 * pool] += work / _SPEED[pool]
        amounts[row, plan, 2 * pool + 1] += work * rng.lognormal(0, 0.4, (queries, PLANS))
        amounts[row, plan, 8 + pool] += rate * rng.lognormal(0, 0.5, (queries, PLANS))
        cost += _USD_PER_H[pool] * work * rng.uniform(0.8, 1.2, (queries, PLANS))
    mean = amounts.mean(axis=1, dtype=np.float64).sum(axis=0)
    amounts /= (mean / load * rng.uniform(0.7, 1.3, 12)).astype(np.float32)
    return RelaxedProblem(
        multiplicity=np.ones(queries),
        weight=rng.choice(_WEIGHTS, queries),
        cost_usd_per_h=cost,
        amounts=amounts,
        site=np.zeros(queries, dtype=np.int64),
        sites=1,
        local=0,
    )


OWN = 5
"""Resources of a site: CPUs and memory of its devices and of its edge server, and its uplink."""


def on_many_sites(queries: int, sites: int, seed: int, load: float = 4.0) -> RelaxedProblem:
    """Draw a problem with devices, an edge server and an uplink at each site, two shared clouds and a backbone."""
    rng = np.random.default_rng([seed, queries, sites])
    amounts = np.zeros((queries, PLANS, 10), dtype=np.float32)
    site = np.sort(rng.integers(0, sites, queries))
    rate, cost = rng.lognormal(0, 0.8, (queries, 1)), np.zeros((queries, PLANS))
    row, plan = np.arange(queries)[:, None], np.arange(PLANS)[None, :]
    first = np.array([0, 2, OWN, OWN + 2])
    for _ in range(_STAGES):
        pool = rng.integers(0, 4, (queries, PLANS))
        work = 0.5 * rate * rng.lognormal(0, 0.6, (queries, PLANS))
        amounts[row, plan, first[pool]] += work / _SPEED[pool]
        amounts[row, plan, first[pool] + 1] += work * rng.lognormal(0, 0.4, (queries, PLANS))
        volume = rate * rng.lognormal(0, 0.5, (queries, PLANS))
        amounts[:, :, OWN - 1] += np.where(pool >= 2, volume, 0.0)
        amounts[:, :, -1] += np.where(pool == 3, volume, 0.0)
        cost += _USD_PER_H[pool] * work
    mean = amounts.mean(axis=1, dtype=np.float64)
    own = np.zeros((sites, OWN))
    np.add.at(own, site, mean[:, :OWN])
    own = np.maximum(own, 1e-3) / load * rng.uniform(0.7, 1.3, (sites, OWN))
    amounts[:, :, :OWN] /= own[site][:, None, :].astype(np.float32)
    amounts[:, :, OWN:] /= (mean[:, OWN:].sum(axis=0) / load).astype(np.float32)
    return RelaxedProblem(
        multiplicity=np.ones(queries),
        weight=rng.choice(_WEIGHTS, queries),
        cost_usd_per_h=cost,
        amounts=amounts,
        site=site,
        sites=sites,
        local=OWN,
    )


def without_site(problem: RelaxedProblem, site: int) -> RelaxedProblem:
    """Return the problem after the loss of a site's machines: its queries keep only their plans in the clouds."""
    lost = (problem.site == site)[:, None] & (problem.amounts[:, :, : OWN - 1] > 0).any(axis=2)
    cost, amounts = problem.cost_usd_per_h.copy(), problem.amounts.copy()
    cost[lost], amounts[lost] = np.inf, 0.0
    return RelaxedProblem(
        problem.multiplicity, problem.weight, cost, amounts, problem.site, problem.sites, problem.local
    )
