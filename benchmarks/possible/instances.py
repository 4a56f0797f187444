"""Random instances of the whole problem: forks, joins, divisible queries, pools paid by share or by node, elastic ones.

Operators have at most six choices each: two knob values in three pools.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np

from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate, QueryEstimators
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import (
    Allocation,
    Billing,
    Configuration,
    Network,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    Specification,
)
from circinus.testing.random_instances import random_specification

_NODES, _CPUS = 3, 4.0
"""Greatest number of nodes of a pool and of CPUs of a node, so that packings can be enumerated."""


@dataclass(frozen=True)
class Instance:
    """Queries on an infrastructure, with the profile of their pipeline."""

    specification: Specification
    profiles: dict[str, PipelineProfile]

    @classmethod
    def without_latency_slos(cls, seed: int) -> Instance:
        """Return 1 to 8 queries with accuracy SLOs; seven of ten may be divided, and three of four operators.

        Queries have up to three operators, and up to two if there are more than four queries.
        """
        return cls._drawn(seed, queries=1 + seed % 8, has_latency=False, divisible=0.7, pools=3)

    @classmethod
    def with_latency_slos(cls, seed: int) -> Instance:
        """Return 1 to 3 queries with latency SLOs; in every other instance all queries may be divided."""
        queries = 1 + seed % 3
        return cls._drawn(seed, queries=queries, has_latency=True, divisible=float(seed % 2), pools=3 - (queries > 2))

    @classmethod
    def _drawn(cls, seed: int, *, queries: int, has_latency: bool, divisible: float, pools: int) -> Instance:
        rng = np.random.default_rng([seed, int(has_latency)])
        specification, profiles = random_specification(
            seed,
            queries=queries,
            operators=1 + int(rng.integers(2 if queries > (1 if has_latency else 4) else 3)),
            cpus=_CPUS,
            nodes=_NODES,
        )
        (pipeline,) = specification.pipelines.values()
        if not has_latency:
            operators = (o.model_copy(update={"split": bool(rng.random() < 0.75)}) for o in pipeline.operators)
            pipeline = pipeline.model_copy(update={"operators": tuple(operators)})
        infrastructure = specification.required_infrastructure
        billed = tuple(_billed(rng, pool) for pool in infrastructure.pools[:pools])
        infrastructure = infrastructure.model_copy(update={"pools": billed})
        drawn = (
            query.model_copy(
                update={
                    "slos": query.slos.model_copy(
                        update={"cost": None} if has_latency else {"cost": None, "latency": None}
                    ),
                    "split": bool(rng.random() < divisible),
                    "accuracy_of": "each" if rng.random() < 0.2 else "mean",
                }
            )
            for query in specification.queries
        )
        return cls(Specification({pipeline.name: pipeline}, infrastructure, tuple(drawn)), profiles)

    @property
    def pipeline(self) -> Pipeline:
        """The only pipeline."""
        (pipeline,) = self.specification.pipelines.values()
        return pipeline

    @property
    def network(self) -> Network:
        """Network of the infrastructure."""
        return Network(self.specification.required_infrastructure)

    def measured(self) -> dict[Configuration, ConfigurationProfile]:
        """Return the profile of each configuration."""
        return {measured.configuration: measured for measured in self.profiles[self.pipeline.name].configurations}

    def plans(
        self,
        query: Query,
        estimators: QueryEstimators,
        configurations: Iterable[Configuration] | None = None,
        *,
        target: float,
    ) -> list[PlanCandidate]:
        """Return the estimates of all plans of a query alone, for any share of its requests.

        Args:
            query: to plan.
            estimators: of the query.
            configurations: to plan with; None: all.
            target: utilization of every deployment.
        """
        measured, estimates = self.measured(), list[PlanCandidate]()
        chosen = measured if configurations is None else configurations
        for plan in all_plans(query, self.pipeline, chosen, self.network, target=target):
            try:
                estimates.append(estimators.candidate(plan, measured.__getitem__, as_part=True))
            except PlanningError:  # any share overloads a link
                continue
        return estimates


def _billed(rng: np.random.Generator, pool: Pool) -> Pool:
    """Return the pool, paid by share or by node, with a fixed number of nodes or one that plans choose."""
    nodes, billing = int(rng.integers(1, _NODES + 1)), Billing.NODE if rng.random() < 0.5 else Billing.SHARE
    least = int(rng.integers(0, nodes + 1)) if rng.random() < 0.6 else None
    return pool.model_copy(update={"nodes": nodes, "min_nodes": least, "billing": billing})


def all_plans(
    query: Query, pipeline: Pipeline, configurations: Iterable[Configuration], network: Network, *, target: float
) -> Iterable[QueryPlan]:
    """Yield all plans of a query at a utilization."""

    def choices(operator: OperatorSpec) -> list[tuple[str, str, Allocation]]:
        pools = (p for p in network.pools_for(query.source) if p.tier in (operator.allowed_tiers or (p.tier,)))
        allocations = [Allocation(*chosen, target) for chosen in product(operator.cpus, operator.batch_sizes)]
        return [(operator.name, pool.name, allocation) for pool in pools for allocation in allocations]

    of_operators = list(product(*map(choices, pipeline.operators)))
    for configuration, chosen in product(configurations, of_operators):
        yield QueryPlan(
            pipeline=pipeline.name,
            configuration=configuration,
            placement=tuple(sorted((name, pool) for name, pool, _ in chosen)),
            allocations=tuple(sorted((name, allocation) for name, _, allocation in chosen)),
        )
