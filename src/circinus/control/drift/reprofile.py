"""Re-profiling restricted to the parts that drifted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from circinus.control.drift.audit_scores import RecentItems
from circinus.control.drift.drift_tests import AccuracyMonitor, DriftAlarm, RunsMonitor, ServiceTimeMonitor
from circinus.control.drift.pipeline_reprofiler import reprofile_pipeline
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.errors import ProfileError
from circinus.estimation.corrections import learn_corrections
from circinus.profiling import PipelineProfile, ServiceTimeObservation
from circinus.specification import QueryPlan, Specification


@dataclass(frozen=True)
class DriftOutcome:
    """Result of re-profiling."""

    overrides: ProfileOverrides = field(default_factory=ProfileOverrides)
    """Changed profiles; all others stay as they were."""
    observations: tuple[ServiceTimeObservation, ...] = ()
    """Service-time observations for the profile store (`save_observations`)."""
    settled: tuple[DriftAlarm, ...] = ()
    """Alarms that were dealt with."""
    item_counts: Mapping[str, tuple[DriftAlarm, int]] = field(default_factory=dict)
    """Pipeline with drifted data -> its first alarm, and the number of items since then."""
    pending: Mapping[str, str] = field(default_factory=dict)
    """Pipeline with drifted data -> reason why it cannot be re-profiled yet."""


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
) -> DriftOutcome:
    """Re-profile the parts that drifted. May take as long as the budget; call it in a thread.

    Drifted service times become correction factors of the operator on the hardware class, as learned from traffic
    (`circinus.estimation.corrections`); earlier observations are superseded. If the accuracy of a query drifted, or the
    number of an operator's runs, its pipeline's data did: all configurations in use are measured on the items since
    then, and old items are discarded. An excess of late requests is not re-profiled: other plans may help, but no
    profile will.

    The budget for all pipelines is exceeded by at most one increment of 8 items.
    """
    candidates = [_observation(alarm, specification, profiles, time_s, mode) for alarm in moved]
    observations = [observation for observation in candidates if observation is not None]
    learned = learn_corrections(observations, datetime.fromtimestamp(time_s, UTC), mode=mode)
    overrides = ProfileOverrides(
        profiles={
            name: learned.applied_to(profiles[name], specification.pipelines[name], keep_others=True)
            for name in dict.fromkeys(observation.pipeline for observation in observations)
        },
        notes=tuple(
            f"{o.operator} on {o.hardware_class}: {math.exp(o.log_ratio):.2f} times the profiled service time"
            for o in observations
        ),
    )
    earliest: dict[str, DriftAlarm] = {}
    for alarm in moved:
        if isinstance(alarm.watch, AccuracyMonitor | RunsMonitor):
            name = alarm.watch.pipeline
            earliest[name] = min(earliest.get(name, alarm), alarm, key=lambda each: each.since_s)
    end_s, pending = clock() + budget_s, {}
    item_counts: dict[str, tuple[DriftAlarm, int]] = {}
    for remaining, (name, alarm) in zip(range(len(earliest), 0, -1), earliest.items(), strict=True):
        items = live.since(name, alarm.since_s)
        try:
            of_pipeline = reprofile_pipeline(
                overrides.profiles.get(name, profiles[name]),
                specification.pipelines[name],
                {plan.configuration for plans_of in plans.values() for plan in plans_of if plan.pipeline == name},
                items,
                answers,
                clock=clock,
                budget_s=(end_s - clock()) / remaining,
            )
        except ProfileError as error:
            pending[name] = error.message
            continue
        overrides, item_counts[name] = overrides.merged_with(of_pipeline, {}), (alarm, len(items))
    settled = (
        a for a in moved if not isinstance(a.watch, AccuracyMonitor | RunsMonitor) or a.watch.pipeline not in pending
    )
    return DriftOutcome(overrides, tuple(observations), tuple(settled), item_counts, pending)


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
    pools = specification.required_infrastructure.pools
    hardware = next((pool.hardware for pool in pools if pool.hardware.name == watch.hardware_class), None)
    operators = (profiled.operators[watch.operator] for profiled in profile.configurations)
    operator = next((profiled for profiled in operators if profiled.prefix == watch.prefix), None)
    if hardware is None or operator is None:
        return None
    spec = pipeline.operator(watch.operator)
    speed = operator.speeds.guaranteed(hardware)
    uncorrected_s = float(operator.run_s.mean()) / speed
    standard_deviation = float(np.log(operator.run_s).std(ddof=1)) if len(operator.run_s) > 1 else 1.0
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
