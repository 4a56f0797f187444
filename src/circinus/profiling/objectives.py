"""What the queries ask to be known of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from circinus.profiling.percentile_items import certain_items, items_for_percentile, latency_items
from circinus.spec import AccuracySlo, Query

DEFAULT_RISK = 0.05
_USUAL_CERTAIN = items_for_percentile(95.0, DEFAULT_RISK)
_USUAL_ITEMS = math.ceil(_USUAL_CERTAIN / 2)
"""Where nobody asks for anything yet."""


@dataclass(frozen=True)
class Objectives:
    """The accuracy objectives of all queries on one pipeline, and what their latency objectives take."""

    asked: tuple[AccuracySlo | None, ...]
    """Each objective once; None: some query asks for no accuracy. Empty without queries."""
    weights: tuple[float, ...]
    """For each of `asked` the weight of the queries behind it."""
    risk: float
    """The smallest risk of any query: that anything said of any configuration and any objective is wrong."""
    latency_items: int = _USUAL_ITEMS
    """Items that the most demanding latency objective takes (`latency_items`)."""
    certain_items: int = _USUAL_CERTAIN
    """Items that it takes of a configuration whose times are so uneven that fewer say little of their tail."""

    @classmethod
    def of(cls, queries: Sequence[Query], pipeline_name: str) -> Objectives:
        """Those of the queries on a pipeline."""
        concerned = [query for query in queries if query.pipeline == pipeline_name]
        weights: dict[AccuracySlo | None, float] = {}
        for query in concerned:
            weights[query.slos.accuracy] = weights.get(query.slos.accuracy, 0.0) + query.weight
        return cls(
            asked=tuple(weights),
            weights=tuple(weights.values()),
            risk=min((query.risk for query in concerned), default=DEFAULT_RISK),
            latency_items=max(map(latency_items, concerned), default=_USUAL_ITEMS),
            certain_items=max(map(certain_items, concerned), default=_USUAL_CERTAIN),
        )
