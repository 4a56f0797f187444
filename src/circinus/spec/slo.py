"""Service-level objectives, parsed once from `p95 <= 800ms` into typed objects."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from circinus.spec.model import SpecModel
from circinus.spec.units import DurationS, UsdPerH


class LatencySlo(SpecModel):
    """The end-to-end latency at `percentile` (of 100) is at most `limit_s`."""

    percentile: float = Field(default=95.0, gt=0, lt=100)
    limit_s: DurationS = Field(alias="limit", gt=0)


class AccuracySlo(SpecModel):
    """The pipeline's metric is at least `threshold` (at most, where the metric is to be minimised)."""

    threshold: float = Field(allow_inf_nan=False)
    comparison: Literal[">=", "<="] = ">="

    def holds_for(self, score: float) -> bool:
        """Whether a mean score keeps the objective."""
        return score >= self.threshold if self.comparison == ">=" else score <= self.threshold


class CostSlo(SpecModel):
    """The query's share of its deployments plus its transfers costs at most `limit_usd_per_h`."""

    limit_usd_per_h: UsdPerH = Field(alias="limit")


class Slos(SpecModel):
    """All objectives of a query; those given must all hold."""

    latency: LatencySlo | None = None
    accuracy: AccuracySlo | None = None
    cost: CostSlo | None = None
