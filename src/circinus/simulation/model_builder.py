"""Conversion of plans to stations and visits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.estimation.latest_start import latest_starts_s
from circinus.estimation.stage_latency import batch_time_ratios
from circinus.estimation.transfer import INPUT, destinations, path_between
from circinus.profiling import ConfigurationProfile
from circinus.queueing.arrivals import ArrivalProcess
from circinus.queueing.event_arrays import offsets
from circinus.queueing.fcfs import Station
from circinus.simulation.model import QueryModel, Visit
from circinus.simulation.task_graph import RESULT_CONSUMER, Carrier, task_graph
from circinus.specification import Deployment, DirectedLink, LatePolicy, Network, Pipeline, Query, QueryPlan


@dataclass(frozen=True, eq=False)
class PlannedQuery:
    """Query with its plan and the profiles of the plan's configurations."""

    query: Query
    pipeline: Pipeline
    plan: QueryPlan
    profile: ConfigurationProfile
    arrivals: ArrivalProcess
    cost_usd_per_h: float = 0.0
    """Planned cost."""
    other_profiles: tuple[ConfigurationProfile, ...] = ()
    """Profiles of `plan.others`, in their order."""

    @property
    def profiles(self) -> tuple[ConfigurationProfile, ...]:
        """Profiles of the parts of the plan."""
        return (self.profile, *self.other_profiles)

    @property
    def parts(self) -> tuple[PlannedQuery, ...]:
        """The query under each part of the plan; itself if the plan is not split."""
        if not self.plan.is_split:
            return (self,)
        return tuple(
            replace(self, plan=part.plan, profile=profile, other_profiles=())
            for part, profile in zip(self.plan.parts, self.profiles, strict=True)
        )

    @property
    def accuracy(self) -> float:
        """Mean accuracy of all requests under the plan."""
        parts = zip(self.plan.parts, self.profiles, strict=True)
        return sum(part.share * profile.accuracy.value for part, profile in parts)

    @property
    def scores(self) -> FloatArray:
        """(n,) scores of the items of all parts, see `QueryRun.merged`."""
        return np.concatenate([profile.scores for profile in self.profiles])


@dataclass(frozen=True, eq=False)
class SimulationModel:
    """Model of all planned queries."""

    stations: tuple[Station, ...]
    queries: tuple[QueryModel, ...]
    """Models of all parts of the first planned query, then those of the next one."""
    deployments: Mapping[Deployment, int]
    """Deployment -> index of its station."""
    links: Mapping[DirectedLink, int]
    """Direction of a link -> index of its station."""
    operators: tuple[Mapping[str, int], ...]
    """Operator -> index of its visit, for each of `queries`."""
    parts: tuple[range, ...]
    """Indexes of the models of each planned query: as many as its plan has parts."""

    @property
    def visits_per_request(self) -> tuple[float, ...]:
        """Mean number of visits of a request of each planned query."""
        models = [[self.queries[index] for index in indexes] for indexes in self.parts]
        return tuple(sum(model.share * model.visits_per_request for model in parts) for parts in models)


def build_model(
    planned: Sequence[PlannedQuery], replicas: Mapping[Deployment, int], network: Network, *, with_margins: bool = False
) -> SimulationModel:
    """Build the model: deployments and directions of links are stations, requests visit them along the plan's DAG.

    The rules are those of the local engine in replay mode, which tests compare request by request: an output is sent
    to each site once, for all operators there, link by link, each in order of arrival at full bandwidth (outputs of a
    batch in the order of the batch); an operator starts when all its inputs have arrived, among the waiting items in
    order of latest starts; the result is complete when the outputs of all sinks have arrived at the source. If a query
    drops late requests, its other items leave their queues with the dropped one; begun services and transfers end.
    Parts of a split plan divide the query's requests as routers do (`split_part`).

    Args:
        planned: the served queries.
        replicas: number of replicas of every deployment of the plans.
        network: network of the infrastructure.
        with_margins: whether operators run at their guaranteed instead of their expected speed.

    Raises:
        PlanningError: a deployment has no replicas, an allocation was not profiled, or there is no path between sites.
    """
    builder = _ModelBuilder(replicas, network, with_margins)
    shares = [tuple(part.share for part in one.plan.parts) for one in planned]
    queries = tuple(
        replace(builder.query(part), shares=its_shares, part=number)
        for one, its_shares in zip(planned, shares, strict=True)
        for number, part in enumerate(one.parts)
    )
    return SimulationModel(
        stations=tuple(builder.stations),
        queries=queries,
        deployments=builder.deployments,
        links=builder.links,
        operators=tuple(builder.operators),
        parts=tuple(range(*bounds) for bounds in pairwise(offsets(list(map(len, shares))).tolist())),
    )


