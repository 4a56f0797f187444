"""Scores of audited answers, and the expected agreement of configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circinus.arrays import FloatArray
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Configuration, MetricSpec

Agreements = Mapping[tuple[str, Configuration, Configuration], FloatArray]
"""(pipeline, configuration, reference) -> (n,) scores of the configuration's recorded outputs, with the reference's
outputs as ground truth."""


@dataclass(frozen=True)
class AuditScore:
    """Score of one audited answer."""

    query: str
    pipeline: str
    item_key: str
    configuration: str
    """Label of the configuration that answered."""
    score: float
    """Value of the pipeline's metric."""
    reference: Configuration | None
    """Configuration whose output replaced the ground truth; None for true ground truth."""
    time_s: float
    """Time of scoring; seconds since 1970."""


def most_accurate(profile: PipelineProfile, metric: MetricSpec, among: Sequence[Configuration] = ()) -> Configuration:
    """Return the configuration whose accuracy is best at its unfavourable confidence bound.

    All configurations that were profiled on enough items are considered, not only a query's ladder, because latency and
    cost do not limit audits.

    Args:
        profile: profile of the pipeline.
        metric: metric of the pipeline.
        among: restriction to these configurations, if one of them is usable.

    Raises:
        ValueError: the profile contains no configuration.
    """
    usable = [entry for entry in profile.usable or profile.configurations if not among or entry.configuration in among]
    candidates = usable or list(profile.usable or profile.configurations)
    if not candidates:
        raise ValueError(f"pipeline {profile.pipeline}: the profile contains no configuration")

    def worst(entry: ConfigurationProfile) -> float:
        return entry.accuracy.lower if metric.direction == "maximize" else -entry.accuracy.upper

    return max(candidates, key=worst).configuration
