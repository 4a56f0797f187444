"""Re-profiling of a pipeline on recent items."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from circinus.control.drift.audit_scores import AuditScore, most_accurate
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.errors import CircinusError, ProfileError
from circinus.operators import Item
from circinus.operators.pickling import unpickle_value
from circinus.profiling import MIN_ITEMS, ConfigurationProfile, PipelineProfile
from circinus.profiling.item_runs import ItemRuns
from circinus.profiling.measurement.runner import Measurement, OperatorRuns
from circinus.profiling.race.configuration_order import in_prefix_order
from circinus.profiling.race.run_confidence import per_sequence_alpha
from circinus.specification import Configuration, Pipeline, configuration_count
from circinus.statistics.betting import betting_bounds
from circinus.statistics.martingale import UNLIMITED

_INCREMENT = 8


@dataclass(frozen=True)
class _ItemRun:
    index: int
    """Index into the selected items."""
    measurement: Measurement
    agreement: float | None
    """Score against the reference's output; None if the metric rejects outputs as ground truth."""


@dataclass(frozen=True)
class _PipelineRunner:
    """Runner of configurations on items with the outputs of a reference configuration."""

    pipeline: Pipeline
    answers: ReferenceRunner
    reference: Configuration
    by_truth: bool
    """Whether the items have ground truth; otherwise the reference's outputs replace it."""

    def referenced(self, item: Item) -> Item:
        """Return the item with the reference's output as ground truth."""
        outputs = self.answers.answers(self.pipeline.name, self.reference, [item])
        truth: Any = self.pipeline.output({sink: unpickle_value(output[0]) for sink, output in outputs.items()})
        return replace(item, truth=truth)

    def run(self, index: int, configuration: Configuration, item: Item, referenced: Item) -> _ItemRun:
        """Measure a configuration on one item.

        Raises:
            CircinusError: the item failed.
        """
        measurement = self.answers.measure(self.pipeline.name, configuration, [item if self.by_truth else referenced])
        if not self.by_truth:
            return _ItemRun(index, measurement, measurement.scores[0])
        try:
            agreement = self.answers.measure(self.pipeline.name, configuration, [referenced]).scores[0]
        except CircinusError:
            return _ItemRun(index, measurement, None)
        return _ItemRun(index, measurement, agreement)


def reprofile_pipeline(
    profile: PipelineProfile,
    pipeline: Pipeline,
    configurations: Iterable[Configuration],
    items: Sequence[AuditScore],
    answers: ReferenceRunner,
    *,
    clock: Callable[[], float],
    budget_s: float,
) -> ProfileOverrides:
    """Return the overrides of a pipeline from recent items only.

    The requested configurations and the most accurate one are measured on identical items for half of the budget. The
    remaining profiled configurations follow one by one while time is left, most accurate first, because one of them may
    be needed if those in use no longer suffice.

    Loads, memory and the speed-ups of batches and CPUs are retained, as they do not depend on the data. Items with
    ground truth are used if there are enough; otherwise the most accurate configuration's outputs replace the ground
    truth, and accuracies mean agreement with it. Accuracy bounds are betting bounds at the joint risk of the profile,
    for an unlimited population; items are taken in an order independent of time.

    Unprofiled configurations are ignored. The budget is exceeded by at most one increment.

    Raises:
        ProfileError: the items or the profile do not permit it yet.
    """
    if answers.machine is not None and profile.machine is not None and answers.machine != profile.machine:
        raise ProfileError(
            f"profiled on {profile.machine}, so that service times on {answers.machine} are not comparable",
            code="reprofile.another_machine",
        )
    profiles = {profiled.configuration: profiled for profiled in profile.configurations}
    used = {configuration for configuration in configurations if configuration in profiles}
    if not used:
        raise ProfileError("no configuration in use is profiled", code="reprofile.not_profiled")
    reference = most_accurate(profile, pipeline.metric)
    labelled = [item for item in items if item.reference is None]
    by_truth = len(labelled) >= MIN_ITEMS
    selected = sorted(labelled if by_truth else items, key=_random_key)
    if len(selected) < MIN_ITEMS:
        raise ProfileError(
            f"{len(selected)} recent items; at least {MIN_ITEMS} are needed", code="reprofile.too_few_items"
        )
    runner = _PipelineRunner(pipeline, answers, reference, by_truth)
    runs = _measure(runner, {*used, reference}, selected, profiles, clock=clock, budget_s=budget_s)
    sizes = [None if recent.value is None else len(recent.value) for recent in selected]
    risk = per_sequence_alpha(profile.risk, len(runs))
    profiled = replace(
        profile,
        dataset_fingerprint=hashlib.sha256("/".join(item.item_key for item in selected).encode()).hexdigest(),
        dataset_items=UNLIMITED,
        held_out_items=0,
        configurations=tuple(
            _updated_profile(profiles[configuration], pipeline, configuration_runs, sizes, risk)
            for configuration, configuration_runs in runs.items()
        ),
        unmeasured=configuration_count(pipeline) - len(runs),
        failed=(),
        verdicts={},
        certificate=None,
        interrupted=False,
    )
    scores = {c: [run.agreement for run in of_c if run.agreement is not None] for c, of_c in runs.items()}
    return ProfileOverrides(
        profiles={pipeline.name: profiled},
        agreements={
            (pipeline.name, configuration, reference): np.array(agreements)
            for configuration, agreements in scores.items()
            if configuration != reference and len(agreements) == len(runs[configuration])
        },
        data_moved=frozenset({pipeline.name}),
        without_truth=frozenset() if by_truth else frozenset({pipeline.name}),
        notes=(f"{pipeline.name}: {len(runs)} configurations re-profiled on {len(runs[reference])} recent items",),
    )


