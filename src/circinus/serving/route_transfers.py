"""Transfers of the outputs of a route between sites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from circinus.errors import ServingError
from circinus.serving.engine import Route
from circinus.specification import DirectedLink, Network

INPUT = ""
"""Producer name of the pipeline input, which is produced at the source."""
RESULT = ""
"""Consumer name of the result, which is consumed at the source."""


@dataclass(frozen=True)
class RouteTransfer:
    """Transfer of an output to one site, shared by all its consumers there."""

    site: str
    path: tuple[DirectedLink, ...]
    """Links to cross; empty within one site."""
    consumers: tuple[str, ...]


def route_transfers(route: Route, network: Network) -> Mapping[str, tuple[RouteTransfer, ...]]:
    """Return the transfers of every output, by producer.

    Raises:
        ServingError: the network has no path between two sites of the route.
    """
    consumers: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    sites = {stage.operator: network.site_of(stage.deployment.pool) for stage in route.stages}
    for stage in route.stages:
        for producer in dict.fromkeys(stage.after or (INPUT,)):
            consumers[producer][sites[stage.operator]].append(stage.operator)
    for sink in route.sinks:
        consumers[sink][route.source].append(RESULT)
    sites[INPUT] = route.source
    return {
        producer: tuple(
            RouteTransfer(site, _path(network, sites[producer], site, route), tuple(names))
            for site, names in by_site.items()
        )
        for producer, by_site in consumers.items()
    }


def _path(network: Network, source: str, target: str, route: Route) -> tuple[DirectedLink, ...]:
    path = network.path(source, target)
    if path is None:
        raise ServingError(
            f"no link leads from site {source} to site {target}",
            code="route.no_path",
            location=f"query {route.query}",
            hint="Add links.",
        )
    return path
