"""Re-profiling of a pipeline on recent items."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from circinus.control.drift.audit_scores import Agreements, most_accurate
from circinus.control.drift.recent_items import AuditedItem
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.errors import CircinusError
from circinus.operators import Item
from circinus.profiling import MIN_ITEMS, ConfigurationProfile, PipelineProfile
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.profiling.measurement.runner import Measurement
from circinus.profiling.race.alpha_budget import per_sequence_alpha
from circinus.profiling.race.configuration_order import in_prefix_order
from circinus.specification import Configuration, Pipeline, configuration_count
from circinus.statistics.betting import UNLIMITED, betting_bounds

_INCREMENT = 8


@dataclass(frozen=True, eq=False)
class PipelineReprofile:
    """Result of re-profiling a pipeline."""

    profile: PipelineProfile
    reference: Configuration | None
    """Configuration whose outputs replaced the ground truth; None for true ground truth."""
    agreements: Agreements
    """Agreement of the configurations with the most accurate one."""


@dataclass(eq=False)
class _Measurements:
    """Measurements of one configuration so far."""

    items: list[int] = field(default_factory=list)
    """Indices into the selected items."""
    runs: list[Measurement] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    """Scores against the reference's outputs."""


def reprofile_pipeline(
    profile: PipelineProfile,
    pipeline: Pipeline,
    configurations: Iterable[Configuration],
    items: Sequence[AuditedItem],
    answers: ReferenceRunner,
    *,
    clock: Callable[[], float],
    budget_s: float,
) -> PipelineReprofile | str:
    """Return a profile on recent items only, or the reason why there is none.

    The requested configurations and the most accurate one are measured on identical items for half of the budget. The
    remaining profiled configurations follow one by one while time is left, most accurate first, because one of them may
    be needed if those in use no longer suffice.

    Loads, memory and the speed-ups of batches and CPUs are retained, as they do not depend on the data. Items with
    ground truth are used if there are enough; otherwise the most accurate configuration's outputs replace the ground
    truth, and accuracies mean agreement with it. Accuracy bounds are betting bounds at the joint risk of the profile,
    for an unlimited population; items are taken in an order independent of time.

    Args:
        profile: previous profile.
        pipeline: pipeline of the profile.
        configurations: configurations to measure first; unprofiled ones are ignored.
        items: recent items with distinct keys.
        answers: runner of configurations.
        clock: monotonic clock in seconds.
        budget_s: time budget; exceeded by at most one increment.
    """
    if answers.machine is not None and profile.machine is not None and answers.machine != profile.machine:
        return f"profiled on {profile.machine}, so that service times on {answers.machine} are not comparable"
    profiles = {profiled.configuration: profiled for profiled in profile.configurations}
    used = {configuration for configuration in configurations if configuration in profiles}
    if not used:
        return "no configuration in use is profiled"
    reference = most_accurate(profile, pipeline.metric)
    labelled = [item for item in items if item.reference is None]
    by_truth = len(labelled) >= MIN_ITEMS
    selected = sorted(labelled if by_truth else items, key=_random_key)
    if len(selected) < MIN_ITEMS:
        return f"{len(selected)} recent items; at least {MIN_ITEMS} are needed"
    measured = {configuration: _Measurements() for configuration in in_prefix_order(pipeline, {*used, reference})}
    referenced: list[Item] = []
    failure, begin_s = "", clock()
    for index, recent in enumerate(selected):
        if index % _INCREMENT == 0 and len(referenced) >= MIN_ITEMS and clock() > begin_s + budget_s / 2:
            break
        try:
            referenced.append(_measure(index, recent.item, pipeline, reference, answers, measured, by_truth=by_truth))
        except CircinusError as error:  # skip the item for all, so that all are measured on equal items
            failure = str(error)
    if len(referenced) < MIN_ITEMS:
        return f"only {len(referenced)} of {len(selected)} items were measured: {failure}"
    indices = measured[reference].items
    reference_items = [(index, selected[index].item, answer) for index, answer in zip(indices, referenced, strict=True)]
    remaining = sorted(
        (configuration for configuration in profiles if configuration not in measured),
        key=lambda configuration: _accuracy_key(profiles[configuration], pipeline),
    )
    for configuration in remaining:
        measurements = _measure_further(
            configuration, reference_items, pipeline, answers, clock, begin_s + budget_s, by_truth=by_truth
        )
        if len(measurements.items) >= MIN_ITEMS:
            measured[configuration] = measurements
    sizes = [None if recent.value is None else len(recent.value) for recent in selected]
    risk = per_sequence_alpha(profile.risk, len(measured))
    profiled = replace(
        profile,
        dataset_fingerprint=hashlib.sha256("/".join(item.key for item in selected).encode()).hexdigest(),
        dataset_items=UNLIMITED,
        held_out_items=0,
        configurations=tuple(
            _updated_profile(profiles[configuration], pipeline, measurements, sizes, risk)
            for configuration, measurements in measured.items()
        ),
        unmeasured=configuration_count(pipeline) - len(measured),
        failed=(),
        verdicts={},
        certificate=None,
        interrupted=False,
    )
    agreements = {
        (pipeline.name, configuration, reference): np.array(measurements.agreements)
        for configuration, measurements in measured.items()
        if configuration != reference and len(measurements.agreements) == len(measurements.items)
    }
    return PipelineReprofile(profiled, None if by_truth else reference, agreements)


