"""All plans of a query: combinations of configurations, pools and allocations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from circinus.specification import Allocation, Configuration, Network, Pipeline, Query, QueryPlan


@dataclass(frozen=True)
class PlanSpace:
    """Plans of all combinations of some configurations and of choices for each operator."""

    pipeline: str
    configurations: Sequence[Configuration]
    choices: Sequence[Sequence[tuple[str, str, Allocation]]]
    """Operator, pool and allocation of each choice, by operator."""

    @classmethod
    def of(
        cls,
        query: Query,
        pipeline: Pipeline,
        network: Network,
        configurations: Sequence[Configuration],
        targets: Sequence[float],
    ) -> PlanSpace:
        """Return the plans of a query with some configurations and utilization targets."""
        operators = zip(pipeline.operators, pools_of(query, pipeline, network), strict=True)
        choices = [
            [
                (operator.name, pool, Allocation(*allocation))
                for pool in pools
                for allocation in product(operator.cpus, operator.batch_sizes, targets)
            ]
            for operator, pools in operators
        ]
        return cls(pipeline.name, configurations, choices)

    @property
    def size(self) -> int:
        """Number of plans."""
        return len(self.configurations) * math.prod(map(len, self.choices))

    def plans(self) -> Iterator[QueryPlan]:
        """Yield the plans."""
        for configuration, choice in product(self.configurations, product(*self.choices)):
            yield QueryPlan(
                pipeline=self.pipeline,
                configuration=configuration,
                placement=tuple(sorted((operator, pool) for operator, pool, _ in choice)),
                allocations=tuple(sorted((operator, allocation) for operator, _, allocation in choice)),
            )


def pools_of(query: Query, pipeline: Pipeline, network: Network) -> Sequence[Sequence[str]]:
    """Return the pools in which each operator may run for a query."""
    pools = network.pools_for(query.source)
    return [
        [
            pool.name
            for pool in pools
            if (operator.allowed_tiers is None or pool.tier in operator.allowed_tiers)
            and query.pinned_pool(operator.name) in (None, pool.name)
        ]
        for operator in pipeline.operators
    ]
