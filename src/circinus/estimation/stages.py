"""One operator in one pool under one allocation: what it takes, how long requests wait for it and how long it works."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circinus.errors import PlanningError
from circinus.estimation.conditions import Conditions, whole_replicas
from circinus.estimation.demand import replica_demand
from circinus.estimation.estimate import DeploymentUse
from circinus.estimation.queueing import Wait, waiting
from circinus.estimation.scenarios import ScenarioGrid
from circinus.estimation.traffic import Traffic
from circinus.profiling import ConfigurationProfile, OperatorProfile
from circinus.spec import Allocation, Deployment, OperatorSpec, Pipeline, Pool, Query

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stage:
    """One operator of one plan."""

    use: DeploymentUse
    wait_s: FloatArray
    """(scenarios,)"""
    service_s: FloatArray
    """(scenarios,)"""


def queue_name(operator: str) -> str:
    """What the draws for the waits at `operator` are called."""
    return f"operator {operator}"


def promised_wait(
    busy_replicas: ArrayLike, batch_s: ArrayLike, service_scv: ArrayLike, batch_size: int, utilization_target: float
) -> Wait:
    """The wait at the utilisation target, with the replicas that a query needs alone. Arguments broadcast.

    Args:
        busy_replicas: mean number of replicas that the query's requests keep busy.
        batch_s: mean seconds of a full batch.
        service_scv: squared coefficient of variation of these.
        batch_size: most requests in a batch.
        utilization_target: in (0, 1).
    """
    replicas = whole_replicas(busy_replicas, utilization_target)
    return waiting(replicas, utilization_target, batch_s, service_scv, batch_size=batch_size)


def full_batch_ratio(profile: OperatorProfile, cpus: float, batch_size: int) -> float:
    """Seconds of a full batch over those of one of its items, as profiled.

    Raises:
        PlanningError: the profile does not have this allocation.
    """
    ratio = profile.batch_ratio.get((cpus, batch_size))
    if ratio is None:
        known = ", ".join(f"{c:g} CPUs with batches of {b}" for c, b in sorted(profile.batch_ratio))
        raise PlanningError(
            f"operator {profile.operator}: found an allocation of {cpus:g} CPUs with batches of {batch_size}, expected "
            f"one that was profiled ({known}); profile the pipeline again"
        )
    return ratio


class Stages:
    """The stages of all plans of one query under one configuration."""

    def __init__(self, query: Query, pipeline: Pipeline, profile: ConfigurationProfile, grid: ScenarioGrid) -> None:
        self._query = query
        self._pipeline = pipeline
        self._profile = profile
        self._grid = grid
        self._items = grid.items(len(profile.items))
        self._promised: dict[tuple[str, str, Allocation], Stage] = {}

    def stage(self, operator: OperatorSpec, pool: Pool, allocation: Allocation, conditions: Conditions | None) -> Stage:
        """One operator in one pool, as promised or under `conditions`.

        Raises:
            PlanningError: the allocation was not profiled, or `conditions` lack the deployment.
        """
        if conditions is not None:
            return self._compute(operator, pool, allocation, conditions)
        key = (operator.name, pool.name, allocation)
        if key not in self._promised:
            self._promised[key] = self._compute(operator, pool, allocation, None)
        return self._promised[key]

    def _compute(
        self, operator: OperatorSpec, pool: Pool, allocation: Allocation, conditions: Conditions | None
    ) -> Stage:
        profile = self._profile.operators[operator.name]
        ratio = full_batch_ratio(profile, allocation.cpus, allocation.batch_size)
        batch_s = profile.service_s * (ratio / pool.hardware.relative_speed)
        traffic = Traffic(self._query.rate_per_s, float(batch_s.mean()), float((batch_s**2).mean()))
        use = DeploymentUse(
            deployment=Deployment(
                pipeline=self._pipeline.name,
                operator=operator.name,
                knobs=self._profile.configuration[operator.name],
                pool=pool.name,
                allocation=allocation,
            ),
            demand=replica_demand(operator, pool, allocation.cpus, profile.peak_memory_bytes),
            busy_replicas=traffic.busy / allocation.batch_size,
            traffic=traffic,
        )
        if conditions is None:
            wait = promised_wait(
                use.busy_replicas, traffic.mean_s, traffic.scv, allocation.batch_size, allocation.utilization_target
            )
        else:
            wait = _loaded_wait(use.deployment, conditions)
        return Stage(use, wait.at(self._grid.exponentials(queue_name(operator.name))), batch_s[self._items])


def _loaded_wait(deployment: Deployment, conditions: Conditions) -> Wait:
    load = conditions.deployments.get(deployment)
    if load is None:
        raise PlanningError(
            f"deployment {deployment.name}: found no load for it, expected the merged load of every deployment of the "
            f"plan; merge this plan's candidate too"
        )
    return waiting(load.replicas, load.utilization, load.traffic.mean_s, load.traffic.scv, batch_size=load.batch_size)
