"""Auditing answers: against the truth where it arrives, or else against what the most accurate plan answers.

What is guaranteed: an answer that is scored against the truth is scored exactly as in profiling, so that the mean score
of the audited share estimates the accuracy of the traffic without bias (which requests are audited depends on nothing
but their number). A score against another plan's answer is an *agreement*. It tells that data moved when it is not what
the same two plans' recorded answers agree by; it does not tell which of the two answers is wrong, nor does it notice
data on which both are wrong alike.
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
from circinus.control.drift.ground_truth import GroundTruthSource
from circinus.control.drift.recent_items import AuditedItem
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.errors import CircinusError, ProfileError, ServingError
from circinus.operators import Item
from circinus.profiling import PipelineProfile, load_recordings
from circinus.profiling.dataset.scorer import Scorer
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.serving import AuditSample
from circinus.serving.configuration_hash import configuration_hash
from circinus.specification import Configuration, Pipeline, Specification, prefix_configuration

MOST_WAITING = 512
"""Samples that wait for their truth or to be re-run; beyond, the oldest are given up."""


@dataclass(frozen=True)
class AuditResult:
    """What came of auditing."""

    scores: tuple[AuditScore, ...] = ()
    items: tuple[AuditedItem, ...] = ()
    """Those that were scored, with what stood for the truth."""
    failures: tuple[str, ...] = ()
    """Why others were not."""


@dataclass(frozen=True)
class _Waiting:
    sample: AuditSample
    came_s: float


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of one pipeline."""

    pipeline: Pipeline
    by_label: Mapping[str, Configuration]
    scorer: Scorer
    first: Configuration
    """The most accurate one."""
    second: Configuration | None
    """The most accurate of the others, for the answers of the first."""


class Auditor:
    """Scores samples of an engine. Nothing but `take` is quick; call `score` in a thread, one call at a time."""

    def __init__(
        self,
        specification: Specification,
        profiles: Mapping[str, PipelineProfile],
        answers: ReferenceRunner,
        truths: GroundTruthSource | None = None,
        *,
        truth_patience_s: float = 0.0,
    ) -> None:
        """Without any samples.

        Args:
            specification: queries, pipelines.
            profiles: pipeline -> what was profiled; says which plan is the most accurate.
            answers: re-runs items.
            truths: where truths arrive; None: nowhere.
            truth_patience_s: how long a sample waits for its truth before it is re-run instead.

        Raises:
            OperatorError: a metric is not found.
        """
        self._answers, self._truths, self._patience_s = answers, truths, truth_patience_s
        self._pipelines = {query.name: query.pipeline for query in specification.queries}
        self._specification = specification
        self._waiting: deque[_Waiting] = deque()
        self._given_up = 0
        self._known: dict[str, _Known] = {}
        self.update_profiles(profiles)

    def update_profiles(self, profiles: Mapping[str, PipelineProfile]) -> None:
        """Something was measured again: the most accurate plan may be another one."""
        for name, profile in profiles.items():
            if profile.configurations:
                self._known[name] = _known(self._specification, profile)

    def reference(self, pipeline: str, configuration: Configuration) -> Configuration | None:
        """Whose answers those of a configuration are held against where there is no truth; None: there is no other."""
        known = self._known[pipeline]
        return known.first if configuration != known.first else known.second

    def pairs(
        self, configurations: Mapping[str, Iterable[Configuration]]
    ) -> list[tuple[str, Configuration, Configuration]]:
        """(pipeline, configuration, reference) of all that may be held against each other: to be recorded in a replay,
        and to know what to expect of (`expected_agreements`)."""
        found = []
        for name, its in configurations.items():
            for configuration in its:
                reference = self.reference(name, configuration)
                if reference is not None:
                    found.append((name, configuration, reference))
        return found

    def drain(self, samples: Iterable[AuditSample], time_s: float) -> None:
        """Samples that an engine handed over; seconds since 1970."""
        self._waiting.extend(_Waiting(sample, time_s) for sample in samples)
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._given_up += 1

    def score(self, time_s: float, *, most: int = 8) -> AuditResult:
        """Score samples whose truth is there, and re-run at most so many of those that waited long enough.

        Args:
            time_s: now; seconds since 1970.
            most: samples to re-run.
        """
        scores, items, failures, kept = [], [], [], []
        if self._given_up:
            failures.append(f"{self._given_up} audited answers were given up: more come than can be re-run")
            self._given_up = 0
        for waiting in [self._waiting.popleft() for _ in range(len(self._waiting))]:
            sample = waiting.sample
            try:
                found = self._against_truth(sample, time_s)
            except ServingError as error:  # another's truth cannot be read; this one's may be
                failures.append(str(error))
                kept.append(waiting)
                continue
            except CircinusError as error:
                failures.append(str(error))
                continue
            try:
                if found is None:
                    if time_s - waiting.came_s < self._patience_s or most < 1:
                        kept.append(waiting)
                        continue
                    most -= 1
                    found = self._against_reference(sample, time_s)
            except CircinusError as error:
                failures.append(str(error))
                continue
            except Exception as error:  # a value may be of a class that is not on this machine
                failures.append(f"an answer of {sample.query} cannot be audited: {type(error).__name__}: {error}")
                continue
            if found is not None:
                scores.append(found[0])
                items.append(found[1])
        self._waiting.extendleft(reversed(kept))
        return AuditResult(tuple(scores), tuple(items), tuple(dict.fromkeys(failures)))

    def _against_truth(self, sample: AuditSample, time_s: float) -> tuple[AuditScore, AuditedItem] | None:
        pipeline = self._pipelines.get(sample.query, "")
        truth = None if self._truths is None else self._truths.find(pipeline, sample.item_key)
        return None if truth is None else self._scored(sample, truth.value, None, time_s)

    def _against_reference(self, sample: AuditSample, time_s: float) -> tuple[AuditScore, AuditedItem] | None:
        pipeline = self._pipelines.get(sample.query, "")
        known = self._known.get(pipeline)
        configuration = None if known is None else known.by_label.get(sample.configuration)
        reference = None if configuration is None else self.reference(pipeline, configuration)
        if known is None or reference is None:
            return None
        value = None if sample.value is None else unpickle_value(sample.value)
        outputs = self._answers.answers(pipeline, reference, [Item(sample.item_key, value, None)])
        answer = known.pipeline.output({sink: unpickle_value(found[0]) for sink, found in outputs.items()})
        return self._scored(sample, answer, reference, time_s)

    def _scored(
        self, sample: AuditSample, truth: Any, against: Configuration | None, time_s: float
    ) -> tuple[AuditScore, AuditedItem] | None:
        name = self._pipelines.get(sample.query, "")
        known = self._known.get(name)
        configuration = None if known is None else known.by_label.get(sample.configuration)
        if known is None or configuration is None:
            return None
        score = known.scorer.score(configuration, Item(sample.item_key, None, truth), sample.outputs)
        found = AuditScore(sample.query, name, sample.item_key, sample.configuration, score, against, time_s)
        return found, AuditedItem(name, sample.item_key, sample.value, truth, against, time_s)