class _ModelBuilder:
    def __init__(self, replicas: Mapping[Deployment, int], network: Network, guaranteed: bool) -> None:
        self._replicas = replicas
        self._network = network
        self._guaranteed = guaranteed
        self.stations: list[Station] = []
        self.deployments: dict[Deployment, int] = {}
        self.links: dict[DirectedLink, int] = {}
        self.operators: list[dict[str, int]] = []

    def query(self, planned: PlannedQuery) -> QueryModel:
        """Return the model of a query whose plan is not split, and add its stations."""
        pipeline, plan, profile = planned.pipeline, planned.plan, planned.profile
        order, sinks = pipeline.topological_order(), pipeline.sinks()
        pools = {pool.name: pool for pool in self._network.infrastructure.pools}
        source = planned.query.source
        sites = {INPUT: source} | {operator: pools[pool].site for operator, pool in plan.placement}
        sent_to = destinations(order, sinks, sites)
        latest_start_s = latest_starts_s(planned.query, pipeline, plan, profile, self._network)
        visits: list[Visit] = []
        available_after: dict[tuple[str, str], int | None] = {}
        """(producer, site) -> visit whose end makes the output available; None for the input at the source."""
        operators: dict[str, int] = {}
        factors: list[float] = []
        """Seconds of each visit over measured seconds or bytes."""
        carriers: dict[str, list[Carrier]] = {}

        def send(producer: str, produced_by: int | None, size_bytes: FloatArray) -> None:
            available_after[producer, sites[producer]] = produced_by
            receivers = [o.name for o in order if producer in (o.parents or (INPUT,))]
            receivers += [RESULT_CONSUMER] if producer in sinks else []
            carriers[producer] = [Carrier.of(sites[producer], receivers, sites)]
            for target in sent_to.get(producer, ()):
                last, first = produced_by, len(visits)
                for link in path_between(self._network, sites[producer], target, results=producer in sinks):
                    after = () if last is None else (last,)
                    seconds = size_bytes / link.bandwidth_bytes_per_s
                    factors.append(1 / link.bandwidth_bytes_per_s)
                    visits.append(Visit(self._link(link), after, seconds, link.one_way_s))
                    last = len(visits) - 1
                available_after[producer, target] = last
                path = path_between(self._network, sites[producer], target, results=producer in sinks)
                links = [(first + k, link.one_way_s) for k, link in enumerate(path)]
                carriers[producer].append(Carrier.of(target, receivers, sites, links))

        send(INPUT, None, profile.input_bytes)
        for operator in order:
            measured = profile.operators[operator.name]
            pool = pools[plan.pool_of(operator.name)]
            allocation = plan.allocation_of(operator.name)
            inputs = [available_after[parent, pool.site] for parent in operator.parents or (INPUT,)]
            after = tuple(dict.fromkeys(visit for visit in inputs if visit is not None))
            ratios = batch_time_ratios(measured, pool.hardware, allocation.cpus, allocation.batch_size)
            station = self._deployment(plan.deployment_of(operator.name), ratios, operator.batch_wait_s)
            # The station has the ratios of its first query; scale the service times of other queries to their own.
            scale = ratios[-1] / self.stations[station].batch_time_ratios[-1]
            speed = (measured.speeds.guaranteed if self._guaranteed else measured.speeds.expected)(pool.hardware)
            scale *= measured.correction(pool.hardware) / speed
            service_s = measured.service_s * scale
            factors.append(scale)
            visits.append(Visit(station, after, service_s, latest_start_s=latest_start_s[operator.name]))
            operators[operator.name] = len(visits) - 1
            send(operator.name, len(visits) - 1, measured.output_bytes)
        self.operators.append(operators)
        results = (available_after[sink, source] for sink in sinks)
        sink_visits = tuple(dict.fromkeys(visit for visit in results if visit is not None))
        tasks = None
        if any(measured.runs is not None for measured in profile.operators.values()):
            ways = tuple((producer, tuple(its_ways)) for producer, its_ways in carriers.items())
            nodes = tuple(operator.flow for operator in order)
            tasks = task_graph(profile, nodes, sinks, ways, tuple(operators.items())).scaled(factors)
        return QueryModel(
            planned.query.name,
            planned.arrivals,
            len(profile.items),
            tuple(visits),
            sink_visits,
            planned.query.late is LatePolicy.DROP,
            tasks=tasks,
        )

    def _deployment(self, deployment: Deployment, ratios: tuple[float, ...], wait_s: float) -> int:
        if deployment not in self.deployments:
            replicas = self._replicas.get(deployment, 0)
            if replicas < 1:
                raise PlanningError(
                    "the deployment has no replicas",
                    code="deployment.no_replica",
                    location=f"deployment {deployment.name}",
                    hint="Run `circinus plan` again.",
                )
            self.deployments[deployment] = len(self.stations)
            self.stations.append(Station(deployment.name, replicas, ratios, wait_s if len(ratios) > 1 else 0.0))
        return self.deployments[deployment]

    def _link(self, link: DirectedLink) -> int:
        if link not in self.links:
            self.links[link] = len(self.stations)
            self.stations.append(Station(link.name, 1))
        return self.links[link]
