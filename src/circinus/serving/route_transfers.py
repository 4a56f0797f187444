"""Where every output of a route goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from circinus.errors import ServingError
from circinus.serving.engine import Route
from circinus.specification import DirectedLink, Network

INPUT = ""
"""Stands among the producers for the input of the pipeline, which is produced at the source."""
RESULT = ""
"""Stands among the consumers for the result, which is consumed at the source."""


@dataclass(frozen=True)
class RouteTransfer:
    """One output on its way to one site, sent there once for all who consume it there."""

    site: str
    path: tuple[DirectedLink, ...]
    """Empty where producer and consumers are at one site."""
    consumers: tuple[str, ...]


def route_transfers(route: Route, network: Network) -> Mapping[str, tuple[RouteTransfer, ...]]:
    """By producer, where its output goes.

    Raises:
        ServingError: there is no way between two sites that the route connects.
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
