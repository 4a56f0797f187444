"""Re-profiling restricted to the parts that drifted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from circinus.arrays import FloatArray
from circinus.control.drift.audit_scores import Agreements
from circinus.control.drift.drift_tests import AccuracyMonitor, DriftAlarm, ServiceTimeMonitor
from circinus.control.drift.pipeline_reprofiler import reprofile_pipeline
from circinus.control.drift.recent_items import RecentItems
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.estimation.corrections import Corrections, learn_corrections
from circinus.profiling import (
    OperatorProfile,
    PipelineProfile,
    ServiceTimeObservation,
)
from circinus.specification import Configuration, Pipeline, QueryPlan, Specification


@dataclass(frozen=True)
class ReprofileResult:
    """Result of re-profiling."""

    profiles: Mapping[str, PipelineProfile]
    """Changed profiles by pipeline; all others stay as they were."""
    observations: tuple[ServiceTimeObservation, ...] = ()
    """Service-time observations for the profile store (`save_observations`)."""
    notes: tuple[str, ...] = ()
    """Descriptions of the measurements."""
    pending_reasons: tuple[str, ...] = ()
    """Reasons why some alarms cannot be re-profiled yet; retry those in `still_pending` later."""
    agreements: Agreements = field(default_factory=dict)
    """Agreements of pipelines with drifted data, in place of those of recorded outputs."""
    pipelines_with_data_drift: frozenset[str] = frozenset()
    """Pipelines that were measured on other items."""
    pipelines_without_truth: frozenset[str] = frozenset()
    """Pipelines of `pipelines_with_data_drift` whose scores are against the most accurate configuration's outputs."""

    def still_pending(self, moved: Iterable[DriftAlarm]) -> tuple[DriftAlarm, ...]:
        """Return the alarms that were not re-profiled yet."""
        if not self.pending_reasons:
            return ()
        return tuple(
            alarm
            for alarm in moved
            if isinstance(alarm.watch, AccuracyMonitor) and alarm.watch.pipeline not in self.pipelines_with_data_drift
        )

    def merged_agreements(self, agreements: Agreements) -> Agreements:
        """Return the expected agreements after re-profiling, given the previous ones."""
        retained = {key: scores for key, scores in agreements.items() if key[0] not in self.pipelines_with_data_drift}
        return {**retained, **self.agreements}


def reprofile(
    moved: Sequence[DriftAlarm],
    specification: Specification,
    plans: Mapping[str, Sequence[QueryPlan]],
    profiles: Mapping[str, PipelineProfile],
    live: RecentItems,
    answers: ReferenceRunner,
    *,
    time_s: float,
    clock: Callable[[], float],
    budget_s: float = 60.0,
    mode: str = "real",
) -> ReprofileResult:
    """Re-profile the parts that drifted. May take as long as the budget; call it in a thread.

    Drifted service times become correction factors of the operator on the hardware class, as learned from traffic
    (`circinus.estimation.corrections`); earlier observations are superseded. If the accuracy of a query drifted, its
    pipeline's data did: all configurations in use are measured on the items since then, and old items are discarded. An
    excess of late requests is not re-profiled: other plans may help, but no profile will.

    Args:
        moved: alarms.
        specification: pipelines and infrastructure.
        plans: query -> all plans that it may use.
        profiles: pipeline -> profile, with corrections.
        live: recent items.
        answers: runner of configurations.
        time_s: current time; seconds since 1970.
        clock: monotonic clock in seconds.
        budget_s: time budget for all pipelines; exceeded by at most one increment of 8 items.
        mode: mode of the engine's replicas: `real` or `replay`.
    """
    changed: dict[str, PipelineProfile] = {}
    candidates = [_observation(alarm, specification, profiles, time_s, mode) for alarm in moved]
    observations = [observation for observation in candidates if observation is not None]
    notes, pending, without_truth = [], [], set()
    agreements: dict[tuple[str, Configuration, Configuration], FloatArray] = {}
    if observations:
        learned = learn_corrections(observations, datetime.fromtimestamp(time_s, UTC), mode=mode)
        for name in dict.fromkeys(observation.pipeline for observation in observations):
            changed[name] = with_corrections(profiles[name], specification.pipelines[name], learned)
        notes += [
            f"{o.operator} on {o.hardware_class}: {math.exp(o.log_ratio):.3g} times the profiled service time"
            for o in observations
        ]
    since: dict[str, float] = {}
    for alarm in moved:
        if isinstance(alarm.watch, AccuracyMonitor):
            since[alarm.watch.pipeline] = min(since.get(alarm.watch.pipeline, math.inf), alarm.since_s)
    end_s = clock() + budget_s
    for remaining, (name, since_s) in zip(range(len(since), 0, -1), since.items(), strict=True):
        used = {plan.configuration for plans_of in plans.values() for plan in plans_of if plan.pipeline == name}
        share_s = (end_s - clock()) / remaining
        items = live.since(name, since_s)
        previous = changed.get(name, profiles[name])
        result = reprofile_pipeline(
            previous, specification.pipelines[name], used, items, answers, clock=clock, budget_s=share_s
        )
        if isinstance(result, str):
            pending.append(f"{name}: {result}")
            continue
        changed[name] = result.profile
        agreements |= result.agreements
        if result.reference is not None:
            without_truth.add(name)
        configurations = result.profile.configurations
        count = len(configurations[0].items)
        notes.append(f"{name}: {len(configurations)} configurations re-profiled on {count} recent items")
    return ReprofileResult(
        profiles=changed,
        observations=tuple(observations),
        notes=tuple(notes),
        pending_reasons=tuple(pending),
        agreements=agreements,
        pipelines_with_data_drift=frozenset(since) - {reason.partition(":")[0] for reason in pending},
        pipelines_without_truth=frozenset(without_truth),
    )