def _known(specification: Specification, profile: PipelineProfile) -> _Known:
    pipeline = specification.pipelines[profile.pipeline]
    configurations = [found.configuration for found in profile.configurations]
    first = most_accurate(profile, pipeline.metric)
    others = [configuration for configuration in configurations if configuration != first]
    return _Known(
        pipeline,
        {configuration_hash(configuration): configuration for configuration in configurations},
        Scorer(pipeline, specification.module_paths),
        first,
        most_accurate(profile, pipeline.metric, others) if others else None,
    )


def expected_agreements(
    specification: Specification, store: Path, pairs: Sequence[tuple[str, Configuration, Configuration]]
) -> Agreements:
    """How well recorded answers of configurations agree with those of others; pairs of which nothing can be said are
    left out.

    Args:
        specification: with the pipelines.
        store: the profile store.
        pairs: (pipeline, configuration, whose answers stand for the truth).
    """
    found: dict[tuple[str, Configuration, Configuration], FloatArray] = {}
    scorers: dict[str, Scorer] = {}
    for name, configuration, reference in dict.fromkeys(pairs):
        pipeline = specification.pipelines[name]
        scorer = scorers.setdefault(name, Scorer(pipeline, specification.module_paths))
        try:
            scores = _agreement(pipeline, store, configuration, reference, scorer)
        except ProfileError:
            continue
        if len(scores):
            found[name, configuration, reference] = scores
    return found


def _agreement(
    pipeline: Pipeline, store: Path, configuration: Configuration, reference: Configuration, scorer: Scorer
) -> FloatArray:
    sinks = {
        sink: (prefix_configuration(pipeline, configuration, sink), prefix_configuration(pipeline, reference, sink))
        for sink in pipeline.sinks()
    }
    recorded = load_recordings(store, pipeline.name, [one for both in sinks.values() for one in both])
    scores = []
    for key in recorded.items:
        answer = pipeline.output({sink: recorded.output(theirs, key) for sink, (_, theirs) in sinks.items()})
        outputs = {sink: recorded.outputs[own][key] for sink, (own, _) in sinks.items()}
        try:
            scores.append(scorer.score(configuration, Item(key, None, answer), outputs))
        except CircinusError:
            return np.zeros(0)  # the metric takes no answer for a truth
    return np.array(scores)
