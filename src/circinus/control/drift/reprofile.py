"""Measuring again what moved, and nothing else."""

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
    """What was measured again."""

    profiles: Mapping[str, PipelineProfile]
    """Those that changed; all others are as they were."""
    observations: tuple[ServiceTimeObservation, ...] = ()
    """Of service times, as the profile store takes them (`save_observations`)."""
    notes: tuple[str, ...] = ()
    """What was measured on what, in words."""
    pending_reasons: tuple[str, ...] = ()
    """What cannot be measured yet, and why; ask again with what `left_of` gives later."""
    agreements: Agreements = field(default_factory=dict)
    """Of the pipelines whose data moved: what was recorded of those before says nothing any more."""
    pipelines_with_data_drift: frozenset[str] = frozenset()
    """Pipelines that were measured on other items."""
    pipelines_without_truth: frozenset[str] = frozenset()
    """Those of them whose scores are against the answers of the most accurate configuration."""

    def still_pending(self, moved: Iterable[DriftAlarm]) -> tuple[DriftAlarm, ...]:
        """What of that which moved was not measured and waits: all else is done."""
        if not self.pending_reasons:
            return ()
        return tuple(
            one
            for one in moved
            if isinstance(one.watch, AccuracyMonitor) and one.watch.pipeline not in self.pipelines_with_data_drift
        )

    def merged_agreements(self, agreements: Agreements) -> Agreements:
        """All agreements to expect, given those to expect before."""
        kept = {key: scores for key, scores in agreements.items() if key[0] not in self.pipelines_with_data_drift}
        return {**kept, **self.agreements}


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
    """Measure again what moved. May take as long as the budget; call it in a thread.

    Service times that moved become factors on those of the operator on that hardware class, as traffic taught them
    (`circinus.estimation.corrections`); what was observed before counts no longer there. Where the accuracy of a query
    moved, its pipeline's data did: the configurations that any plan uses are measured anew on the items that came
    since, and old items count no longer. That more requests are late than promised is measured by nothing else: plans
    with other sizes may help, no profile will.

    Args:
        moved: what did.
        specification: pipelines, infrastructure.
        plans: query -> all plans that it may be on.
        profiles: pipeline -> what was measured, with corrections.
        live: items that came lately.
        answers: runs configurations on them.
        time_s: now; seconds since 1970.
        clock: seconds that never go back.
        budget_s: to measure for, over all pipelines; exceeded by at most one increment of 8 items.
        mode: how the engine's replicas answer: `real` or `replay`.
    """
    changed: dict[str, PipelineProfile] = {}
    seen = [_observation(one, specification, profiles, time_s, mode) for one in moved]
    observations = [one for one in seen if one is not None]
    notes, waits, without_truth = [], [], set()
    agreements: dict[tuple[str, Configuration, Configuration], FloatArray] = {}
    if observations:
        learnt = learn_corrections(observations, datetime.fromtimestamp(time_s, UTC), mode=mode)
        for name in dict.fromkeys(one.pipeline for one in observations):
            changed[name] = with_corrections(profiles[name], specification.pipelines[name], learnt)
        notes += [
            f"{one.operator} on {one.hardware_class}: {math.exp(one.log_ratio):.3g} times the profiled seconds"
            for one in observations
        ]
    since: dict[str, float] = {}
    for one in moved:
        if isinstance(one.watch, AccuracyMonitor):
            since[one.watch.pipeline] = min(since.get(one.watch.pipeline, math.inf), one.since_s)
    end_s = clock() + budget_s
    for left, (name, since_s) in zip(range(len(since), 0, -1), since.items(), strict=True):
        used = {plan.configuration for its in plans.values() for plan in its if plan.pipeline == name}
        allowed_s = (end_s - clock()) / left
        items = live.since(name, since_s)
        before = changed.get(name, profiles[name])
        found = reprofile_pipeline(
            before, specification.pipelines[name], used, items, answers, clock=clock, budget_s=allowed_s
        )
        if isinstance(found, str):
            waits.append(f"{name}: {found}")
            continue
        changed[name] = found.profile
        agreements |= found.agreements
        if found.against is not None:
            without_truth.add(name)
        measured = found.profile.configurations
        notes.append(f"{name}: {len(measured)} configurations on {len(measured[0].items)} items that came lately")
    return ReprofileResult(
        profiles=changed,
        observations=tuple(observations),
        notes=tuple(notes),
        pending_reasons=tuple(waits),
        agreements=agreements,
        pipelines_with_data_drift=frozenset(since) - {wait.partition(":")[0] for wait in waits},
        pipelines_without_truth=frozenset(without_truth),
    )


def _observation(
    moved: DriftAlarm, specification: Specification, profiles: Mapping[str, PipelineProfile], time_s: float, mode: str
) -> ServiceTimeObservation | None:
    """What was seen since it moved, over what the profile says without any corrections; None: of no service time, or
    of one that is not in the profile any more."""
    watch = moved.watch
    if not isinstance(watch, ServiceTimeMonitor) or watch.pipeline not in profiles or moved.now <= 0:
        return None
    profile, pipeline = profiles[watch.pipeline], specification.pipelines[watch.pipeline]
    assert specification.infrastructure is not None, "plans are made for one"
    pools = specification.infrastructure.pools
    hardware = next((pool.hardware for pool in pools if pool.hardware.name == watch.hardware_class), None)
    operators = (found.operators[watch.operator] for found in profile.configurations)
    operator = next((found for found in operators if found.prefix == watch.prefix), None)
    if hardware is None or operator is None:
        return None
    spec = pipeline.operator(watch.operator)
    promised = operator.speeds.guaranteed(hardware)
    plain_s = float(operator.service_s.mean()) / promised
    spread = float(np.log(operator.service_s).std(ddof=1)) if len(operator.service_s) > 1 else 1.0
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
        speed=promised,
        profiled_on=profile.machine,
        cpus=min(spec.cpus),
        batch_size=1,
        log_ratio=math.log(moved.now / plain_s),
        standard_error=spread / math.sqrt(max(moved.values, 1)),
        requests=moved.values,
        items=moved.values,
    )


def with_corrections(profile: PipelineProfile, pipeline: Pipeline, learnt: Corrections) -> PipelineProfile:
    """The profile with factors where some were learnt, in the place of those that it had there; others stay."""
    known: dict[int, OperatorProfile] = {}  # configurations that share a profile go on sharing it

    def corrected(operator: OperatorProfile) -> OperatorProfile:
        if id(operator) not in known:
            uses = pipeline.operator(operator.operator).uses
            entries = learnt.of(uses, profile.code_versions.get(uses, ""), profile.machine)
            own = operator.prefix[operator.operator]
            factors = {entry.where: entry.factor.value for entry in entries if entry.knobs is None}
            factors |= {entry.where: entry.factor.value for entry in entries if entry.knobs == own}
            known[id(operator)] = replace(operator, corrections={**operator.corrections, **factors})
        return known[id(operator)]

    configurations = tuple(
        replace(found, operators={name: corrected(operator) for name, operator in found.operators.items()})
        for found in profile.configurations
    )
    return replace(profile, configurations=configurations)
