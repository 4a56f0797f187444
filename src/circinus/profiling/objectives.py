"""What the queries ask of a pipeline's accuracy, and when a configuration needs no more items for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from circinus.profiling.bounded import Bounded
from circinus.profiling.percentile_items import items_for_percentile, latency_items
from circinus.spec import AccuracySlo, Query
from circinus.spec.spoken import score

DEFAULT_RISK = 0.05
_USUAL_ITEMS = math.ceil(items_for_percentile(95.0, DEFAULT_RISK) / 2)
"""Where nobody asks for anything yet."""


@dataclass(frozen=True)
class Objectives:
    """What all queries on one pipeline ask to be known of it."""

    thresholds: tuple[AccuracySlo, ...]
    optional: bool
    """Whether some query asks for no accuracy, so that no configuration is out of the question."""
    risk: float
    """The smallest risk of any query."""
    weights: tuple[float, ...] = ()
    """For each threshold the weight of the queries that ask for it."""
    latency_items: int = _USUAL_ITEMS
    """Items that the most demanding latency objective takes (`latency_items`)."""

    @classmethod
    def of(cls, queries: Sequence[Query], pipeline_name: str) -> Objectives:
        """Those of the queries on a pipeline."""
        concerned = [query for query in queries if query.pipeline == pipeline_name]
        asked = [query.slos.accuracy for query in concerned]
        weights: dict[AccuracySlo, float] = {}
        for query, slo in zip(concerned, asked, strict=True):
            if slo is not None:
                weights[slo] = weights.get(slo, 0.0) + query.weight
        return cls(
            thresholds=tuple(weights),
            weights=tuple(weights.values()),
            optional=not asked or any(slo is None for slo in asked),
            risk=min((query.risk for query in concerned), default=DEFAULT_RISK),
            latency_items=max(map(latency_items, concerned), default=_USUAL_ITEMS),
        )

    def undecided(self, accuracy: Bounded) -> tuple[AccuracySlo, ...]:
        """The thresholds that bounds straddle."""
        return tuple(t for t in self.thresholds if t.holds_for(accuracy.lower) != t.holds_for(accuracy.upper))

    def settled(self, accuracy: Bounded, items: int) -> tuple[bool, str]:
        """Whether more items of a configuration would change no decision, and why.

        Args:
            accuracy: bounds of its mean score.
            items: number of items it was measured on.
        """
        undecided = self.undecided(accuracy)
        if undecided:
            asked = ", ".join(f"{t.comparison} {t.threshold:g}" for t in undecided)
            return (
                False,
                f"its accuracy in [{score(accuracy.lower)}, {score(accuracy.upper)}] may or may not be {asked}",
            )
        if not self.optional and not any(t.holds_for(accuracy.lower) for t in self.thresholds):
            return True, "its accuracy is not good enough for any query"
        if items < self.latency_items:
            return False, f"latency is to be estimated from at least {self.latency_items} items"
        return True, "its accuracy is decided for every query"
