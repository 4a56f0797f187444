"""SLO requirements of the queries on a pipeline, and the sample sizes they need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circinus.specification import HardwareClass, Query, Slos, Specification
from circinus.statistics.counts import percentile_sample_size

MIN_ITEMS = 8
"""Minimum number of items for any guarantee about means of times and sizes, and about tails."""


def distribution_free_sample_size(query: Query) -> int:
    """Return the sample size at which the bound of the query's latency percentile is distribution-free.

    This concerns service times; the bound of waiting times rests on the mean of the items at any sample size.
    """
    latency = query.slos.latency
    return MIN_ITEMS if latency is None else max(MIN_ITEMS, percentile_sample_size(latency.percentile, query.risk))


def latency_sample_size(query: Query) -> int:
    """Return the sample size of a configuration for the query's latency SLO.

    It is half of the distribution-free sample size. The allowance for the tail (`circinus.estimation.percentiles`) is
    then small, some per cent of the service time, unless times are of very different kinds.
    """
    return max(MIN_ITEMS, math.ceil(distribution_free_sample_size(query) / 2))


DEFAULT_RISK = 0.05
_DEFAULT_DISTRIBUTION_FREE_ITEMS = percentile_sample_size(95.0, DEFAULT_RISK)
_DEFAULT_LATENCY_ITEMS = math.ceil(_DEFAULT_DISTRIBUTION_FREE_ITEMS / 2)
"""Sample size without queries."""


@dataclass(frozen=True)
class PipelineSlos:
    """SLO requirements of all queries on one pipeline, and the sample sizes to decide them."""

    requirements: tuple[Slos, ...]
    """Distinct SLOs of the queries, without cost; empty without queries."""
    weights: tuple[float, ...]
    """Total weight of the queries with each requirement."""
    risk: float
    """Smallest risk of any query: probability that any statement about any configuration and requirement is wrong."""
    latency_items: int = _DEFAULT_LATENCY_ITEMS
    """Sample size of the most demanding latency SLO (`latency_sample_size`)."""
    distribution_free_items: int = _DEFAULT_DISTRIBUTION_FREE_ITEMS
    """Sample size of configurations whose times vary so much that fewer items say little about the tail."""
    hardware: Mapping[str, tuple[HardwareClass, ...]] = field(default_factory=dict)
    """Operator name -> hardware classes of its eligible pools; empty if no pools are declared."""

    @classmethod
    def of(cls, specification: Specification, pipeline_name: str) -> PipelineSlos:
        """Return the requirements of the queries on a pipeline, on any pool."""
        return cls.of_queries(specification.queries, pipeline_name, operator_hardware(specification, pipeline_name))

    @classmethod
    def of_queries(
        cls,
        queries: Sequence[Query],
        pipeline_name: str,
        hardware: Mapping[str, tuple[HardwareClass, ...]] | None = None,
    ) -> PipelineSlos:
        own_queries = [query for query in queries if query.pipeline == pipeline_name]
        weights: dict[Slos, float] = {}
        for query in own_queries:
            requirement = query.slos.without_cost
            weights[requirement] = weights.get(requirement, 0.0) + query.weight
        return cls(
            requirements=tuple(weights),
            weights=tuple(weights.values()),
            risk=min((query.risk for query in own_queries), default=DEFAULT_RISK),
            latency_items=max(map(latency_sample_size, own_queries), default=_DEFAULT_LATENCY_ITEMS),
            distribution_free_items=max(
                map(distribution_free_sample_size, own_queries), default=_DEFAULT_DISTRIBUTION_FREE_ITEMS
            ),
            hardware=hardware or {},
        )

    @property
    def latency_percentiles(self) -> int:
        """Number of distinct latency percentiles; 0 if no hardware is declared."""
        latencies = [requirement.latency for requirement in self.requirements if requirement.latency is not None]
        return len({latency.percentile for latency in latencies}) if self.hardware else 0


def operator_hardware(specification: Specification, pipeline_name: str) -> dict[str, tuple[HardwareClass, ...]]:
    """Return the hardware classes of each operator's eligible pools; operators without any are missing."""
    infrastructure = specification.infrastructure
    if infrastructure is None:
        return {}
    hardware = {}
    for operator in specification.pipelines[pipeline_name].operators:
        tiers = operator.allowed_tiers
        classes = dict.fromkeys(p.hardware for p in infrastructure.pools if tiers is None or p.tier in tiers)
        if classes:
            hardware[operator.name] = tuple(classes)
    return hardware
