"""Routes with all lookups done that do not depend on the request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import not_
from typing import Annotated

from pydantic import Field

from circinus.errors import ServingError
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.routes import Route, RouteStage
from circinus.specification import Deployment, DirectedLink, LatePolicy, Network
from circinus.specification.dataflow import Edge, FlowNode, Scope, output_scope, scopes

INPUT = ""
"""Producer name of the pipeline input, which is produced at the source."""
RESULT = ""
"""Consumer name of the result, which is consumed at the source."""

ElementPath = tuple[tuple[int, int], ...]
"""(index, number of elements) in each fan-out around a value, outermost first. The number is `EMPTY` for a note that
there are no elements, and `NO_LIST` for one that there is no list, both with index 0."""
EMPTY, NO_LIST = 0, -1


@dataclass(frozen=True)
class RouteTransfer:
    """Transfer of an output to one site, shared by all its consumers there."""

    site: str
    path: tuple[DirectedLink, ...]
    """Links to cross; empty within one site."""
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class RouteInput:
    """Input of an operator."""

    edges: tuple[Edge, ...]
    """Outputs of which at most one comes."""
    is_list: bool
    """Whether it is the list of all elements of a fan-out."""


@dataclass(frozen=True)
class CompiledStage:
    """Operator of a compiled route."""

    operator: str
    producers: tuple[str, ...]
    """Operators whose outputs it needs, in the order of its inputs, or the `INPUT`."""
    application: str
    """Name of the running deployment, unique among the versions of its operator."""
    recording: int | str | None
    """Id of the recordings that a replaying replica answers from."""
    prefix: str
    """Configuration hash of the `RouteStage.prefix`."""
    latest_start_s: float | None
    inputs: tuple[RouteInput, ...] = ()
    """Inputs in their order; empty in a route without fan-outs, where each producer is one and delivers one value."""
    emits_many: bool = False
    branches: tuple[str, ...] = ()

    @property
    def takes_one_value(self) -> bool:
        """Whether the operator runs for each value that it receives, without waiting for others."""
        if not self.inputs:
            return len(self.producers) == 1
        return len(self.inputs) == 1 and len(self.inputs[0].edges) == 1 and not self.inputs[0].is_list

    def receives(self, producer: str, branch: str | None) -> bool:
        """Return whether outputs of a producer with a branch are inputs."""
        edges = (edge for own in self.inputs for edge in own.edges if edge.operator == producer)
        return not self.inputs or any(edge.carries(branch) for edge in edges)

    def runs_always(self, others: Collection[str]) -> bool:
        """Return whether it runs for every request, as the `others` do."""
        inputs = [own.edges for own in self.inputs] or [(Edge(producer),) for producer in self.producers]
        return all(any(edge.branch is None and edge.operator in others for edge in edges) for edges in inputs)

    def path_of_run(self, producer: str, path: ElementPath) -> ElementPath:
        """Return the path of the run that takes an output with some path."""
        is_element = any(own.is_list and edge.operator == producer for own in self.inputs for edge in own.edges)
        return path[:-1] if is_element else path


@dataclass(frozen=True)
class CompiledRoute:
    """Part of a route with all information that routers on the way need; requests carry it from site to site."""

    query: str
    source: str
    stages: Mapping[str, CompiledStage]
    """Stages by operator, in topological order; empty while the query is paused."""
    sinks: tuple[str, ...]
    transfers: Mapping[str, tuple[RouteTransfer, ...]]
    """Transfers by producer."""
    configuration: str
    """Hash of the part's configuration."""
    late: LatePolicy
    rate_limit_per_s: float | None
    audit_rate: float
    part: int = 0
    """Index of the part of a split route."""
    share: float = 1.0
    """Share of the query's requests that take this part."""
    tenant: Annotated[str, Field(exclude_if=not_)] = ""
    """Owner of the query."""

    @classmethod
    def compile(
        cls,
        route: Route,
        network: Network,
        applications: Mapping[Deployment, str],
        recordings: Mapping[str, int] | Mapping[str, str],
        part: int = 0,
    ) -> CompiledRoute:
        """Look up applications and paths.

        Args:
            route: the route.
            network: sites and links.
            applications: deployment -> `CompiledStage.application`.
            recordings: operator -> `CompiledStage.recording`; empty if replicas compute.
            part: index of the part of a split route.

        Raises:
            ServingError: the network has no path between two sites of the route.
        """
        compiled = route.parts[part]
        nodes = tuple(stage.node for stage in compiled.stages)
        around = scopes(nodes)
        outputs = {node.name: output_scope(node, around[node.name]) for node in nodes}
        return cls(
            query=route.query,
            source=route.source,
            stages={
                stage.operator: CompiledStage(
                    operator=stage.operator,
                    producers=stage.after or (INPUT,),
                    application=applications[stage.deployment],
                    recording=recordings.get(stage.operator),
                    prefix=configuration_hash(stage.prefix),
                    latest_start_s=stage.latest_start_s,
                    inputs=() if stage.flow is None else _inputs(stage.flow, around, outputs),
                    emits_many=stage.node.emits_many,
                    branches=stage.node.branches,
                )
                for stage in compiled.stages
            },
            sinks=route.sinks,
            transfers=_transfers(route, compiled.stages, network),
            configuration=configuration_hash(compiled.configuration),
            late=route.late,
            rate_limit_per_s=route.rate_limit_per_s,
            audit_rate=route.audit_rate,
            part=part,
            share=compiled.share,
            tenant=route.tenant,
        )

    @property
    def is_paused(self) -> bool:
        """Whether requests wait for another route."""
        return not self.stages

    @property
    def is_replay(self) -> bool:
        """Whether replicas answer from recordings, without the values of the request."""
        return any(stage.recording is not None for stage in self.stages.values())

    @property
    def has_fan_outs(self) -> bool:
        """Whether operators may run never or several times for a request."""
        return any(stage.inputs for stage in self.stages.values())

    @property
    def applications(self) -> frozenset[str]:
        """Applications on the route."""
        return frozenset(stage.application for stage in self.stages.values())


def _inputs(node: FlowNode, around: Mapping[str, Scope], outputs: Mapping[str, Scope]) -> tuple[RouteInput, ...]:
    own = around[node.name]
    inputs = node.inputs or ((Edge(INPUT),),)
    return tuple(RouteInput(edges, outputs.get(edges[0].operator, ()) != own) for edges in inputs)


def _transfers(route: Route, stages: Sequence[RouteStage], network: Network) -> dict[str, tuple[RouteTransfer, ...]]:
    """Return the transfers of every output of a part of a route, by producer."""
    consumers: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    sites = {stage.operator: network.site_of(stage.deployment.pool) for stage in stages}
    for stage in stages:
        for producer in dict.fromkeys(stage.after or (INPUT,)):
            consumers[producer][sites[stage.operator]].append(stage.operator)
    for sink in route.sinks:
        consumers[sink][route.source].append(RESULT)
    sites[INPUT] = route.source
    return {
        producer: tuple(
            RouteTransfer(site, _path(network, producer, sites[producer], site, route), tuple(names))
            for site, names in by_site.items()
        )
        for producer, by_site in consumers.items()
    }


def _path(network: Network, producer: str, source: str, target: str, route: Route) -> tuple[DirectedLink, ...]:
    is_result = producer in route.sinks
    path = network.path(source, target, results=is_result)
    if path is None:
        raise ServingError(
            f"no path of links takes {'results' if is_result else 'values'} from site {source} to site {target}",
            code="route.no_path",
            location=f"query {route.query}",
            hint="Add links, or allow this traffic on those between the sites.",
        )
    return path
