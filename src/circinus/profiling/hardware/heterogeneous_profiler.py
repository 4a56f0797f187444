"""Profiling a pipeline where it is to run: in full on one hardware class, as little as tells speeds on the others."""

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
"""Of a budget that the first profile may take: verdicts stand on declared speeds before any are measured."""


class HardwareClassBackend(Protocol):
    """Measures on a node of one hardware class."""

    @property
    def machine(self) -> Machine:
        """The node's."""
        ...

    def operator_runner(self, there: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[OperatorRunner]:
        """What measures there. An operator that takes longer than `timeout_s` has failed."""
        ...


@dataclass(frozen=True, eq=False)
class HeterogeneousProfile:
    """A profile, and what was measured on every other hardware class in the same run."""

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
    """Profile a pipeline on one machine and tell from it how fast its operators are on every hardware class.

    Outputs and scores are the same everywhere and come from the profile. On each other class every operator that may
    run there runs with each of its knob values that the profile has, on a few of the same items
    (`circinus.profiling.hardware.class_times`); then the profile goes on with these speeds, and so by turns until nothing is
    wanting or the budget is spent. What the store knows is not measured again.

    Args:
        specification: has the pipeline, its queries and the infrastructure.
        pipeline_name: which pipeline.
        store: file; made if there is none.
        reference: where the profile is made, of the class `local`.
        classes: name of a hardware class -> where it is measured; None: its declared speed stands.
        explorer: makes what says which configurations are worth measuring; where it makes None, all are.
        budget_s: seconds to spend on all classes together; None: no limit.
        seed: of the order of the items.
        observer: is told of progress and failures.
        clock: seconds that pass; None: those of the reference.
        exhaustive: as of `profile_pipeline`.
        skip_lost_nodes: whether to go on without the classes whose nodes are lost meanwhile.

    Raises:
        ProfileError: as `profile_pipeline`; `NodeLostError`: a node was lost and its class has no other. What was
            committed stays, and the next call goes on from there.
        OperatorError: as `profile_pipeline`.
    """
    clock = clock or reference.clock
    budget, observer = TimeBudget(budget_s, clock), observer or SilentObserver()
    wanted = _operators_by_class(specification, pipeline_name)

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

    measured_on = {name: source for name, source in classes.items() if source is not None and name in wanted}
    profile = profiled(None if budget_s is None else budget_s * (_FIRST_SHARE if measured_on else 1.0))
    declared = tuple(HardwareClassReport(name, None) for name in wanted if classes.get(name) is None and name != LOCAL)
    if not measured_on or profile.interrupted:
        return HeterogeneousProfile(profile, declared)
    pipeline = specification.pipelines[pipeline_name]
    here = reference.addresses(pipeline, reference.machine)
    dataset = reference.dataset(pipeline, seed)
    items = {item.key: item for item in dataset.items}
    with ProfileStore(store) as opened:
        stored = read_dataset(opened, here.dataset(), seed)
        if stored is None:
            raise ProfileError(f"{store}: the data set of pipeline {pipeline_name} was not stored; measure again")
        measurers, lost = {}, set[str]()
        for name, source in measured_on.items():
            there = here.for_hardware_class(name, source.machine)
            measurers[name] = HardwareClassProfiler(opened, there, name, source.machine, items, stored, wanted[name])
        try:
            while not profile.interrupted:
                any_measured = False
                for name, measurer in measurers.items():
                    if name not in lost and measurer.missing(profile) and budget.remaining_s > 0:
                        there = here.for_hardware_class(name, measured_on[name].machine)
                        try:
                            with measured_on[name].operator_runner(
                                there, timeout_s=operator_timeout_s(budget_s)
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
    """The hardware classes that a profile's operators may run on and were not all measured on: there the declared
    speed stands for some."""
    found = []
    for name, operators in _operators_by_class(specification, profile.pipeline).items():
        known = [measured.operators[operator].speeds.measured for measured in profile.usable for operator in operators]
        measured_there = bool(known) and all(name in speeds for speeds in known)
        if not (profile.on_pool if name == LOCAL else measured_there):
            found.append(name)
    return tuple(found)


def _operators_by_class(specification: Specification, pipeline_name: str) -> dict[str, list[str]]:
    """Name of a hardware class -> the operators that may run on it."""
    found: dict[str, list[str]] = {}
    for operator, classes in operator_hardware(specification, pipeline_name).items():
        for hardware in classes:
            found.setdefault(hardware.name, []).append(operator)
    return {name: list(dict.fromkeys(operators)) for name, operators in found.items()}
