"""Promises of plans, checked independently: latencies in a simulation, mean accuracies, and capacities.

The simulation has another seed than the planner's, and hardware runs at its expected speed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.matching import Matching
from circinus.matching.simulation_check import simulation_inputs
from circinus.profiling import PipelineProfile
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model_builder import SimulationModel, build_model
from circinus.simulation.report import percentile_interval
from circinus.specification import Network, Specification

_SEED = 97
_REQUESTS = 4_000
"""Mean number of simulated requests of the query with the lowest rate."""
_MAX_EXECUTIONS = 1_500_000
_CONFIRMING = 4
"""Factor of the requests that confirm a missed SLO, with another seed."""
_CONFIDENCE = 0.98
"""Confidence of both bounds; the limit is below the lower one with 99 % confidence."""
_WARM_UP = 0.1
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Promises:
    """Promises of a matching, and those that were broken."""

    latencies: int
    accuracies: int
    broken: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of promised SLOs."""
        return self.latencies + self.accuracies


def checked_promises(
    specification: Specification, profiles: Mapping[str, PipelineProfile], matching: Matching
) -> Promises:
    """Check all promises of a matching."""
    planned = simulation_inputs(specification, profiles, matching)
    slos = [one.query.slos for one in planned]
    broken = [*overfull(specification, matching), *filter(None, map(_inaccurate, planned))]
    if any(of_query.latency is not None for of_query in slos):
        network = Network(specification.required_infrastructure)
        late = set(_late(planned, matching, network, _REQUESTS, _SEED))
        if late:
            late &= set(_late(planned, matching, network, _CONFIRMING * _REQUESTS, _SEED + 1))
        broken += sorted(late)
    latencies, accuracies = (
        (
            sum(kind is not None for kind in kinds)
            for kinds in zip(*((s.latency, s.accuracy) for s in slos), strict=True)
        )
        if slos
        else (0, 0)
    )
    return Promises(latencies, accuracies, tuple(broken))


def _late(
    planned: Sequence[PlannedQuery], matching: Matching, network: Network, requests: int, seed: int
) -> Iterator[str]:
    """Yield the queries whose simulated latency misses the SLO with 99 % confidence."""
    replicas = {sized.deployment: sized.replicas for sized in matching.deployments}
    model = build_model(planned, replicas, network)
    duration_s = _duration_s(planned, model, requests)
    simulation = Simulation(model.stations, model.queries, duration_s=duration_s, seed=seed)
    simulation.run()
    for one, parts in zip(planned, model.parts, strict=True):
        slo, run = one.query.slos.latency, simulation.merged_run(parts)
        latency_s = run.latency_s[np.searchsorted(run.arrival_s, _WARM_UP * duration_s) :]
        if slo is None or not len(latency_s):
            continue
        bounds = percentile_interval(latency_s, one.query.slos.percentile, _CONFIDENCE)
        if not slo.is_met_by(bounds.lower):
            yield f"{one.query.name}: latency"


def _duration_s(planned: Sequence[PlannedQuery], model: SimulationModel, requests: int) -> float:
    rates_per_s = [one.query.rate_per_s for one in planned]
    visits_per_s = sum(rate * visits for rate, visits in zip(rates_per_s, model.visits_per_request, strict=True))
    return min(requests / min(rates_per_s), _MAX_EXECUTIONS / visits_per_s)


def _inaccurate(planned: PlannedQuery) -> str | None:
    """Return the query if the bound of its mean accuracy, by shares, or of one part misses the SLO."""
    slo = planned.query.slos.accuracy
    if slo is None:
        return None
    bounds = [slo.worst(profile.accuracy) for profile in planned.profiles]
    mean = sum(part.share * bound for part, bound in zip(planned.plan.parts, bounds, strict=True))
    compared = [mean] if planned.query.accuracy_of == "mean" else bounds
    is_met = all(slo.margin(bound) >= -_TOLERANCE for bound in compared)
    return None if is_met else f"{planned.query.name}: accuracy"


def overfull(specification: Specification, matching: Matching) -> Iterator[str]:
    """Yield the nodes and links whose capacity is exceeded, and the pools that need more nodes than are paid."""
    infrastructure, taken = (
        specification.required_infrastructure,
        defaultdict[tuple[str, int], np.ndarray](lambda: np.zeros(4)),
    )
    for sized in matching.deployments:
        for node in sized.nodes:
            taken[sized.deployment.pool, node] += sized.demand.amounts
    for (name, node), amounts in taken.items():
        pool = infrastructure.pool(name)
        if node >= matching.nodes.get(name, pool.nodes) or np.any(amounts > np.array(pool.amounts) * (1 + _TOLERANCE)):
            yield f"pool {name}, node {node}"
    traffic = defaultdict[str, float](float)
    for assignment in matching.assignments:
        for link in assignment.chosen.links:
            traffic[link.link.name] += link.bytes_per_s / link.link.bandwidth_bytes_per_s
    for name, share in traffic.items():
        if share > infrastructure.usable_link_share * (1 + _TOLERANCE):
            yield f"link {name}"
