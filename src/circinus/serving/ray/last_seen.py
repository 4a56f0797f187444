"""What routers said last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from circinus.serving.engine import QueryStatus
from circinus.serving.ray.wire import ApplicationStatus, RouterConfig, RouterStatus


class RouterStatusCache:
    """What the router of each site said last of its deployments.

    Their counters only ever grow, unless a router begins anew: none may seem to have done so because it was too busy to
    answer once.
    """

    def __init__(self) -> None:
        """Nothing was said."""
        self._known: dict[str, ApplicationStatus] = {}

    def after(
        self, configs: Sequence[RouterConfig], seen: Mapping[str, RouterStatus], sites: Collection[str]
    ) -> dict[str, ApplicationStatus]:
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


def queries_of(seen: Collection[RouterStatus]) -> tuple[QueryStatus, ...]:
    """What became of the requests of every query, each once.

    Routers do not forget what they counted: of a query whose source is another site now, only its router is heard.
    """
    entering = [{route.query for route in found.config.routes} if found.config else set() for found in seen]
    anywhere = set().union(*entering)
    told = {
        found.query: found
        for observation, here in zip(seen, entering, strict=True)
        for found in observation.queries
        if found.query in here or found.query not in anywhere
    }
    return tuple(told.values())
