"""How long values take from site to site, and what they put on the links.

A value crosses the links of its path one after the other. On each it waits for those before it (first come, first
served, one at a time, Poisson arrivals: M/G/1), is sent at full bandwidth, and arrives half a round trip later.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circinus.errors import PlanningError
from circinus.estimation.estimate import LinkUse
from circinus.estimation.merged_load import ArrivalModel, MergedLoad, station_load
from circinus.estimation.percentiles import UNBOUNDED, PercentileEstimator
from circinus.estimation.traffic import RequestStream
from circinus.profiling import ConfigurationProfile
from circinus.queueing.station_model import LoadedStation
from circinus.queueing.waiting_time import Amount
from circinus.specification import DirectedLink, Network, OperatorSpec, Query

FloatArray = NDArray[np.floating]

INPUT = ""
"""Stands for the pipeline's input among the names of the operators that send their output."""


def link_queue_key(link: DirectedLink) -> str:
    """What the draws for the waits at `link` are called."""
    return f"link {link.name}"


def path_between(network: Network, source: str, target: str) -> tuple[DirectedLink, ...]:
    """The links that a value crosses from site to site.

    Raises:
        PlanningError: there is no way.
    """
    path: tuple[DirectedLink, ...] | None = network.path(source, target)
    if path is None:
        raise PlanningError(
            f"found no way from site {source} to site {target}, expected a path of links; add a link or place the "
            f"operators elsewhere",
            code="link.no_path",
        )
    return path


def link_station(traffic: RequestStream, utilization: float | None = None) -> LoadedStation:
    """A link as a queue: it sends one value after the other.

    Args:
        traffic: the values, and the seconds that they hold the link.
        utilization: share of the time that the link is busy; None: as busy as `traffic` makes it.
    """
    if utilization is not None and traffic.offered_load > 0:
        factor = float(pessimistic_link_factor(traffic.mean_factor, traffic.offered_load, utilization))
        traffic = replace(traffic.within(traffic.rate_per_s * utilization / traffic.offered_load), mean_factor=factor)
    return station_load(1, traffic)


def pessimistic_link_factor(mean_factor: Amount, busy: Amount, utilization: float) -> Amount:
    """What the mean seconds of all values on a link may come to, where those of the other queries are known.

    Args:
        mean_factor: of this query's values.
        busy: share of the time for which they hold the link.
        utilization: that for which all hold it.
    """
    return 1.0 + (mean_factor - 1.0) * np.minimum(busy / utilization, 1.0)


def link_wait_s(station: LoadedStation, exponentials: FloatArray) -> FloatArray:
    """(n,) the wait for a link at n draws."""
    if station.is_poisson:
        return station.wait(station.utilization).at(exponentials)
    return station.response().at(exponentials)[0]


def pessimistic_link_wait_s(station: LoadedStation, exponentials: FloatArray) -> FloatArray:
    """The same if values take as long as they may; `UNBOUNDED` where that cannot be told (`StationLoad.slower`)."""
    slower = station.pessimistic()
    return np.full(len(exponentials), UNBOUNDED) if slower is None else link_wait_s(slower, exponentials)


def link_delay_s(link: DirectedLink, size_bytes: FloatArray, wait_s: FloatArray) -> FloatArray:
    """Seconds to cross one link: the wait, the sending, half the round trip. The arguments broadcast."""
    return np.asarray(wait_s + size_bytes / link.bandwidth_bytes_per_s + link.one_way_s)


