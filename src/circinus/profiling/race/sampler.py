"""Interface of samplers, which select configurations to profile and prune those that make no plan much cheaper.

Only samplers know costs; the race does without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from circinus.profiling.profile import PipelineProfile, StoppingCertificate
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import Configuration, Slos

Seconds = Callable[[Configuration, int], float]


@dataclass(frozen=True)
class Suggestion:
    """Suggested configuration to measure up to its next interim analysis."""

    configuration: Configuration
    value_per_s: float
    """Value per second, comparable with `MeasurementStep.value_per_s`."""


@dataclass(frozen=True, eq=False)
class SamplerDecision:
    """Decision of a sampler about measured and unmeasured configurations."""

    suggestions: Sequence[Suggestion]
    """Worthwhile configurations, started or not, the most valuable first."""
    certificate: StoppingCertificate
    pruned: Mapping[Slos, Collection[Configuration]]
    """Measured configurations that need not be decided for each SLO requirement: they make no query's plan much
    cheaper than with configurations that certainly meet it, whichever pool is full, or they most likely miss it."""


class DecisionTimeoutError(Exception):
    """End of the time that a decision may take."""


class ConfigurationSampler(Protocol):
    """Sampler of configurations based on the queries' plans, which profiling is independent of.

    Its decisions follow from the measurements alone.
    """

    def initial_design(self, earlier: Sequence[SourceScores] = ()) -> Sequence[Configuration]:
        """Return the initial configurations, which cover every operator.

        A new run begins: what was derived from earlier profiles, for instance costs, is dropped.

        Args:
            earlier: scores from transfer sources, used by all later suggestions.
        """

    def suggest(
        self, profile: PipelineProfile, seconds: Seconds, check_time: Callable[[], None] = lambda: None
    ) -> SamplerDecision:
        """Return the decision about the next measurements.

        Args:
            profile: current profile.
            seconds: (configuration, items) -> seconds until it is measured on this many items; infinite if it cannot be
                measured.
            check_time: callback between parts of the work; it raises `DecisionTimeoutError` to give the decision up.
        """
