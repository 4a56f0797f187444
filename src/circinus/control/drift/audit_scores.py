"""Scores of audited answers, and what to expect of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circinus.arrays import FloatArray
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Configuration, MetricSpec

Agreements = Mapping[tuple[str, Configuration, Configuration], FloatArray]
"""(pipeline, configuration, reference) -> (n,) scores of its answers with those of the reference for the truth, on
items that were recorded."""


@dataclass(frozen=True)
class AuditScore:
    """One audited answer."""

    query: str
    pipeline: str
    item_key: str
    configuration: str
    """Label of the one that answered."""
    score: float
    """By the pipeline's metric."""
    reference: Configuration | None
    """Whose answer stood for the truth; None: it was the truth."""
    time_s: float
    """When it was scored; seconds since 1970."""


def most_accurate(profile: PipelineProfile, metric: MetricSpec, among: Sequence[Configuration] = ()) -> Configuration:
    """The configuration whose accuracy is surely the best, at its unfavourable bound.

    Of all that were profiled on enough items, not of a query's ladder alone: what a query may use is limited by its
    latency and cost, and the audit is by neither.

    Args:
        profile: of the pipeline.
        metric: of the pipeline.
        among: only these, where one of them is usable.

    Raises:
        ValueError: nothing was profiled.
    """
    usable = [found for found in profile.usable or profile.configurations if not among or found.configuration in among]
    candidates = usable or list(profile.usable or profile.configurations)
    if not candidates:
        raise ValueError(f"pipeline {profile.pipeline}: nothing was profiled")

    def worst(found: ConfigurationProfile) -> float:
        return found.accuracy.lower if metric.direction == "maximize" else -found.accuracy.upper

    return max(candidates, key=worst).configuration
