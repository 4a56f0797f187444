"""Measuring again what moved, and nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from circinus.control.answers import Answers
from circinus.control.audit_scores import most_accurate
from circinus.control.drift import AccuracyWatch, Moved, ServiceWatch
from circinus.control.live_items import LiveItem, LiveItems
from circinus.errors import CircinusError
from circinus.estimation.corrections import Corrections, learn_corrections
from circinus.operators import Item
from circinus.profiling import (
    LEAST_ITEMS,
    ConfigurationProfile,
    Observation,
    OperatorProfile,
    PipelineProfile,
)
from circinus.profiling.listing import in_prefix_order
from circinus.profiling.runner import Measurement
from circinus.profiling.sequences import betting_bounds, sequence_risk
from circinus.profiling.wire import unpacked
from circinus.spec import Configuration, Pipeline, Plan, Specification, configuration_count

_ENDLESS = 10**6
"""Items that may still come: those that came are hardly any of them."""
_INCREMENT = 8


@dataclass(frozen=True)
class Reprofiled:
    """What was measured again."""

    profiles: Mapping[str, PipelineProfile]
    """Those that changed; all others are as they were."""
    observations: tuple[Observation, ...] = ()
    """Of service times, as the profile store takes them (`save_observations`)."""
    notes: tuple[str, ...] = ()
    """What was measured on what, in words."""
    waits: tuple[str, ...] = ()
    """What cannot be measured yet, and why; ask again with the same `Moved` later."""


def reprofile(
    moved: Sequence[Moved],
    specification: Specification,
    plans: Mapping[str, Sequence[Plan]],
    profiles: Mapping[str, PipelineProfile],
    live: LiveItems,
    answers: Answers,
    *,
    time_s: float,
    clock: Callable[[], float],
    budget_s: float = 60.0,
    mode: str = "real",
) -> Reprofiled:
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
    observations = [
        _observation(one, one.watch, specification, profiles, time_s, mode)
        for one in moved
        if isinstance(one.watch, ServiceWatch) and one.watch.pipeline in profiles and one.now > 0 and one.before > 0
    ]
    notes, waits = [], []
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
        if isinstance(one.watch, AccuracyWatch):
            since[one.watch.pipeline] = min(since.get(one.watch.pipeline, math.inf), one.since_s)
    end_s = clock() + budget_s
    for left, (name, since_s) in zip(range(len(since), 0, -1), since.items(), strict=True):
        used = {plan.configuration for its in plans.values() for plan in its if plan.pipeline == name}
        allowed_s = (end_s - clock()) / left
        items = live.since(name, since_s)
        before = changed.get(name, profiles[name])
        found = remeasured(before, specification.pipelines[name], used, items, answers, clock=clock, budget_s=allowed_s)
        if isinstance(found, str):
            waits.append(f"{name}: {found}")
            continue
        changed[name] = found
        most = max(len(one.items) for one in found.configurations)
        notes.append(f"{name}: {len(found.configurations)} configurations on {most} items that came lately")
    return Reprofiled(changed, tuple(observations), tuple(notes), tuple(waits))


def _observation(
    moved: Moved,
    watch: ServiceWatch,
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    time_s: float,
    mode: str,
) -> Observation:
    """What was seen since it moved, over what the profile says without any corrections."""
    profile, pipeline = profiles[watch.pipeline], specification.pipelines[watch.pipeline]
    assert specification.infrastructure is not None, "plans are made for one"
    hardware = next(
        pool.hardware for pool in specification.infrastructure.pools if pool.hardware.name == watch.hardware_class
    )
    operator = next(
        found.operators[watch.operator]
        for found in profile.configurations
        if found.operators[watch.operator].prefix == watch.prefix
    )
    spec = pipeline.operator(watch.operator)
    plain_s = float(operator.service_s.mean()) / hardware.promised_speed
    spread = float(np.log(operator.service_s).std(ddof=1)) if len(operator.service_s) > 1 else 1.0
    return Observation(
        at=datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds"),
        mode=mode,
        plan="",
        pipeline=pipeline.name,
        operator=watch.operator,
        uses=spec.uses,
        version=profile.code_versions.get(spec.uses, ""),
        knobs=watch.prefix[watch.operator],
        hardware_class=hardware.name,
        speed=hardware.promised_speed,
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


def remeasured(
    profile: PipelineProfile,
    pipeline: Pipeline,
    configurations: Iterable[Configuration],
    items: Sequence[LiveItem],
    answers: Answers,
    *,
    clock: Callable[[], float],
    budget_s: float,
) -> PipelineProfile | str:
    """The profile of some configurations on items that came lately, and on no others; or why there is none.

    Loads, memory and what batches and CPUs gain stay as they were: they do not depend on the data. Items whose truth is
    known are taken where there are enough; otherwise the answers of the most accurate configuration stand for the
    truth, and accuracies then mean how well others agree with that one. Bounds of accuracies are betting bounds, of
    all of them together at the risk of the profile, for items drawn from as many as may come; they are taken in an
    order that has nothing to do with when they came.

    Args:
        profile: as it was.
        pipeline: which.
        configurations: of it; those that were not profiled are left out.
        items: that came lately, each key once.
        answers: runs configurations on them.
        clock: seconds that never go back.
        budget_s: to measure for; exceeded by at most one increment.
    """
    if answers.machine is not None and profile.machine is not None and answers.machine != profile.machine:
        return f"it was profiled on {profile.machine}, and this is {answers.machine}: service times would not compare"
    known = {found.configuration: found for found in profile.configurations}
    wanted = list(in_prefix_order(pipeline, {one for one in configurations if one in known}))
    if not wanted:
        return "none of the configurations in use was profiled"
    end_s = clock() + budget_s
    truthful = [item for item in items if item.against is None]
    reference = None if len(truthful) >= LEAST_ITEMS else most_accurate(profile, pipeline.metric)
    chosen = sorted(truthful if reference is None else items, key=_by_chance)
    if len(chosen) < LEAST_ITEMS:
        return f"found {len(chosen)} items that came since, expected {LEAST_ITEMS}"
    measured: dict[Configuration, list[tuple[int, Measurement]]] = {one: [] for one in wanted}
    failure = ""
    for begin in range(0, len(chosen), _INCREMENT):
        for number in range(begin, min(begin + _INCREMENT, len(chosen))):
            try:
                item = _with_truth(chosen[number], pipeline, reference, answers)
                found = [answers.measure(pipeline.name, one, [item]) for one in wanted]
            except CircinusError as error:  # on one of them: the others are known on the same items
                failure = str(error)
                continue
            for one, measurement in zip(wanted, found, strict=True):
                measured[one].append((number, measurement))
        if clock() > end_s and len(measured[wanted[0]]) >= LEAST_ITEMS:
            break
    if len(measured[wanted[0]]) < LEAST_ITEMS:
        return f"only {len(measured[wanted[0]])} of {len(chosen)} items could be measured: {failure}"
    bytes_of = [len(item.value) if item.value is not None else None for item in chosen]
    risk = sequence_risk(profile.risk, len(wanted))
    found_profiles = tuple(_profile(known[one], pipeline, measured[one], bytes_of, risk) for one in wanted)
    return replace(
        profile,
        dataset_fingerprint=hashlib.sha256("/".join(item.key for item in chosen).encode()).hexdigest(),
        dataset_items=_ENDLESS,
        held_out_items=0,
        configurations=found_profiles,
        unmeasured=configuration_count(pipeline) - len(wanted),
        failed=(),
        judgements={},
        certificate=None,
        interrupted=False,
    )


def _by_chance(live: LiveItem) -> str:
    """Items come in the order of time, in which they change; bounds that hold at every look are for any other order."""
    return hashlib.sha256(live.key.encode()).hexdigest()


def _with_truth(live: LiveItem, pipeline: Pipeline, reference: Configuration | None, answers: Answers) -> Item:
    item = live.item
    if reference is None:
        return item
    outputs = answers.answers(pipeline.name, reference, [item])
    return replace(item, truth=pipeline.output({sink: unpacked(found[0]) for sink, found in outputs.items()}))


def _profile(
    before: ConfigurationProfile,
    pipeline: Pipeline,
    measured: Sequence[tuple[int, Measurement]],
    bytes_of: Sequence[int | None],
    risk: float,
) -> ConfigurationProfile:
    low, high = pipeline.metric.range
    scores = np.array([found.scores[0] for _, found in measured])
    typical = float(before.input_bytes.mean())
    sizes = [bytes_of[number] for number, _ in measured]
    operators = {}
    for name, known in before.operators.items():
        operators[name] = replace(
            known,
            service_s=np.array([found.runs[name].service_s[0] for _, found in measured]),
            output_bytes=np.array([float(found.runs[name].output_bytes[0]) for _, found in measured]),
        )
    return replace(
        before,
        items=np.array([number for number, _ in measured], dtype=np.int64),
        scores=scores,
        accuracy=betting_bounds(scores[None], _ENDLESS, risk=risk, low=low, high=high)[0],
        input_bytes=np.array([typical if size is None else float(size) for size in sizes]),
        operators=operators,
    )
