"""What the queries ask to be known of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circinus.specification import AccuracySlo, HardwareClass, LatencySlo, Query, Specification

MIN_ITEMS = 8
"""Items that anything is promised on: means of times and sizes, and tails."""


def percentile_sample_size(percentile: float, risk: float) -> int:
    """The fewest items whose greatest value reaches a percentile of all with probability 1 - risk.

    No bound of the percentile from fewer items keeps the risk without assuming a shape: n values drawn at random are
    all below the p-th percentile with probability (p/100)^n (Wilks, Annals of Mathematical Statistics 12, 1941). For
    the 95th at a risk of 0.05 these are 59. Drawing without replacement needs no more.

    Args:
        percentile: of 100, between 0 and 100.
        risk: between 0 and 1.
    """
    return max(1, math.ceil(math.log(risk) / math.log(percentile / 100.0)))


def distribution_free_sample_size(query: Query) -> int:
    """Items on which the bound of the query's latency percentile needs no assumption of how long the slowest take; that
    of the waits rests on the mean of the items, however many."""
    latency = query.slos.latency
    return MIN_ITEMS if latency is None else max(MIN_ITEMS, percentile_sample_size(latency.percentile, query.risk))


def latency_sample_size(query: Query) -> int:
    """Items on which a configuration is measured for the query's latency objective.

    Half of what a bound of the percentile takes without assumptions. The allowance for the tail
    (`circinus.estimation.percentiles`) is then small, some per cent of the service time, unless times are of very different
    kinds.
    """
    return max(MIN_ITEMS, math.ceil(distribution_free_sample_size(query) / 2))


DEFAULT_RISK = 0.05
_USUAL_CERTAIN = percentile_sample_size(95.0, DEFAULT_RISK)
_USUAL_ITEMS = math.ceil(_USUAL_CERTAIN / 2)
"""Where nobody asks for anything yet."""


@dataclass(frozen=True)
class SloRequirement:
    """What some queries ask of a configuration; None: nothing."""

    accuracy: AccuracySlo | None = None
    latency: LatencySlo | None = None


@dataclass(frozen=True)
class PipelineSlos:
    """The objectives of all queries on one pipeline, and what they take to be decided."""

    requirements: tuple[SloRequirement, ...]
    """Each once. Empty without queries."""
    weights: tuple[float, ...]
    """For each of `asked` the weight of the queries behind it."""
    risk: float
    """The smallest risk of any query: that anything said of any configuration and any objective is wrong."""
    latency_items: int = _USUAL_ITEMS
    """Items that the most demanding latency objective takes (`latency_items`)."""
    distribution_free_items: int = _USUAL_CERTAIN
    """Items that it takes of a configuration whose times are so uneven that fewer say little of their tail."""
    hardware: Mapping[str, tuple[HardwareClass, ...]] = field(default_factory=dict)
    """Operator name -> the classes of the pools that it may run in; nothing where no pools are known."""

    @classmethod
    def of(cls, specification: Specification, pipeline_name: str) -> PipelineSlos:
        """Those of the queries on a pipeline, wherever they may run."""
        return cls.of_queries(specification.queries, pipeline_name, operator_hardware(specification, pipeline_name))

    @classmethod
    def of_queries(
        cls,
        queries: Sequence[Query],
        pipeline_name: str,
        hardware: Mapping[str, tuple[HardwareClass, ...]] | None = None,
    ) -> PipelineSlos:
        """Those of the queries on a pipeline."""
        concerned = [query for query in queries if query.pipeline == pipeline_name]
        weights: dict[SloRequirement, float] = {}
        for query in concerned:
            objective = SloRequirement(query.slos.accuracy, query.slos.latency)
            weights[objective] = weights.get(objective, 0.0) + query.weight
        return cls(
            requirements=tuple(weights),
            weights=tuple(weights.values()),
            risk=min((query.risk for query in concerned), default=DEFAULT_RISK),
            latency_items=max(map(latency_sample_size, concerned), default=_USUAL_ITEMS),
            distribution_free_items=max(map(distribution_free_sample_size, concerned), default=_USUAL_CERTAIN),
            hardware=hardware or {},
        )

    @property
    def latency_percentiles(self) -> int:
        """At how many percentiles configurations are held against limits; none where no hardware is known."""
        latencies = [objective.latency for objective in self.requirements if objective.latency is not None]
        return len({latency.percentile for latency in latencies}) if self.hardware else 0


def operator_hardware(specification: Specification, pipeline_name: str) -> dict[str, tuple[HardwareClass, ...]]:
    """Operator name -> the classes of the pools that it may run in; those with none are left out."""
    infrastructure = specification.infrastructure
    if infrastructure is None:
        return {}
    found = {}
    for operator in specification.pipelines[pipeline_name].operators:
        tiers = operator.allowed_tiers
        classes = dict.fromkeys(p.hardware for p in infrastructure.pools if tiers is None or p.tier in tiers)
        if classes:
            found[operator.name] = tuple(classes)
    return found
