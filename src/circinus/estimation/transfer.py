"""Transfers between sites: their times, and the load on links.

A value crosses the links of its path one after the other. On each link it waits for earlier values (M/G/1: first come,
first served, one at a time, Poisson arrivals), is sent at full bandwidth, and arrives half a round trip later.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.estimation.estimate import LinkUse
from circinus.estimation.merged_load import ArrivalModel, MergedLoad, station_load
from circinus.estimation.percentiles import UNBOUNDED, MeasuredSample, MeasuredSamples
from circinus.estimation.traffic import RequestStream
from circinus.profiling import ConfigurationProfile
from circinus.queueing.station_model import LoadedStation
from circinus.queueing.waiting_time import Amount
from circinus.specification import DirectedLink, Network, OperatorSpec, Query

INPUT = ""
"""Name of the pipeline's input among the producers of values."""


def link_queue_key(link: DirectedLink) -> str:
    """Return the name of the random draws for waits at `link`."""
    return f"link {link.name}"


def path_between(network: Network, source: str, target: str, *, results: bool) -> tuple[DirectedLink, ...]:
    """Return the links that a value, or a result of the pipeline, crosses from site to site.

    Raises:
        PlanningError: there is no path.
    """
    path: tuple[DirectedLink, ...] | None = network.path(source, target, results=results)
    if path is None:
        raise PlanningError(
            f"no path of links takes {'results' if results else 'values'} from site {source} to site {target}",
            code="link.no_path",
            hint="Add a link, allow this traffic on the links between them, or place the operators elsewhere.",
        )
    return path


def link_station(traffic: RequestStream, utilization: float | None = None) -> LoadedStation:
    """Return the queueing model of a link, which sends one value after the other.

    The utilization is that of `traffic`, unless another one is given.
    """
    if utilization is not None and traffic.offered_load > 0:
        factor = float(pessimistic_link_factor(traffic.mean_factor, traffic.offered_load, utilization))
        traffic = replace(traffic.within(traffic.rate_per_s * utilization / traffic.offered_load), mean_factor=factor)
    return station_load(1, traffic)


def pessimistic_link_factor(mean_factor: Amount, busy: Amount, utilization: Amount) -> Amount:
    """Return the upper bound of the actual mean transmission time over the assumed one, for all values on a link.

    Args:
        mean_factor: upper bound for this query's values; those of other queries are assumed exact.
        busy: utilization of the link by this query.
        utilization: total utilization of the link.
    """
    return 1.0 + (mean_factor - 1.0) * np.minimum(busy / utilization, 1.0)


def link_wait_s(station: LoadedStation, exponentials: FloatArray) -> FloatArray:
    """Return (n,) the wait for a link at n draws."""
    if station.is_poisson:
        return station.wait(station.utilization).at(exponentials)
    return station.response().at(exponentials)[0]


def pessimistic_link_wait_s(station: LoadedStation, exponentials: FloatArray) -> FloatArray:
    """Return (n,) the wait with the longest mean transmission times (`LoadedStation.pessimistic`), or `UNBOUNDED`."""
    pessimistic = station.pessimistic()
    return np.full(len(exponentials), UNBOUNDED) if pessimistic is None else link_wait_s(pessimistic, exponentials)


def link_delay_s(link: DirectedLink, size_bytes: FloatArray, wait_s: FloatArray) -> FloatArray:
    """Return the time to cross a link: wait, transmission, half the round trip. The arguments broadcast."""
    return np.asarray(wait_s + size_bytes / link.bandwidth_bytes_per_s + link.one_way_s)


def destinations(
    order: Iterable[OperatorSpec], sinks: Iterable[str], sites: Mapping[str, str]
) -> Mapping[str, tuple[str, ...]]:
    """Return for every producer of a value (`INPUT` included) the distinct other sites that receive the value."""
    receivers: dict[str, dict[str, None]] = defaultdict(dict)
    for operator in order:
        for parent in operator.parents or (INPUT,):
            receivers[parent][sites[operator.name]] = None
    for sink in sinks:
        receivers[sink][sites[INPUT]] = None
    return {producer: tuple(s for s in targets if s != sites[producer]) for producer, targets in receivers.items()}


@dataclass(frozen=True, eq=False)
class Transfer:
    """Transfer time of a value between sites."""

    expected_and_pessimistic_s: FloatArray
    """(2, scenarios) times; in the second row at the upper bound of the links' load, which allows for small samples.
    (2, 1) zeros within a site."""
    mean_s: float


