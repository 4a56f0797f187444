"""Profiling on all hardware classes of a pipeline: in full on one, and just enough for the speeds of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from circinus.errors import ProfileError
from circinus.profiling.budget import TimeBudget
from circinus.profiling.hardware.class_profiler import HardwareClassProfiler, HardwareClassReport
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.measurement.backend import MeasurementBackend
from circinus.profiling.measurement.runner import NodeLostError, OperatorRunner
from circinus.profiling.observer import ProfileObserver, SilentObserver
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.profiler import operator_timeout_s, profile_pipeline
from circinus.profiling.race.sampler import ConfigurationSampler
from circinus.profiling.race.slo_requirements import operator_hardware
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_dataset
from circinus.specification import Specification

_FIRST_SHARE = 0.5
"""Share of the budget for the first profile, whose verdicts rest on declared speeds."""


class HardwareClassBackend(Protocol):
    """Measurement backend on a node of one hardware class."""

    @property
    def machine(self) -> Machine:
        """Machine of the node."""
        ...

    def operator_runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[OperatorRunner]:
        """Return the runner on the node. An operator that takes longer than `timeout_s` fails."""
        ...


@dataclass(frozen=True, eq=False)
class HeterogeneousProfile:
    """Profile with the reports of the other hardware classes measured in the same run."""

    profile: PipelineProfile
    reports: tuple[HardwareClassReport, ...]


def profile_on_hardware_classes(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    reference: MeasurementBackend,
    classes: Mapping[str, HardwareClassBackend | None],
    explorer: Callable[[], ConfigurationSampler | None] = lambda: None,
    budget_s: float | None = None,
    seed: int = 0,
    observer: ProfileObserver | None = None,
    clock: Callable[[], float] | None = None,
    exhaustive: bool = False,
    skip_lost_nodes: bool = False,
) -> HeterogeneousProfile:
    """Profile a pipeline on one machine, and derive the speeds of its operators on every hardware class.

    Outputs and scores do not depend on the hardware and come from the profile. On each other class every operator that
    may run there is measured with each of its knob values in the profile, on a few of the items
    (`circinus.profiling.hardware.class_times`); then profiling continues with these speeds, and so on in turns until
    nothing is missing or the budget is spent. Stored measurements are reused.

    Args:
        specification: specification of the pipeline, its queries and the infrastructure.
        pipeline_name: name of the pipeline.
        store: store file, created if missing.
        reference: measurement backend of the profile, of class `local`.
        classes: measurement backend of each hardware class; None if its declared speed applies.
        explorer: factory of the sampler that selects the configurations to measure; all if it returns None.
        budget_s: time budget for all classes combined in seconds; None for no limit.
        seed: random seed of the measurement order.
        observer: observer of progress and failures.
        clock: current time in seconds; default: clock of the reference.
        exhaustive: see `profile_pipeline`.
        skip_lost_nodes: continue without the classes whose nodes are lost.

    Raises:
        ProfileError: see `profile_pipeline`; `NodeLostError` if the last node of a class was lost. Everything committed
            is retained, and the next call resumes from there.
        OperatorError: see `profile_pipeline`.
    """
    clock = clock or reference.clock
    budget, observer = TimeBudget(budget_s, clock), observer or SilentObserver()
    operators_by_class = _operators_by_class(specification, pipeline_name)

    def profiled(limit_s: float | None) -> PipelineProfile:
        return profile_pipeline(
            specification,
            pipeline_name,
            store,
            budget_s=limit_s,
            seed=seed,
            observer=observer,
            clock=clock,
            source=reference,
            explorer=explorer(),
            exhaustive=exhaustive,
        )

    measured_on = {
        name: source for name, source in classes.items() if source is not None and name in operators_by_class
    }
    profile = profiled(None if budget_s is None else budget_s * (_FIRST_SHARE if measured_on else 1.0))
    declared = tuple(
        HardwareClassReport(name, None) for name in operators_by_class if classes.get(name) is None and name != LOCAL
    )
    if not measured_on or profile.interrupted:
        return HeterogeneousProfile(profile, declared)
    pipeline = specification.pipelines[pipeline_name]
    keys = reference.addresses(pipeline, reference.machine)
    dataset = reference.dataset(pipeline, seed)
    items = {item.key: item for item in dataset.items}
    with ProfileStore(store) as opened:
        stored = read_dataset(opened, keys.dataset(), seed)
        if stored is None:
            raise ProfileError(
                f"the data set of pipeline {pipeline_name} is not stored",
                code="dataset.not_stored",
                location=str(store),
                hint="Measure again.",
            )
        measurers, lost = {}, set[str]()
        for name, source in measured_on.items():
            class_keys = keys.for_hardware_class(name, source.machine)
            measurers[name] = HardwareClassProfiler(
                opened, class_keys, name, source.machine, items, stored, operators_by_class[name]
            )
        try:
            while not profile.interrupted:
                any_measured = False
                for name, measurer in measurers.items():
                    if name not in lost and measurer.missing(profile) and budget.remaining_s > 0:
                        class_keys = keys.for_hardware_class(name, measured_on[name].machine)
                        try:
                            with measured_on[name].operator_runner(
                                class_keys, timeout_s=operator_timeout_s(budget_s)
                            ) as runner:
                                any_measured |= measurer.measure(profile, runner, budget, observer)
                        except NodeLostError:
                            if not skip_lost_nodes:
                                raise
                            lost.add(name)
                if not any_measured:
                    break
                profile = profiled(None if budget_s is None else budget.remaining_s)
        except KeyboardInterrupt:
            profile = replace(profile, interrupted=True)
        reports = tuple(measurer.report(profile) for measurer in measurers.values())
    return HeterogeneousProfile(profile, (*reports, *declared))


def classes_with_declared_speed(profile: PipelineProfile, specification: Specification) -> tuple[str, ...]:
    """Return the hardware classes on which some operator of a profile may run with a declared speed only."""
    classes = []
    for name, operators in _operators_by_class(specification, profile.pipeline).items():
        measured = [c.operators[operator].speeds.measured for c in profile.usable for operator in operators]
        all_measured = bool(measured) and all(name in speeds for speeds in measured)
        if not (profile.on_pool if name == LOCAL else all_measured):
            classes.append(name)
    return tuple(classes)


def _operators_by_class(specification: Specification, pipeline_name: str) -> dict[str, list[str]]:
    """Return the operators that may run on each hardware class, by its name."""
    by_class: dict[str, list[str]] = {}
    for operator, classes in operator_hardware(specification, pipeline_name).items():
        for hardware in classes:
            by_class.setdefault(hardware.name, []).append(operator)
    return {name: list(dict.fromkeys(operators)) for name, operators in by_class.items()}
