"""Who says which configurations to measure at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from circinus.profiling.profile import PipelineProfile
from circinus.profiling.race.slo_requirements import SloRequirement
from circinus.profiling.race.stopping_certificate import StoppingCertificate
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import Configuration

Seconds = Callable[[Configuration, int], float]


@dataclass(frozen=True)
class Suggestion:
    """A configuration to measure on its first items, or on more of them, up to the next look."""

    configuration: Configuration
    worth_per_s: float
    """In the currency of `Step.worth_per_s`."""


@dataclass(frozen=True, eq=False)
class SamplerDecision:
    """What plans say of the configurations, measured and not."""

    next: Suggestion | None
    """None: nothing is worth it, be it begun or not."""
    certificate: StoppingCertificate
    pruned: Mapping[SloRequirement, Collection[Configuration]]
    """For each objective the measured configurations with which no query's plan would be much cheaper than with those
    that surely keep it, whichever pool is full, or which most likely do not keep it: whether they do need not be
    asked."""


class ConfigurationSampler(Protocol):
    """Chooses among configurations by the plans of queries, which profiling knows nothing of. Follows from what is
    known alone."""

    def initial_design(self, earlier: Sequence[SourceScores] = ()) -> Sequence[Configuration]:
        """Configurations to begin with, so that something is known of every operator.

        Args:
            earlier: what was scored elsewhere, for all that is assessed afterwards.
        """

    def suggest(self, known: PipelineProfile, seconds: Seconds) -> SamplerDecision:
        """What is worth measuring.

        Args:
            known: what was measured.
            seconds: (configuration, items) -> seconds until it is known on so many items; infinite: it cannot be
                measured.
        """
