"""Auditor of answers, against ground truth where available, and otherwise against the most accurate configuration.

Guarantee: answers are scored against ground truth exactly as in profiling, so that the mean score of the audited share
estimates the accuracy of the traffic without bias (the selection of audited requests depends only on their number). A
score against another configuration's output is an *agreement*. Drift shows as a deviation from the agreement of the two
configurations' recorded outputs. Agreements neither reveal which of the two outputs is wrong, nor detect data on which
both are wrong alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circinus.arrays import FloatArray
from circinus.control.drift.audit_scores import Agreements, AuditScore, most_accurate
from circinus.control.drift.ground_truth import NO_GROUND_TRUTH, GroundTruth, GroundTruthSource
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.errors import CircinusError, ProfileError, ServingError
from circinus.operators import Item
from circinus.operators.pickling import unpickle_value
from circinus.profiling import PipelineProfile, load_recordings
from circinus.profiling.dataset.scorer import Scorer
from circinus.serving import AuditSample
from circinus.serving.configuration_hash import configuration_hash
from circinus.specification import Configuration, Pipeline, Specification, prefix_configuration

MAX_QUEUED = 512
"""Maximum number of samples that wait for ground truth or a re-run; the oldest are dropped."""


@dataclass(frozen=True)
class AuditResult:
    """Result of one scoring call."""

    scores: tuple[AuditScore, ...] = ()
    failures: tuple[str, ...] = ()
    """Reasons why other samples were not scored."""


@dataclass(frozen=True)
class _QueuedSample:
    sample: AuditSample
    arrived_s: float


@dataclass(frozen=True, eq=False)
class _AuditedPipeline:
    """Scorer and reference configurations of one pipeline."""

    pipeline: Pipeline
    by_label: Mapping[str, Configuration]
    scorer: Scorer
    reference: Configuration
    """Most accurate configuration."""
    second_reference: Configuration | None
    """Most accurate of the remaining configurations, the reference for `reference`."""


class Auditor:
    """Scorer of an engine's samples. Only `drain` is fast; call `score` in a thread, one call at a time."""

    def __init__(
        self,
        specification: Specification,
        profiles: Mapping[str, PipelineProfile],
        answers: ReferenceRunner,
        truths: GroundTruthSource = NO_GROUND_TRUTH,
        *,
        ground_truth_timeout_s: float = 0.0,
    ) -> None:
        """Start without samples.

        A sample waits for its ground truth for `ground_truth_timeout_s` before it is re-run instead.

        Raises:
            OperatorError: a metric cannot be loaded.
        """
        self._runner, self._truths, self._ground_truth_timeout_s = answers, truths, ground_truth_timeout_s
        self._pipelines = {query.name: query.pipeline for query in specification.queries}
        self._specification = specification
        self._queue: deque[_QueuedSample] = deque()
        self._dropped = 0
        self._audited_pipelines: dict[str, _AuditedPipeline] = {}
        self.update_profiles(profiles)

    def update_profiles(self, profiles: Mapping[str, PipelineProfile]) -> None:
        """Replace profiles after re-profiling; the most accurate configuration may change."""
        for name, profile in profiles.items():
            if profile.configurations:
                self._audited_pipelines[name] = _audited_pipeline(self._specification, profile)

    def reference(self, pipeline: str, configuration: Configuration) -> Configuration | None:
        """Return the reference for audits without ground truth, or None if there is no other configuration."""
        audited = self._audited_pipelines[pipeline]
        return audited.reference if configuration != audited.reference else audited.second_reference

    def pairs(
        self, configurations: Mapping[str, Iterable[Configuration]]
    ) -> list[tuple[str, Configuration, Configuration]]:
        """Return all (pipeline, configuration, reference) that audits may compare.

        Their outputs must be recorded for replays and for `expected_agreements`.
        """
        pairs = []
        for name, configurations_of in configurations.items():
            for configuration in configurations_of:
                reference = self.reference(name, configuration)
                if reference is not None:
                    pairs.append((name, configuration, reference))
        return pairs

    def drain(self, samples: Iterable[AuditSample], time_s: float) -> None:
        """Queue samples of the engine; `time_s` is in seconds since 1970."""
        self._queue.extend(_QueuedSample(sample, time_s) for sample in samples)
        while len(self._queue) > MAX_QUEUED:
            self._queue.popleft()
            self._dropped += 1

    def score(self, time_s: float, *, max_reruns: int = 8) -> AuditResult:
        """Score samples with ground truth, and re-run at most `max_reruns` of those that waited long enough."""
        scores, failures, retained = [], [], []
        if self._dropped:
            failures.append(f"{self._dropped} audit samples were dropped: more arrive than can be re-run")
            self._dropped = 0
        for queued in [self._queue.popleft() for _ in range(len(self._queue))]:
            sample = queued.sample
            audited = self._audited_pipelines.get(self._pipelines.get(sample.query, ""))
            configuration = None if audited is None else audited.by_label.get(sample.configuration)
            if audited is None or configuration is None:  # no longer profiled
                continue
            name, reference = audited.pipeline.name, None
            try:
                truth = self._truths.find(name, sample.item_key)
            except ServingError as error:  # another sample's ground truth is unreadable; keep this sample
                failures.append(str(error))
                retained.append(queued)
                continue
            try:
                if truth is None:
                    if time_s - queued.arrived_s < self._ground_truth_timeout_s or max_reruns < 1:
                        retained.append(queued)
                        continue
                    max_reruns -= 1
                    reference = self.reference(name, configuration)
                    if reference is None:
                        continue
                    truth = GroundTruth(self._reference_answer(audited.pipeline, reference, sample))
                item = Item(sample.item_key, None, truth.value)
                score = audited.scorer.score(configuration, item, sample.outputs)
            except CircinusError as error:
                failures.append(str(error))
                continue
            except Exception as error:  # unpickling needs classes that may be missing on this machine
                failures.append(f"query {sample.query}: answer cannot be audited: {type(error).__name__}: {error}")
                continue
            identity = sample.query, name, sample.item_key, sample.configuration
            scores.append(AuditScore(*identity, score, reference, time_s, sample.value, truth.value))
        self._queue.extendleft(reversed(retained))
        return AuditResult(tuple(scores), tuple(dict.fromkeys(failures)))

    def _reference_answer(self, pipeline: Pipeline, reference: Configuration, sample: AuditSample) -> Any:
        value = None if sample.value is None else unpickle_value(sample.value)
        outputs = self._runner.answers(pipeline.name, reference, [Item(sample.item_key, value, None)])
        return pipeline.output({sink: unpickle_value(output[0]) for sink, output in outputs.items()})


