"""Random small fluid matchings, and the enumeration of all their solutions."""

from __future__ import annotations

from itertools import product

import numpy as np

from circinus.matching.lagrangian import RelaxedProblem


def small(rng: np.random.Generator, *, classes: int = 4, plans: int = 3) -> RelaxedProblem:
    """Draw a few classes, some with several queries, on at most three sites.

    Some plans fit nowhere, some are missing.
    """
    count, max_plans = int(rng.integers(1, classes + 1)), int(rng.integers(1, plans + 1))
    local = int(rng.integers(0, 3))
    shared = int(rng.integers(0 if local else 1, 3))
    sites = int(rng.integers(1, 4)) if local else 1
    shape = (count, max_plans, local + shared)
    amounts = rng.uniform(0, 1, shape) * (rng.random(shape) < 0.7) * rng.choice([0.4, 0.8, 1.2])
    cost = rng.choice([0.0, 1.0, 2.0, 3.5], (count, max_plans))
    cost[rng.random((count, max_plans)) < 0.15] = np.inf
    amounts[np.isinf(cost)] = 0.0
    return RelaxedProblem(
        multiplicity=rng.choice([1, 1, 1, 2], count).astype(np.float64),
        weight=rng.choice([1.0, 2.0, 0.5, 3.0], count),
        cost_usd_per_h=cost,
        amounts=amounts,
        site=np.sort(rng.integers(0, sites, count)),
        sites=sites,
        local=local,
    )


def best_of_all(problem: RelaxedProblem) -> tuple[float, float]:
    """Return (maximum weight, minimum cost at that weight) by enumeration."""
    best = (0.0, 0.0)
    options = [
        [-1, *np.flatnonzero(np.isfinite(problem.cost_usd_per_h[row])).tolist()] for row in problem.class_of.tolist()
    ]
    for choice in product(*options):
        chosen = np.array(choice, dtype=np.int64)
        if problem.usage_of(chosen).max(initial=0.0) <= 1.0 + 1e-9:
            value = round(problem.weight_of(chosen), 9), -round(problem.cost_usd_per_h_of(chosen), 9)
            best = max(best, value)
    return best[0], -best[1]