def destinations(
    order: Iterable[OperatorSpec], sinks: Iterable[str], sites: Mapping[str, str]
) -> Mapping[str, tuple[str, ...]]:
    """For every producer of a value (`INPUT` included) the other sites that it is sent to, each once.

    Args:
        order: the operators.
        sinks: those whose output goes back to the source.
        sites: producer -> its site; that of `INPUT` is the source.
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for operator in order:
        for parent in operator.after or (INPUT,):
            found[parent][sites[operator.name]] = None
    for sink in sinks:
        found[sink][sites[INPUT]] = None
    return {producer: tuple(s for s in targets if s != sites[producer]) for producer, targets in found.items()}


@dataclass(frozen=True, eq=False)
class Transfer:
    """One value on its way from site to site."""

    both_s: FloatArray
    """(2, scenarios) seconds, in the second row where links are as loaded as few items allow them to be; (2, 1) zeros
    within a site."""
    mean_s: float


_NONE = Transfer(np.zeros((2, 1)), 0.0)


@dataclass(frozen=True, eq=False)
class PayloadSizes:
    """What one producer sends."""

    measured_bytes: FloatArray
    """(n,) as profiled."""
    scenarios_bytes: FloatArray
    mean_bytes: float
    square_bytes2: float
    cube_bytes3: float
    mean_factor: float
    """At least 1: what the mean of all may be over that of few items."""
    first: bool
    """Whether they come straight from the source."""

    @classmethod
    def of(cls, measured_bytes: FloatArray, percentile: PercentileEstimator, *, first: bool) -> PayloadSizes:
        """From the measured sizes (n,) of n items."""
        scenarios_bytes = measured_bytes[percentile.grid.items(len(measured_bytes))]
        mean, square, cube = (float((measured_bytes**power).mean()) for power in (1.0, 2.0, 3.0))
        factor = percentile.allowance.of_mean(measured_bytes)
        return cls(measured_bytes, scenarios_bytes, mean, square, cube, factor, first)


class TransferModel:
    """The transfers of all plans of one query, under any configuration."""

    def __init__(
        self, query: Query, network: Network, percentile: PercentileEstimator, usable_link_share: float
    ) -> None:
        self._query = query
        self._coming = ArrivalModel.of(query)
        self._network = network
        self._percentile = percentile
        self._usable_share = usable_link_share
        self._sizes: dict[int, PayloadSizes] = {}
        self._promised: dict[tuple[PayloadSizes, str, str], Transfer] = {}
        self._promised_uses: dict[tuple[DirectedLink, tuple[PayloadSizes, ...]], LinkUse] = {}

    def sizes(self, profile: ConfigurationProfile) -> dict[str, PayloadSizes]:
        """What every producer sends (`INPUT` included); configurations share what they share arrays of."""
        sent = {INPUT: profile.input_bytes} | {name: o.output_bytes for name, o in profile.operators.items()}
        found = {}
        for producer, measured_bytes in sent.items():
            known = self._sizes.get(id(measured_bytes))  # `Sizes` keeps the array, so its identity is not reused
            if known is None:
                known = self._sizes[id(measured_bytes)] = PayloadSizes.of(
                    measured_bytes, self._percentile, first=producer == INPUT
                )
            found[producer] = known
        return found

    def transfer(self, sizes: PayloadSizes, source: str, target: str, conditions: MergedLoad | None) -> Transfer:
        """The way of a value from site to site.

        Raises:
            PlanningError: there is no way, or `conditions` lack a link.
        """
        if source == target:
            return _NONE
        if conditions is not None:
            return self._compute(sizes, source, target, conditions)
        key = (sizes, source, target)
        transfer = self._promised.get(key)
        if transfer is None:
            transfer = self._promised[key] = self._compute(sizes, source, target, None)
        return transfer

    def first_links(self, source: str, targets: Iterable[str]) -> tuple[DirectedLink, ...]:
        """The links, each once, by which values leave a site for others.

        Raises:
            PlanningError: there is no way.
        """
        return tuple(dict.fromkeys(path_between(self._network, source, target)[0] for target in targets))

    def link_uses(
        self,
        sizes: Mapping[str, PayloadSizes],
        sites: Mapping[str, str],
        sent_to: Mapping[str, tuple[str, ...]],
        *,
        promise: bool,
    ) -> tuple[LinkUse, ...]:
        """What the query puts on the links when every producer at `sites` sends to the sites in `sent_to`.

        Raises:
            PlanningError: for a promise, a link would carry more than its usable share.
        """
        crossing: dict[DirectedLink, list[PayloadSizes]] = defaultdict(list)
        for producer, targets in sent_to.items():
            for target in targets:
                for link in path_between(self._network, sites[producer], target):
                    crossing[link].append(sizes[producer])
        return tuple(self._link_use(link, tuple(sent), promise) for link, sent in crossing.items())

    def _link_use(self, link: DirectedLink, sent: tuple[PayloadSizes, ...], promise: bool) -> LinkUse:
        known = self._promised_uses.get((link, sent))
        if known is not None:
            return known
        rate_per_s = self._query.rate_per_s
        traffic = RequestStream.merged(self._traffic(link, size) for size in sent)
        if promise and traffic.offered_load > self._usable_share * (1 + 1e-9):
            raise PlanningError(
                f"link {link.name}: found transfers for {traffic.offered_load:.0%} of its bandwidth by query "
                f"{self._query.name} alone, expected at most {self._usable_share:.0%}; place operators nearer to the "
                f"source",
                code="link.over_target",
            )
        seconds = [size.mean_bytes / link.bandwidth_bytes_per_s for size in sent]
        use = LinkUse(
            link,
            rate_per_s * sum(size.mean_bytes for size in sent),
            traffic,
            others_s=sum(seconds) - min(seconds),
        )
        if promise:
            self._promised_uses[link, sent] = use
        return use

    def _traffic(self, link: DirectedLink, sizes: PayloadSizes) -> RequestStream:
        """The query's values of one kind on a link."""
        bandwidth = link.bandwidth_bytes_per_s
        return self._coming.traffic(
            self._query.rate_per_s,
            sizes.mean_bytes / bandwidth,
            sizes.square_bytes2 / bandwidth**2,
            sizes.cube_bytes3 / bandwidth**3,
            first=sizes.first,
            mean_factor=sizes.mean_factor,
        )

    def _compute(self, sizes: PayloadSizes, source: str, target: str, conditions: MergedLoad | None) -> Transfer:
        grid = self._percentile.grid
        total_s = np.zeros((2, grid.count))
        path = path_between(self._network, source, target)
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
            total_s += link_delay_s(link, sizes.scenarios_bytes, wait_s)
        return Transfer(total_s, float(total_s[0].mean()))


