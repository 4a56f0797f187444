"""One operator in one pool under one allocation: what it takes, how long requests wait for it and how long it works."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.errors import PlanningError
from circinus.estimation.conditions import Conditions, replicas_for, whole_replicas
from circinus.estimation.demand import replica_demand
from circinus.estimation.estimate import DeploymentUse
from circinus.estimation.percentiles import Percentile
from circinus.estimation.traffic import Traffic
from circinus.profiling import OperatorProfile
from circinus.queueing.formulas import Amount, Wait, waiting
from circinus.spec import Allocation, Deployment, OperatorSpec, Pool, Query

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Stage:
    """One operator of one plan."""

    use: DeploymentUse
    node_s: FloatArray
    """(scenarios,) wait and service."""
    cautious_s: FloatArray
    """The same with the service time stretched by the allowance for few items."""
    mean_wait_s: float
    """Over the scenarios."""
    mean_service_s: float
    """Over the scenarios."""


def queue_name(operator: str) -> str:
    """What the draws for the waits at `operator` are called."""
    return f"operator {operator}"


def promised_wait(
    busy_replicas: Amount, batch_s: Amount, service_scv: Amount, batch_size: Amount, utilization_target: Amount
) -> Wait:
    """The wait at the utilisation target, with the replicas that a query needs alone. Arrays broadcast.

    Args:
        busy_replicas: mean number of replicas that the query's requests keep busy.
        batch_s: mean seconds of a full batch.
        service_scv: squared coefficient of variation of these.
        batch_size: most requests in a batch.
        utilization_target: in (0, 1).
    """
    replicas: Amount
    if isinstance(busy_replicas, float) and isinstance(utilization_target, float):
        replicas = float(replicas_for(busy_replicas, utilization_target))
    else:
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


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured of one operator: seconds for one item alone on the fewest CPUs."""

    scenarios_s: FloatArray
    mean_s: float
    square_s2: float
    allowance: float
    """At least 1: for the percentile of times measured on few items."""
    stretched_s: FloatArray
    """The scenarios with the allowance."""

    @classmethod
    def of(cls, profile: OperatorProfile, percentile: Percentile) -> _Measured:
        service_s = profile.service_s
        scenarios_s, allowance = service_s[percentile.grid.items(len(service_s))], percentile.allowance.of(service_s)
        return cls(
            scenarios_s,
            float(service_s.mean()),
            float((service_s**2.0).mean()),
            allowance,
            scenarios_s * allowance,
        )


class Stages:
    """The stages of all plans of one query, under any configuration."""

    def __init__(self, query: Query, percentile: Percentile) -> None:
        self._query = query
        self._percentile = percentile
        self._promised: dict[tuple[OperatorProfile, str, Allocation], Stage] = {}
        self._measured: dict[OperatorProfile, _Measured] = {}

    def stage(
        self,
        operator: OperatorSpec,
        profile: OperatorProfile,
        pool: Pool,
        allocation: Allocation,
        conditions: Conditions | None,
    ) -> Stage:
        """One operator in one pool, as promised or under `conditions`.

        Raises:
            PlanningError: the allocation was not profiled, or `conditions` lack the deployment.
        """
        if conditions is not None:
            return self._compute(operator, profile, pool, allocation, conditions)
        key = (profile, pool.name, allocation)
        stage = self._promised.get(key)
        if stage is None:
            stage = self._promised[key] = self._compute(operator, profile, pool, allocation, None)
        return stage

    def allowance(self, profile: OperatorProfile) -> float:
        """The factor on an operator's service times with which the percentile's bound keeps its risk."""
        return self._of(profile).allowance

    def _of(self, profile: OperatorProfile) -> _Measured:
        measured = self._measured.get(profile)
        if measured is None:
            measured = self._measured[profile] = _Measured.of(profile, self._percentile)
        return measured

    def _compute(
        self,
        operator: OperatorSpec,
        profile: OperatorProfile,
        pool: Pool,
        allocation: Allocation,
        conditions: Conditions | None,
    ) -> Stage:
        ratio = full_batch_ratio(profile, allocation.cpus, allocation.batch_size)
        slowdown = ratio / pool.hardware.promised_speed * profile.correction(pool.hardware)
        measured = self._of(profile)
        traffic = Traffic(self._query.rate_per_s, measured.mean_s * slowdown, measured.square_s2 * slowdown**2)
        use = DeploymentUse(
            deployment=Deployment(
                pipeline=self._query.pipeline,
                operator=operator.name,
                knobs=profile.prefix[operator.name],
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
            wait = loaded_wait(use.deployment, conditions)
        wait_s = wait.at(self._percentile.grid.exponentials(queue_name(operator.name)))
        service_s = measured.scenarios_s * slowdown
        return Stage(
            use=use,
            node_s=wait_s + service_s,
            cautious_s=wait_s + measured.stretched_s * slowdown,
            mean_wait_s=float(wait_s.mean()),
            mean_service_s=float(service_s.mean()),
        )


def loaded_wait(deployment: Deployment, conditions: Conditions) -> Wait:
    """The wait for a deployment under the merged load.

    Raises:
        PlanningError: `conditions` lack the deployment.
    """
    load = conditions.deployments.get(deployment)
    if load is None:
        raise PlanningError(
            f"deployment {deployment.name}: found no load for it, expected the merged load of every deployment of the "
            f"plan; merge this plan's candidate too"
        )
    return waiting(load.replicas, load.utilization, load.traffic.mean_s, load.traffic.scv, batch_size=load.batch_size)