def _observation(
    alarm: DriftAlarm, specification: Specification, profiles: Mapping[str, PipelineProfile], time_s: float, mode: str
) -> ServiceTimeObservation | None:
    """Return the service time since the alarm relative to the uncorrected profile.

    None for other alarms, and for service times that are no longer in the profile.
    """
    watch = alarm.watch
    if not isinstance(watch, ServiceTimeMonitor) or watch.pipeline not in profiles or alarm.now <= 0:
        return None
    profile, pipeline = profiles[watch.pipeline], specification.pipelines[watch.pipeline]
    assert specification.infrastructure is not None, "plans require an infrastructure"
    pools = specification.infrastructure.pools
    hardware = next((pool.hardware for pool in pools if pool.hardware.name == watch.hardware_class), None)
    operators = (profiled.operators[watch.operator] for profiled in profile.configurations)
    operator = next((profiled for profiled in operators if profiled.prefix == watch.prefix), None)
    if hardware is None or operator is None:
        return None
    spec = pipeline.operator(watch.operator)
    speed = operator.speeds.guaranteed(hardware)
    uncorrected_s = float(operator.service_s.mean()) / speed
    standard_deviation = float(np.log(operator.service_s).std(ddof=1)) if len(operator.service_s) > 1 else 1.0
    return ServiceTimeObservation(
        at=datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds"),
        mode=mode,
        plan="",
        pipeline=pipeline.name,
        operator=watch.operator,
        uses=spec.uses,
        version=profile.code_versions.get(spec.uses, ""),
        knobs=watch.prefix[watch.operator],
        hardware_class=hardware.name,
        speed=speed,
        profiled_on=profile.machine,
        cpus=min(spec.cpus),
        batch_size=1,
        log_ratio=math.log(alarm.now / uncorrected_s),
        standard_error=standard_deviation / math.sqrt(max(alarm.values, 1)),
        requests=alarm.values,
        items=alarm.values,
    )


def with_corrections(profile: PipelineProfile, pipeline: Pipeline, learned: Corrections) -> PipelineProfile:
    """Return the profile with learned correction factors, which replace previous ones for their hardware class."""
    cache: dict[int, OperatorProfile] = {}  # configurations keep sharing operator profiles

    def corrected(operator: OperatorProfile) -> OperatorProfile:
        if id(operator) not in cache:
            uses = pipeline.operator(operator.operator).uses
            entries = learned.of(uses, profile.code_versions.get(uses, ""), profile.machine)
            knobs = operator.prefix[operator.operator]
            factors = {entry.where: entry.factor.value for entry in entries if entry.knobs is None}
            factors |= {entry.where: entry.factor.value for entry in entries if entry.knobs == knobs}
            cache[id(operator)] = replace(operator, corrections={**operator.corrections, **factors})
        return cache[id(operator)]

    configurations = tuple(
        replace(
            configuration, operators={name: corrected(operator) for name, operator in configuration.operators.items()}
        )
        for configuration in profile.configurations
    )
    return replace(profile, configurations=configurations)