def _measure(
    index: int,
    item: Item,
    pipeline: Pipeline,
    reference: Configuration,
    answers: ReferenceRunner,
    measured: dict[Configuration, _Measurements],
    *,
    by_truth: bool,
) -> Item:
    """Measure one item with all configurations or none; return the item with the reference's output as ground truth."""
    outputs = answers.answers(pipeline.name, reference, [item])
    answer: Any = pipeline.output({sink: unpickle_value(output[0]) for sink, output in outputs.items()})
    referenced = replace(item, truth=answer)
    runs = [
        answers.measure(pipeline.name, configuration, [item if by_truth else referenced]) for configuration in measured
    ]
    agreements: list[float | None] = [run.scores[0] for run in runs]
    if by_truth:
        agreements = [_agreement_score(pipeline, configuration, referenced, answers) for configuration in measured]
    for measurements, run, agreement in zip(measured.values(), runs, agreements, strict=True):
        measurements.items.append(index)
        measurements.runs.append(run)
        if agreement is not None:
            measurements.agreements.append(agreement)
    return referenced


def _measure_further(
    configuration: Configuration,
    reference_items: Sequence[tuple[int, Item, Item]],
    pipeline: Pipeline,
    answers: ReferenceRunner,
    clock: Callable[[], float],
    end_s: float,
    *,
    by_truth: bool,
) -> _Measurements:
    """Measure another configuration on as many items as time permits; return no measurements after a failure.

    Args:
        configuration: configuration to measure.
        reference_items: (index, item, item with the reference's output as ground truth) in the order of measurement.
        pipeline: pipeline of the configuration.
        answers: runner of configurations.
        clock: monotonic clock in seconds.
        end_s: deadline by `clock`.
        by_truth: whether the items have ground truth.
    """
    result = _Measurements()
    for index, item, referenced in reference_items:
        if clock() > end_s:
            break
        try:
            run = answers.measure(pipeline.name, configuration, [item if by_truth else referenced])
        except CircinusError:  # excluded, as in profiling
            return _Measurements()
        agreement = _agreement_score(pipeline, configuration, referenced, answers) if by_truth else run.scores[0]
        result.items.append(index)
        result.runs.append(run)
        if agreement is not None:
            result.agreements.append(agreement)
    return result


def _accuracy_key(profile: ConfigurationProfile, pipeline: Pipeline) -> float:
    """Return the sort key by accuracy, best first."""
    mean = float(profile.scores.mean()) if len(profile.scores) else -math.inf
    return -mean if pipeline.metric.direction == "maximize" else mean


def _agreement_score(
    pipeline: Pipeline, configuration: Configuration, referenced: Item, answers: ReferenceRunner
) -> float | None:
    """Return the score against the reference's output; None if the metric rejects outputs as ground truth."""
    try:
        return answers.measure(pipeline.name, configuration, [referenced]).scores[0]
    except CircinusError:
        return None


def _random_key(recent: AuditedItem) -> str:
    """Return a pseudo-random sort key: sequential bounds need an order independent of time, in which items drift."""
    return hashlib.sha256(recent.key.encode()).hexdigest()


def _updated_profile(
    previous: ConfigurationProfile,
    pipeline: Pipeline,
    measurements: _Measurements,
    sizes: Sequence[int | None],
    risk: float,
) -> ConfigurationProfile:
    low, high = pipeline.metric.range
    scores = np.array([run.scores[0] for run in measurements.runs])
    mean_bytes = float(previous.input_bytes.mean())
    operators = {}
    for name, operator in previous.operators.items():
        operators[name] = replace(
            operator,
            service_s=np.array([run.runs[name].service_s[0] for run in measurements.runs]),
            output_bytes=np.array([float(run.runs[name].output_bytes[0]) for run in measurements.runs]),
        )
    return replace(
        previous,
        items=np.array(measurements.items, dtype=np.int64),
        scores=scores,
        accuracy=betting_bounds(scores[None], UNLIMITED, risk=risk, low=low, high=high)[0],
        input_bytes=np.array([float(sizes[index] or mean_bytes) for index in measurements.items]),
        operators=operators,
    )
