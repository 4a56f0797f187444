"""How the search for plans is done."""

from __future__ import annotations

from dataclasses import dataclass

from circinus.estimation.estimator import USABLE_LINK_SHARE


@dataclass(frozen=True)
class SearchSettings:
    """Choices of the search that are not part of a query."""

    utilization_targets: tuple[float, ...] = (0.4, 0.7)
    """Utilisation that a deployment may be sized to."""
    usable_link_share: float = USABLE_LINK_SHARE
    """Share of a link's bandwidth that plans may take together."""
    tolerance: float = 0.002
    """Latencies that differ by less than this share of the query's limit count as equal; 0: the frontier is exact."""
    max_plans: int = 60
    """Most plans a frontier offers to the matching."""
    margin_tolerance: float = 0.05
    """A plan with more margin is kept where it gains this share of the latency limit, or accuracy, or costs so much
    less, compared with every other one; 0: what takes less of any resource is kept, too, and nothing is lost."""
    max_margin_plans: int = 12
    """Most plans with more margin that a frontier keeps beside the others; 0: they are not looked for."""
    max_labels: int = 20_000
    """Most partial plans of one configuration that are followed at a time; what is cut is counted."""
    near_misses: int = 3
    """Most near misses a frontier explains itself with; 0: the best plan so far is not sought either."""


DEFAULT_SETTINGS = SearchSettings()
