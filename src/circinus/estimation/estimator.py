"""Estimating plans of one query under one configuration."""

from __future__ import annotations

from circinus.estimation.conditions import Conditions
from circinus.estimation.estimate import Candidate
from circinus.profiling import ConfigurationProfile
from circinus.spec import Network, Pipeline, Plan, Query

USABLE_LINK_SHARE = 0.7
"""Share of a link's bandwidth that plans may take together; promises are made at this utilisation."""


class Estimator:
    """Everything about one query and one configuration that does not depend on the plan, prepared once."""

    def __init__(
        self,
        query: Query,
        pipeline: Pipeline,
        profile: ConfigurationProfile,
        network: Network,
        *,
        usable_link_share: float = USABLE_LINK_SHARE,
    ) -> None:
        raise NotImplementedError

    def candidate(self, plan: Plan, conditions: Conditions | None = None) -> Candidate:
        """Estimate `plan`.

        Args:
            plan: of this query's pipeline and this profile's configuration.
            conditions: the load of all queries together, as `merge` makes it. Without it the estimate is the promise:
                every deployment at its utilisation target with the replicas the query alone would need, every link at
                its usable share.

        Raises:
            PlanningError: a pool, link or load is missing, or a deployment or link would be busy all the time.
        """
        raise NotImplementedError