def bottleneck_links(path: Sequence[DirectedLink], conditions: MergedLoad) -> tuple[DirectedLink, ...]:
    """The links of a path at which values wait, given the merged load.

    Values that all cross the same links one after the other wait at the narrowest of these alone, as if it were the
    first: before it they hardly wait, behind it they come no faster than they are sent on. Exact for values of one size
    (Friedman, Operations Research 13, 1965).

    Raises:
        PlanningError: `conditions` lack a link.
    """
    flows = []
    for link in path:
        traffic = link_stream_under_load(link, conditions)
        flows.append((traffic.offered_load, traffic.rate_per_s, traffic.offered_load * link.bandwidth_bytes_per_s))
    found = []
    for place, (link, (busy, rate_per_s, bytes_per_s)) in enumerate(zip(path, flows, strict=True)):
        alike = [
            (other, number)
            for number, (other, its_rate, its_bytes) in enumerate(flows)
            if math.isclose(its_rate, rate_per_s) and math.isclose(its_bytes, bytes_per_s)
        ]
        if max(alike, key=lambda one: (one[0], -one[1])) == (busy, place):
            found.append(link)
    return tuple(found)


def link_station_under_load(link: DirectedLink, conditions: MergedLoad) -> LoadedStation:
    """A link under the merged load.

    Raises:
        PlanningError: `conditions` lack the link.
    """
    return link_station(link_stream_under_load(link, conditions))


def link_stream_under_load(link: DirectedLink, conditions: MergedLoad) -> RequestStream:
    """The merged values on a link.

    Raises:
        PlanningError: `conditions` lack the link.
    """
    traffic = conditions.links.get(link)
    if traffic is None:
        raise PlanningError(
            f"link {link.name}: found no load for it, expected the merged load of every link of the plan; merge this "
            f"plan's candidate too",
            code="link.no_load",
        )
    return traffic
