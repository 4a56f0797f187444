"""Weight of planning from what runs, minus that of planning afresh, after one change of the specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import circinus as c
from benchmarks.promises.applications import Application, random_query, with_pool, with_query

_Change = Callable[[np.random.Generator, Application, c.Plan], c.Specification]


@dataclass(frozen=True)
class Replanned:
    """Weights after a change."""

    seed: int
    change: str
    incumbent_weight: float
    """Weight served when planning from the plan in force."""
    fresh_weight: float
    """Weight served when planning afresh."""
    incumbent_usd_per_h: float
    fresh_usd_per_h: float
    incumbent_optimal: bool
    """True if the plan from the incumbent claims to be optimal."""

    @property
    def difference(self) -> float:
        """Weight that the incumbent gains; negative if it costs."""
        return self.incumbent_weight - self.fresh_weight


def replanned(seed: int, folder: Path) -> Replanned:
    """Plan a random application, change one thing, and plan again from the plan and afresh."""
    application, rng = Application.random(seed, folder), np.random.default_rng([seed, 25])
    plan = application.workspace().plan()
    change = list(CHANGES)[seed % len(CHANGES)]
    workspace = application.workspace(CHANGES[change](rng, application, plan))
    after, fresh = (workspace.plan(incumbent=incumbent) for incumbent in (plan, None))
    return Replanned(
        seed,
        change,
        after.matching.satisfied_weight,
        fresh.matching.satisfied_weight,
        after.cost_usd_per_h,
        fresh.cost_usd_per_h,
        after.matching.optimal,
    )


def _query(rng: np.random.Generator, application: Application) -> c.Query:
    queries = application.specification.queries
    return queries[int(rng.integers(len(queries)))]


def _pool(rng: np.random.Generator, application: Application) -> c.Pool:
    pools = application.specification.required_infrastructure.pools
    return pools[int(rng.integers(len(pools)))]


def _add_query(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    specification = application.specification
    query = random_query(rng, application.models, specification.required_infrastructure, "added")
    return with_query(specification, query)


def _remove_query(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    removed = _query(rng, application)
    left = tuple(query for query in application.specification.queries if query != removed)
    return replace(application.specification, queries=left)


def _change_slo(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    query = _query(rng, application)
    kind, slo = list(query.slos.by_kind.items())[int(rng.integers(len(query.slos.by_kind)))]
    share = float(rng.choice([-0.3, -0.1, 0.1, 0.3, 1.0])) * (0.3 if slo.is_minimum else 1.0)
    slos = query.slos.replaced(kind, slo.relaxed_by(share))
    return with_query(application.specification, query.model_copy(update={"slos": slos}))


def _change_rate(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    query = _query(rng, application)
    rate = query.rate_per_s * float(rng.choice([0.3, 0.6, 1.5, 3.0]))
    return with_query(application.specification, query.model_copy(update={"rate_per_s": rate}))


def _change_price(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    pool = _pool(rng, application)
    price = round(pool.price_usd_per_h * float(rng.choice([0.3, 0.6, 1.5, 3.0])) + 0.01, 4)
    return with_pool(application.specification, pool.name, price_usd_per_h=price)


def _add_node(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    pool = _pool(rng, application)
    return with_pool(application.specification, pool.name, nodes=pool.nodes + 1)


def _lose_node(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    pools = application.specification.required_infrastructure.pools
    pool = max(pools, key=lambda pool: (pool.nodes, pool.name))
    return with_pool(application.specification, pool.name, nodes=max(pool.nodes - 1, 1), cpus=max(1.0, pool.cpus - 1))


def _relax_rejected(rng: np.random.Generator, application: Application, plan: c.Plan) -> c.Specification:
    """Relax a rejected query's latency by a half, as people do who were refused."""
    rejected = [query for query in application.specification.queries if query.name in plan.rejected]
    if not rejected:
        return _change_slo(rng, application, plan)
    query = rejected[int(rng.integers(len(rejected)))]
    latency = query.slos.latency
    slos = query.slos if latency is None else query.slos.replaced(latency.kind, latency.relaxed_by(0.5))
    return with_query(application.specification, query.model_copy(update={"slos": slos}))


CHANGES: dict[str, _Change] = {
    "query added": _add_query,
    "query removed": _remove_query,
    "SLO changed": _change_slo,
    "rate changed": _change_rate,
    "price changed": _change_price,
    "node added": _add_node,
    "node lost": _lose_node,
    "rejected query relaxed": _relax_rejected,
}