_NONE = Transfer(np.zeros((2, 1)), 0.0)


class TransferModel:
    """Model of the transfers of a query's plans, under any configuration."""

    def __init__(
        self,
        query: Query,
        network: Network,
        sinks: Collection[str],
        samples: MeasuredSamples,
    ) -> None:
        self._query = query
        self._sinks = sinks
        self._arrivals = ArrivalModel.of(query)
        self._network = network
        self._samples = samples
        self._usable_share = network.infrastructure.usable_link_share
        self._guaranteed: dict[tuple[MeasuredSample, tuple[DirectedLink, ...]], Transfer] = {}
        self._sent_s: dict[tuple[MeasuredSample, tuple[DirectedLink, ...]], FloatArray] = {}
        self._guaranteed_uses: dict[tuple[DirectedLink, tuple[MeasuredSample, ...]], LinkUse] = {}

    def sizes(self, profile: ConfigurationProfile) -> dict[str, MeasuredSample]:
        """Return the sizes of the values of every producer (`INPUT` included)."""
        sizes = {name: self._samples.of(operator.output_bytes) for name, operator in profile.operators.items()}
        return {INPUT: self._samples.of(profile.input_bytes, is_input=True)} | sizes

    def transfer(
        self, producer: str, sizes: MeasuredSample, source: str, target: str, conditions: MergedLoad | None
    ) -> Transfer:
        """Return the transfer time of a value of `producer` between sites.

        Raises:
            PlanningError: there is no path, or `conditions` lack a link.
        """
        if source == target:
            return _NONE
        path = self._path(producer, source, target)
        if conditions is not None:
            return self._compute(sizes, path, conditions)
        transfer = self._guaranteed.get((sizes, path))
        if transfer is None:
            transfer = self._guaranteed[sizes, path] = self._compute(sizes, path, None)
        return transfer

    def sent_s(
        self, producer: str, sizes: MeasuredSample, source: str, target: str
    ) -> tuple[tuple[DirectedLink, ...], FloatArray | float]:
        """Return the links that a value of `producer` crosses, and (n,) seconds without waits.

        Raises:
            PlanningError: there is no path.
        """
        if source == target:
            return (), 0.0
        path = self._path(producer, source, target)
        key = sizes, path
        if key not in self._sent_s:
            seconds = (link_delay_s(link, sizes.scenarios, np.zeros(1)) for link in path)
            self._sent_s[key] = np.sum(list(seconds), axis=0)
        return path, self._sent_s[key]

    def first_links(self, producer: str, source: str, targets: Iterable[str]) -> tuple[DirectedLink, ...]:
        """Return the distinct first links of the paths of a value of `producer` from a site to other sites.

        Raises:
            PlanningError: there is no path.
        """
        return tuple(dict.fromkeys(self._path(producer, source, target)[0] for target in targets))

    def _path(self, producer: str, source: str, target: str) -> tuple[DirectedLink, ...]:
        return path_between(self._network, source, target, results=producer in self._sinks)

    def link_uses(
        self,
        sizes: Mapping[str, MeasuredSample],
        sites: Mapping[str, str],
        sent_to: Mapping[str, tuple[str, ...]],
        *,
        guaranteed: bool,
    ) -> tuple[LinkUse, ...]:
        """Return the query's usage of links if every producer at `sites` sends to the sites in `sent_to`.

        Raises:
            PlanningError: for a guarantee, the usage of a link exceeds its usable share.
        """
        crossing: dict[DirectedLink, list[MeasuredSample]] = defaultdict(list)
        for producer, targets in sent_to.items():
            for target in targets:
                for link in self._path(producer, sites[producer], target):
                    crossing[link].append(sizes[producer])
        return tuple(self._link_use(link, tuple(sent), guaranteed) for link, sent in crossing.items())

    def _link_use(self, link: DirectedLink, sent: tuple[MeasuredSample, ...], guaranteed: bool) -> LinkUse:
        cached = self._guaranteed_uses.get((link, sent))
        if cached is not None:
            return cached
        rate_per_s = self._query.rate_per_s
        traffic = RequestStream.merged(self._traffic(link, size) for size in sent)
        if guaranteed and traffic.offered_load > self._usable_share * (1 + 1e-9):
            raise PlanningError(
                f"transfers of query {self._query.name} need {traffic.offered_load:.0%} of the bandwidth, of which "
                f"{self._usable_share:.0%} is usable",
                code="link.over_target",
                location=f"link {link.name}",
                hint="Place operators nearer to the source.",
            )
        mean_bytes = [sizes.moments[0] for sizes in sent]
        seconds = [size_bytes / link.bandwidth_bytes_per_s for size_bytes in mean_bytes]
        use = LinkUse(
            link,
            rate_per_s * sum(mean_bytes),
            traffic,
            excluding_smallest_s=sum(seconds) - min(seconds),
        )
        if guaranteed:
            self._guaranteed_uses[link, sent] = use
        return use

    def _traffic(self, link: DirectedLink, sizes: MeasuredSample) -> RequestStream:
        bandwidth, (mean_bytes, square_bytes2, cube_bytes3) = link.bandwidth_bytes_per_s, sizes.moments
        return self._arrivals.traffic(
            self._query.rate_per_s,
            mean_bytes / bandwidth,
            square_bytes2 / bandwidth**2,
            cube_bytes3 / bandwidth**3,
            first=sizes.is_input,
            mean_factor=sizes.mean_factor,
        )

    def _compute(
        self, sizes: MeasuredSample, path: tuple[DirectedLink, ...], conditions: MergedLoad | None
    ) -> Transfer:
        grid = self._samples.percentile.grid
        total_s = np.zeros((2, grid.count))
        queued = path if conditions is None else bottleneck_links(path, conditions)
        for link in path:
            wait_s: FloatArray = np.zeros((2, 1))
            if link in queued:
                if conditions is None:
                    station = link_station(self._traffic(link, sizes), self._usable_share)
                else:
                    station = link_station_under_load(link, conditions)
                draws = grid.exponentials(link_queue_key(link))
                wait_s = np.stack([link_wait_s(station, draws), pessimistic_link_wait_s(station, draws)])
            total_s += link_delay_s(link, sizes.scenarios, wait_s)
        return Transfer(total_s, float(total_s[0].mean()))