def _measure(
    runner: _PipelineRunner,
    first: Collection[Configuration],
    selected: Sequence[AuditScore],
    profiles: Mapping[Configuration, ConfigurationProfile],
    *,
    clock: Callable[[], float],
    budget_s: float,
) -> dict[Configuration, list[_ItemRun]]:
    """Return the runs of `first` on identical items, then of the other profiled configurations while time is left.

    Raises:
        ProfileError: too few items were measured.
    """
    runs: dict[Configuration, list[_ItemRun]] = {c: [] for c in in_prefix_order(runner.pipeline, first)}
    measured: list[tuple[int, Item, Item]] = []
    failure, begin_s = "", clock()
    for index, recent in enumerate(selected):
        if index % _INCREMENT == 0 and len(measured) >= MIN_ITEMS and clock() > begin_s + budget_s / 2:
            break
        try:
            item = recent.item
            referenced = runner.referenced(item)
            item_runs = [runner.run(index, configuration, item, referenced) for configuration in runs]
        except CircinusError as error:  # skip the item for all, so that all are measured on equal items
            failure = str(error)
            continue
        measured.append((index, item, referenced))
        for configuration_runs, item_run in zip(runs.values(), item_runs, strict=True):
            configuration_runs.append(item_run)
    if len(measured) < MIN_ITEMS:
        raise ProfileError(
            f"only {len(measured)} of {len(selected)} items were measured: {failure}", code="reprofile.failed_items"
        )
    remaining = (configuration for configuration in profiles if configuration not in runs)
    for configuration in sorted(remaining, key=lambda c: _accuracy_key(profiles[c], runner.pipeline)):
        further: list[_ItemRun] = []
        try:
            for index, item, referenced in measured:
                if clock() > begin_s + budget_s:
                    break
                further.append(runner.run(index, configuration, item, referenced))
        except CircinusError:  # excluded, as in profiling
            continue
        if len(further) >= MIN_ITEMS:
            runs[configuration] = further
    return runs


def _accuracy_key(profile: ConfigurationProfile, pipeline: Pipeline) -> float:
    """Return the sort key by accuracy, best first."""
    mean = float(profile.scores.mean()) if len(profile.scores) else -math.inf
    return -mean if pipeline.metric.direction == "maximize" else mean


def _random_key(recent: AuditScore) -> str:
    """Return a pseudo-random sort key: sequential bounds need an order independent of time, in which items drift."""
    return hashlib.sha256(recent.item_key.encode()).hexdigest()


def _item_runs(runs: Sequence[OperatorRuns]) -> tuple[ItemRuns, ...] | None:
    """Return the runs for each of n items, each measured by itself; None if each had a single one."""
    if all(run.items is None for run in runs):
        return None
    return tuple(run.items[0] if run.items else ItemRuns.single(run.service_s[0], run.output_bytes[0]) for run in runs)


def _updated_profile(
    previous: ConfigurationProfile,
    pipeline: Pipeline,
    runs: Sequence[_ItemRun],
    sizes: Sequence[int | None],
    risk: float,
) -> ConfigurationProfile:
    low, high = pipeline.metric.range
    scores = np.array([run.measurement.scores[0] for run in runs])
    mean_bytes = float(previous.input_bytes.mean())
    operators = {}
    for name, operator in previous.operators.items():
        of_operator = [run.measurement.runs[name] for run in runs]
        operators[name] = replace(
            operator,
            service_s=np.array([run.service_s[0] for run in of_operator]),
            output_bytes=np.array([float(run.output_bytes[0]) for run in of_operator]),
            runs=_item_runs(of_operator),
        )
    return replace(
        previous,
        items=np.array([run.index for run in runs], dtype=np.int64),
        scores=scores,
        accuracy=betting_bounds(scores[None], UNLIMITED, risk=risk, low=low, high=high)[0],
        input_bytes=np.array([float(sizes[run.index] or mean_bytes) for run in runs]),
        operators=operators,
    )