def _audited_pipeline(specification: Specification, profile: PipelineProfile) -> _AuditedPipeline:
    pipeline = specification.pipelines[profile.pipeline]
    configurations = [profiled.configuration for profiled in profile.configurations]
    reference = most_accurate(profile, pipeline.metric)
    remaining = [configuration for configuration in configurations if configuration != reference]
    return _AuditedPipeline(
        pipeline,
        {configuration_hash(configuration): configuration for configuration in configurations},
        Scorer(pipeline, specification.module_paths),
        reference,
        most_accurate(profile, pipeline.metric, remaining) if remaining else None,
    )


def expected_agreements(
    specification: Specification, store: Path, pairs: Sequence[tuple[str, Configuration, Configuration]]
) -> Agreements:
    """Return the agreement of recorded outputs by pair, without pairs that cannot be compared."""
    result: dict[tuple[str, Configuration, Configuration], FloatArray] = {}
    scorers: dict[str, Scorer] = {}
    for name, configuration, reference in dict.fromkeys(pairs):
        pipeline = specification.pipelines[name]
        scorer = scorers.setdefault(name, Scorer(pipeline, specification.module_paths))
        try:
            scores = _agreement_scores(pipeline, store, configuration, reference, scorer)
        except ProfileError:
            continue
        if len(scores):
            result[name, configuration, reference] = scores
    return result


def _agreement_scores(
    pipeline: Pipeline, store: Path, configuration: Configuration, reference: Configuration, scorer: Scorer
) -> FloatArray:
    sinks = {
        sink: (prefix_configuration(pipeline, configuration, sink), prefix_configuration(pipeline, reference, sink))
        for sink in pipeline.sinks()
    }
    recordings = load_recordings(store, pipeline.name, [prefix for prefixes in sinks.values() for prefix in prefixes])
    items = []
    for key in recordings.items:
        answer = pipeline.output(
            {sink: recordings.output(of_reference, key) for sink, (_, of_reference) in sinks.items()}
        )
        items.append(Item(key, None, answer))
    outputs = {sink: [recordings.outputs[own][item.key] for item in items] for sink, (own, _) in sinks.items()}
    try:
        return np.array(scorer.scores(configuration, items, outputs))
    except CircinusError:
        return np.zeros(0)  # the metric rejects outputs as ground truth