def bottleneck_links(path: Sequence[DirectedLink], conditions: MergedLoad) -> tuple[DirectedLink, ...]:
    """Return the links of a path at which values wait under the merged load; see `bottlenecks_of`.

    Raises:
        PlanningError: `conditions` lack a link.
    """
    return tuple(bottlenecks_of(path, {link: link_stream_under_load(link, conditions) for link in path}))


def bottlenecks_of(path: Sequence[DirectedLink], links: Mapping[DirectedLink, RequestStream]) -> Sequence[DirectedLink]:
    """Return the links of a path at which values wait under the merged transfers.

    Values that all cross the same sequence of links wait only at the narrowest of them, as if it were the first: they
    hardly wait before it, and arrive no faster than they are sent behind it. Exact for values of equal size (Friedman,
    Operations Research 13, 1965).
    """
    if len(path) == 1:
        return path
    flows = []
    for link in path:
        traffic = links[link]
        flows.append((traffic.offered_load, traffic.rate_per_s, traffic.offered_load * link.bandwidth_bytes_per_s))
    bottlenecks = []
    for index, (link, (busy, rate_per_s, bytes_per_s)) in enumerate(zip(path, flows, strict=True)):
        identical = [
            (its_busy, its_index)
            for its_index, (its_busy, its_rate, its_bytes) in enumerate(flows)
            if math.isclose(its_rate, rate_per_s) and math.isclose(its_bytes, bytes_per_s)
        ]
        if max(identical, key=lambda flow: (flow[0], -flow[1])) == (busy, index):
            bottlenecks.append(link)
    return tuple(bottlenecks)


def link_station_under_load(link: DirectedLink, conditions: MergedLoad) -> LoadedStation:
    """Return the queueing model of a link under the merged load.

    Raises:
        PlanningError: `conditions` lack the link.
    """
    return link_station(link_stream_under_load(link, conditions))


def link_stream_under_load(link: DirectedLink, conditions: MergedLoad) -> RequestStream:
    """Return the merged transfers on a link.

    Raises:
        PlanningError: `conditions` lack the link.
    """
    traffic = conditions.links.get(link)
    if traffic is None:
        raise PlanningError(
            "the merged load lacks this link of the plan",
            code="link.no_load",
            location=f"link {link.name}",
            hint="Merge the plan's candidate, too.",
        )
    return traffic
