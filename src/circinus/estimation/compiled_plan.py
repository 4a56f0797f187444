"""Plans compiled for estimates at many sizes: their usage, and their guaranteed latency from the times at their queues.

The numbers are those of `Estimator.candidate` under a merged load. What depends on the query and the configuration
alone is computed once, so that an estimate takes some tens of microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation.estimate import DeploymentUse, LinkUse
from circinus.estimation.percentiles import UNBOUNDED, PercentileEstimator, ScenarioGrid
from circinus.estimation.stage_latency import ElementTimes, operator_queue_key, pessimistic_station_time
from circinus.estimation.traffic import RequestStream
from circinus.estimation.transfer import bottlenecks_of, link_queue_key, link_station, pessimistic_link_wait_s
from circinus.queueing.station_model import LoadedStation
from circinus.specification import Deployment, DirectedLink, QueryPlan


class QueueTimes:
    """Cache of the pessimistic times at stations and links, which all plans share."""

    def __init__(self) -> None:
        self._stations: dict[tuple[LoadedStation, str, ScenarioGrid], tuple[FloatArray, FloatArray | float]] = {}
        self._links: dict[tuple[RequestStream, DirectedLink, ScenarioGrid], FloatArray] = {}

    def at_station(
        self, station: LoadedStation, operator: str, grid: ScenarioGrid
    ) -> tuple[FloatArray, FloatArray | float]:
        """Return (n,) added seconds, and the factor of unbatched service times in multiples of a full batch's ratio."""
        key = station, operator, grid
        times = self._stations.get(key)
        if times is None:
            time = pessimistic_station_time(station, 1.0, grid.exponentials(operator_queue_key(operator)))
            times = self._stations[key] = time.added_s, time.factor
        return times

    def at_link(self, traffic: RequestStream, link: DirectedLink, grid: ScenarioGrid) -> FloatArray:
        """Return (n,) seconds that values wait for a link under its merged traffic."""
        key = traffic, link, grid
        wait_s = self._links.get(key)
        if wait_s is None:
            draws = grid.exponentials(link_queue_key(link))
            wait_s = self._links[key] = pessimistic_link_wait_s(link_station(traffic), draws)
        return wait_s


@dataclass(frozen=True, eq=False)
class CompiledTransfer:
    """Transfer of a value to the next operator, or back to the source."""

    producer: int
    """Position of the producer's finish time; 0 is the input."""
    path: tuple[DirectedLink, ...]
    """Links that the value crosses; empty within a site."""
    sent_s: FloatArray | float
    """(n,) transmission and propagation, without waits."""
    guaranteed_s: FloatArray | float
    """(n,) seconds with waits at the usable share of every link; `UNBOUNDED` if the query alone exceeds it."""


@dataclass(frozen=True, eq=False)
class CompiledOperator:
    """An operator of a plan."""

    deployment: Deployment
    inputs: tuple[CompiledTransfer, ...]
    service_s: FloatArray
    """(n,) service times of a full batch, inflated for few items."""
    elements: ElementTimes | None
    element_factor: float
    """Factor of the times of `elements`."""


@dataclass(frozen=True, eq=False)
class CompiledPlan:
    """A plan that is not split, or a part of a split plan."""

    plan: QueryPlan
    deployments: tuple[DeploymentUse, ...]
    """Usage of deployments, in topological order."""
    links: tuple[LinkUse, ...]
    transfer_cost_usd_per_h: float
    percentile: PercentileEstimator
    stages: tuple[CompiledOperator, ...]
    results: tuple[CompiledTransfer, ...]
    late: tuple[int, ...] | None
    """Scenarios that interruptions of nodes delay."""

    def composed_s(
        self,
        times: Sequence[tuple[FloatArray, FloatArray | float]],
        transfer_s: Callable[[CompiledTransfer], FloatArray | float],
    ) -> FloatArray:
        """Return (..., n) the latency in each scenario.

        Args:
            times: of each stage, (..., n) added seconds and the factor of its service times.
            transfer_s: returns the (n,) seconds of a transfer.
        """
        finish_s: list[FloatArray | float] = [0.0]
        for stage, (added_s, factor) in zip(self.stages, times, strict=True):
            ready_s = _latest(stage.inputs, finish_s, transfer_s)
            service_s = stage.service_s * factor
            if stage.elements is not None:
                service_s = np.maximum(service_s, stage.elements.min_s * stage.element_factor)
                added_s = np.where(stage.elements.has_run | (added_s >= UNBOUNDED), added_s, 0.0)
            finish_s.append(ready_s + added_s + service_s)
        latency_s = np.asarray(_latest(self.results, finish_s, transfer_s))
        if self.late is not None:
            latency_s = latency_s.copy()
            latency_s[..., list(self.late)] = UNBOUNDED
        return latency_s

    def latency_s(
        self,
        station_of: Callable[[Deployment], LoadedStation],
        links: Mapping[DirectedLink, RequestStream],
        times: QueueTimes,
    ) -> FloatArray:
        """Return (n,) the latency in each scenario at the upper bounds of service times and loads."""
        grid = self.percentile.grid

        def transfer_s(transfer: CompiledTransfer) -> FloatArray | float:
            seconds = transfer.sent_s
            for link in bottlenecks_of(transfer.path, links):
                seconds = seconds + times.at_link(links[link], link, grid)
            return seconds

        at_stages = [
            times.at_station(station_of(stage.deployment), stage.deployment.operator, grid) for stage in self.stages
        ]
        return self.composed_s(at_stages, transfer_s)

    def bound_s(
        self,
        station_of: Callable[[Deployment], LoadedStation],
        links: Mapping[DirectedLink, RequestStream],
        times: QueueTimes,
    ) -> float:
        """Return the upper bound of the latency's percentile, as `Estimate.latency_s` has it."""
        return self.percentile.guaranteed_s(self.latency_s(station_of, links, times))


def _latest(
    inputs: tuple[CompiledTransfer, ...],
    finish_s: list[FloatArray | float],
    transfer_s: Callable[[CompiledTransfer], FloatArray | float],
) -> FloatArray | float:
    """Return (..., n) the arrival of the last input."""
    arrivals_s = [finish_s[transfer.producer] + transfer_s(transfer) for transfer in inputs]
    return arrivals_s[0] if len(arrivals_s) == 1 else reduce(np.maximum, arrivals_s)
