"""Leaving out what was measured on too few items to promise a percentile of latency."""

from __future__ import annotations

from dataclasses import dataclass, replace

from circinus.profiling import PipelineProfile, latency_items
from circinus.spec import Query


@dataclass(frozen=True)
class Measured:
    """The part of a profile on which a query's latency objective can be promised."""

    profile: PipelineProfile
    items: int
    """How many items that takes."""
    left_out: int
    """Configurations that were measured, but on fewer."""

    @property
    def why_none(self) -> str:
        """In words, for a query whose every configuration is left out."""
        return (
            f"none of the {self.left_out} measured configurations is known on the {self.items} items that its latency "
            f"objective takes; profile longer"
        )


def measured_enough(profile: PipelineProfile, query: Query) -> Measured:
    """The configurations of `profile` that were measured on as many items as `query` needs, or as there are."""
    items = min(latency_items(query), profile.dataset_items - profile.held_out_items)
    kept = tuple(c for c in profile.configurations if len(c.items) >= items)
    return Measured(replace(profile, configurations=kept), items, len(profile.configurations) - len(kept))
