"""What routers said last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from circinus.serving.ray.wire import ApplicationObservation, SiteConfig, SiteObservation


class LastSeen:
    """What the router of each site said last of its deployments.

    Their counters only ever grow, unless a router begins anew: none may seem to have done so because it was too busy to
    answer once.
    """

    def __init__(self) -> None:
        """Nothing was said."""
        self._known: dict[str, ApplicationObservation] = {}

    def after(
        self, configs: Sequence[SiteConfig], seen: Mapping[str, SiteObservation], sites: Collection[str]
    ) -> dict[str, ApplicationObservation]:
        """Application -> what was said last of it; of those only that are listed, and of which something was said.

        Args:
            configs: what lists them.
            seen: site -> what its router says now, of those that answer.
            sites: whose routers live; what waits at another one is gone.
        """
        now = {found.application: found for observation in seen.values() for found in observation.applications}
        found = {}
        for config in configs:
            for wanted in config.deployments:
                its = now.get(wanted.application, self._known.get(wanted.application))
                if its is not None:
                    found[wanted.application] = its if config.site in sites else replace(its, queue_length=0)
        self._known = found
        return found
