"""Settings of the plan search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.specification import Deployment, DirectedLink

DOUBTFUL_EXCESS = 0.25
"""Relative excess of a latency by formula over its limit up to which a simulation decides. Of 234 rejected in 51 random
applications, 0.1, 0.25, 0.5 and 1 admit 23, in 9, 13, 19 and 28 s; 0 admits 22."""


@dataclass(frozen=True, eq=False)
class RunningLoad:
    """Load of running plans, beside which the plans of one more query are searched for."""

    deployments: Mapping[Deployment, tuple[int, float]]
    """Deployment -> its replicas, and the mean number of them that are busy."""
    links: Mapping[DirectedLink, float]
    """Link -> its utilization."""
    pools: Mapping[str, FloatArray]
    """Pool -> amounts that its replicas use, in the order of `Pool.amounts`."""


@dataclass(frozen=True)
class SearchSettings:
    """Parameters of the plan search that are not part of the specification."""

    running: RunningLoad | None = None
    """If given, latencies are those at the final sizes beside this load, and resources are what a plan adds to it. Else
    latencies are those at the utilization targets."""
    tolerance: float = 0.002
    """Latency differences below this share of the query's limit are ignored. With 0 the frontier is exact."""
    max_plans: int = 60
    """Maximum number of candidates that a frontier offers to the matching."""
    margin_tolerance: float = 0.05
    """Minimum gain of a high-margin plan over every other plan: a share of the latency limit or of the cost, or a gain
    in accuracy. With 0 no plan is dropped, and every resource counts."""
    max_margin_plans: int = 12
    """Maximum number of high-margin plans of a frontier; with 0 there is no search for them."""
    max_labels: int = 20_000
    """Maximum number of partial plans of one configuration that are extended at a time; dropped ones are counted."""
    near_misses: int = 3
    """Maximum number of near misses of a frontier; with 0 there is no best-effort plan either."""

    @property
    def max_ranked(self) -> int:
        """Maximum number of configurations that are tried for near misses."""
        return 2 * self.near_misses

    @property
    def dtype(self) -> type[np.floating]:
        """Precision of the search; an exact search computes in the estimator's."""
        return np.float32 if self.tolerance > 0 else np.float64


DEFAULT_SETTINGS = SearchSettings()
