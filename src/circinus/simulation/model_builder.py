"""From plans to stations and visits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.estimation.batch_time_ratios import batch_time_ratios
from circinus.estimation.transfer import INPUT, destinations, path_between
from circinus.profiling import ConfigurationProfile
from circinus.queueing.arrivals import ArrivalProcess
from circinus.queueing.station import Station
from circinus.simulation.model import QueryModel, Visit
from circinus.specification import Deployment, DirectedLink, Network, Pipeline, Query, QueryPlan


@dataclass(frozen=True, eq=False)
class PlannedQuery:
    """A query, the plan it has, and what was measured of the plan's configuration."""

    query: Query
    pipeline: Pipeline
    plan: QueryPlan
    profile: ConfigurationProfile
    arrivals: ArrivalProcess
    cost_usd_per_h: float = 0.0
    """What it pays, as planned."""


@dataclass(frozen=True, eq=False)
class SimulationModel:
    """What a simulation runs."""

    stations: tuple[Station, ...]
    queries: tuple[QueryModel, ...]
    deployments: Mapping[Deployment, int]
    """Deployment -> its station."""
    links: Mapping[DirectedLink, int]
    """Direction of a link -> its station."""
    operators: tuple[Mapping[str, int], ...]
    """Of every query: operator -> its visit."""


def build_model(
    planned: Sequence[PlannedQuery], replicas: Mapping[Deployment, int], network: Network, *, promised: bool = False
) -> SimulationModel:
    """Deployments and the directions of links as stations, requests as visits along their plan's DAG.

    The same rules as of the local engine that replays, to which tests hold every request: an output is sent to each
    site once for all who take it there, link after link, each in order of arrival at full bandwidth (outputs of a
    batch in the order of the batch); an operator begins when all its inputs are there; the result is complete when all
    sinks' outputs are back at the source.

    Args:
        planned: the queries that are served.
        replicas: of every deployment that the plans use.
        network: where they run.
        promised: whether hardware is as fast as it surely is; else as far as it is known.

    Raises:
        PlanningError: a deployment has no replicas, an allocation was not profiled, or there is no way between sites.
    """
    building = _Building(replicas, network, promised)
    queries = tuple(building.query(one) for one in planned)
    return SimulationModel(
        stations=tuple(building.stations),
        queries=queries,
        deployments=building.deployments,
        links=building.links,
        operators=tuple(building.operators),
    )


class _Building:
    def __init__(self, replicas: Mapping[Deployment, int], network: Network, promised: bool) -> None:
        self._replicas = replicas
        self._network = network
        self._promised = promised
        self.stations: list[Station] = []
        self.deployments: dict[Deployment, int] = {}
        self.links: dict[DirectedLink, int] = {}
        self.operators: list[dict[str, int]] = []

    def query(self, planned: PlannedQuery) -> QueryModel:
        """The visits of one query, input first."""
        pipeline, plan, profile = planned.pipeline, planned.plan, planned.profile
        order, sinks = pipeline.topological_order(), pipeline.sinks()
        pools = {pool.name: pool for pool in self._network.infrastructure.pools}
        source = planned.query.source
        sites = {INPUT: source} | {operator: pools[pool].site for operator, pool in plan.placement}
        sent_to = destinations(order, sinks, sites)
        visits: list[Visit] = []
        at: dict[tuple[str, str], int | None] = {}
        """(producer, site) -> the visit after which the output is there; None: from the beginning."""
        operators: dict[str, int] = {}

        def send(producer: str, made_by: int | None, size_bytes: FloatArray) -> None:
            at[producer, sites[producer]] = made_by
            for target in sent_to.get(producer, ()):
                last = made_by
                for link in path_between(self._network, sites[producer], target):
                    after = () if last is None else (last,)
                    seconds = size_bytes / link.bandwidth_bytes_per_s
                    visits.append(Visit(self._link(link), after, seconds, link.one_way_s))
                    last = len(visits) - 1
                at[producer, target] = last

        send(INPUT, None, profile.input_bytes)
        for operator in order:
            measured = profile.operators[operator.name]
            pool = pools[plan.pool_of(operator.name)]
            allocation = plan.allocation_of(operator.name)
            inputs = [at[parent, pool.site] for parent in operator.after or (INPUT,)]
            after = tuple(dict.fromkeys(visit for visit in inputs if visit is not None))
            ratios = batch_time_ratios(measured, allocation.cpus, allocation.batch_size)
            station = self._deployment(plan.deployment_of(operator.name), ratios, operator.batch_wait_s)
            # Other queries of the deployment may have other ratios: what the station's lack is put into the seconds.
            scale = ratios[-1] / self.stations[station].batch_time_ratios[-1]
            speed = (measured.speeds.guaranteed if self._promised else measured.speeds.expected)(pool.hardware)
            scale *= measured.correction(pool.hardware) / speed
            visits.append(Visit(station, after, measured.service_s * scale))
            operators[operator.name] = len(visits) - 1
            send(operator.name, len(visits) - 1, measured.output_bytes)
        self.operators.append(operators)
        finals = tuple(dict.fromkeys(visit for sink in sinks if (visit := at[sink, source]) is not None))
        return QueryModel(planned.query.name, planned.arrivals, len(profile.items), tuple(visits), finals)

    def _deployment(self, deployment: Deployment, ratios: tuple[float, ...], wait_s: float) -> int:
        if deployment not in self.deployments:
            replicas = self._replicas.get(deployment, 0)
            if replicas < 1:
                raise PlanningError(
                    f"deployment {deployment.name}: found {replicas} replicas, expected at least one; plan again",
                    code="deployment.no_replica",
                )
            self.deployments[deployment] = len(self.stations)
            self.stations.append(Station(deployment.name, replicas, ratios, wait_s if len(ratios) > 1 else 0.0))
        return self.deployments[deployment]

    def _link(self, link: DirectedLink) -> int:
        if link not in self.links:
            self.links[link] = len(self.stations)
            self.stations.append(Station(link.name, 1))
        return self.links[link]
