"""State of the race among configurations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.race.latency_screening import provably_too_slow
from circinus.profiling.race.racing import MeasurementStep, ScoreEvidence, expected_items_to_decide, next_measurement
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence, ThresholdVerdicts
from circinus.profiling.race.slo_requirements import PipelineSlos, SloRequirement
from circinus.profiling.race.verdicts import (
    ConfigurationVerdict,
    OpenQuestions,
    RaceArrays,
    RaceSnapshot,
    assign_verdicts,
    open_questions,
)
from circinus.specification import AccuracySlo, Configuration, MetricSpec
from circinus.statistics.mean_decision import shrunk_variance
from circinus.statistics.sequential_test import SequentialThresholdTest


def look_schedule(items: int) -> tuple[int, ...]:
    """Return the sample sizes of the interim analyses: 8, 16, ..., 64, 80, 96, 112, 128, 160, ... and all items.

    The bounds allow any number of analyses. Eight items justify starting an operator, and four steps per doubling keep
    a configuration from getting many more items than it needs.
    """
    schedule, step = [8], 8
    while schedule[-1] + step < items:
        schedule.append(schedule[-1] + step)
        if schedule[-1] >= 8 * step:
            step *= 2
    return (*(size for size in schedule if size < items), items)


class ConfigurationRace:
    """Sample sizes, decisions and next steps of the configurations, all derived from scores and resource usage.

    An interrupted measurement resumes with identical decisions, provided that every configuration had its first interim
    analysis before usages were first compared, as this fixes the references.
    """

    def __init__(
        self,
        configurations: Sequence[Configuration],
        confidence: RunConfidence,
        slos: PipelineSlos,
        *,
        with_references: bool = True,
    ) -> None:
        """Start without measurements.

        Args:
            configurations: configurations that may be measured.
            confidence: confidence sequences of the run.
            slos: SLO requirements to be decided.
            with_references: whether each configuration is compared with a reference. References are selected among the
                configurations measured when usages are first compared, so all need their first analysis before.
        """
        self._with_references = with_references
        self.configurations = tuple(configurations)
        self.confidence = confidence
        self.slos = slos
        self.checkpoints = look_schedule(confidence.population)
        self._latency_items, self._distribution_free_items = (
            next(size for size in self.checkpoints if size >= min(items, confidence.population))
            for items in (slos.latency_items, slos.distribution_free_items)
        )
        self._index = {configuration: index for index, configuration in enumerate(self.configurations)}
        self._scores: list[FloatArray] = [np.zeros(0) for _ in self.configurations]
        self._running = [confidence.sequential_test(self._thresholds) for _ in self.configurations]
        self._comparisons: dict[int, SequentialThresholdTest] = {}
        self._arrays = self._blank(len(self.configurations))
        self._usage: ResourceUsage | None = None

    def add(self, configuration: Configuration) -> None:
        """Add a configuration without measurements, unless it exists."""
        if configuration in self._index:
            return
        self._index[configuration] = len(self.configurations)
        self.configurations += (configuration,)
        self._scores.append(np.zeros(0))
        self._running.append(self.confidence.sequential_test(self._thresholds))
        self._arrays = self._arrays.followed_by(self._blank(1))
        self._usage = None  # outdated: without the new configuration

    def has(self, configuration: Configuration) -> bool:
        """Return whether the configuration takes part."""
        return configuration in self._index

    def update_scores(self, configuration: Configuration, scores: FloatArray) -> None:
        """Update the (n,) scores of a configuration on the first n items."""
        index = self._index[configuration]
        if len(scores) == len(self._scores[index]):
            return
        self._scores[index] = scores
        running = self._running[index]
        running.extend(scores[running.items :])
        sides = ThresholdVerdicts.of(running.decisions, self._thresholds)
        self._arrays.meets[index, self._bounded] = sides.meets
        self._arrays.fails[index, self._bounded] = sides.fails
        self._arrays.meets[index, self._unbounded] = True
        width = _range(self.confidence.metric)
        self._arrays.means[index] = running.estimate
        self._arrays.variances[index] = shrunk_variance(running.residual_sum_of_squares, len(scores), width)
        for pair in {index, *np.flatnonzero(self._arrays.references == index).tolist()}:
            self._compare(pair)

    def update_usage(self, usage: ResourceUsage) -> None:
        """Update the resource usage of all configurations, which they are compared by from now on."""
        self._usage = usage
        has_reference = np.array([index in self._comparisons for index in range(len(self.configurations))])
        # References are never replaced: every further comparison would take a share of the risk.
        if self._with_references:
            self._arrays.references = np.where(has_reference, self._arrays.references, usage.references())
        self._arrays.reference_no_costlier = usage.reference_no_costlier(self._arrays.references)
        if usage.min_latency_s is not None:
            latencies = tuple(requirement.latency for requirement in self.slos.requirements)
            population, risk = self.confidence.population, self.confidence.latency_risk
            self._arrays.slow = provably_too_slow(usage.min_latency_s, population, latencies, risk)
        self._arrays.latency_items = np.where(
            usage.heavy_tailed, self._distribution_free_items, self._arrays.latency_items
        )
        for index in range(len(self.configurations)):
            self._compare(index)

    def prune(self, pruned: Mapping[SloRequirement, Collection[Configuration]]) -> None:
        """Update the SLO requirements that need not be decided (`SamplerDecision.pruned`)."""
        for column, requirement in enumerate(self.slos.requirements):
            if requirement in pruned:
                skipped = pruned[requirement]
                self._arrays.pruned[:, column] = [configuration in skipped for configuration in self.configurations]

    def mark_failed(self, configuration: Configuration) -> None:
        """Exclude a failed configuration from further measurement."""
        self._arrays.failed[self._index[configuration]] = True

    def mark_exhausted(self, configuration: Configuration) -> None:
        """Exclude a configuration without further recordings from measurement; its measurements are retained."""
        self._arrays.exhausted[self._index[configuration]] = True

    def failed(self, configuration: Configuration) -> bool:
        """Return whether the configuration failed in this measurement."""
        index = self._index.get(configuration)
        return index is not None and bool(self._arrays.failed[index])

    def is_closed(self, configuration: Configuration) -> bool:
        """Return whether the configuration is excluded from further measurement (failed or exhausted)."""
        index = self._index.get(configuration)
        return index is not None and bool(self._arrays.failed[index] or self._arrays.exhausted[index])

    def items(self, configuration: Configuration) -> int:
        """Return the number of measured items, a prefix of the order."""
        index = self._index.get(configuration)
        return 0 if index is None else len(self._scores[index])

    def settled(self, configuration: Configuration) -> bool:
        """Return whether more items of the configuration would change no decision."""
        return bool(self.decisions().settled[self._index[configuration]])

    def next_step(
        self,
        seconds: Callable[[Configuration, int], float],
        within_s: float,
        without: Collection[Configuration] = (),
        *,
        latency_only: bool = False,
    ) -> MeasurementStep | None:
        """Return the next step among the configurations with measurements, or None if nothing is open.

        Args:
            seconds: (configuration, items) -> seconds until it is measured on this many items.
            within_s: remaining seconds.
            without: configurations to skip now.
            latency_only: whether the sampler decides about SLOs, so that only latencies are pursued.
        """
        decisions, snapshot = self.decisions(), self._snapshot()
        measured = snapshot.items > 0
        measured[[self._index[configuration] for configuration in without]] = False
        open_ = np.zeros_like(decisions.open) if latency_only else decisions.open & measured[:, None]
        decisions = replace(decisions, open=open_, needs_latency_items=decisions.needs_latency_items & measured)
        total_s = np.zeros(len(self.configurations)) if self._usage is None else self._usage.total_cpu_s
        return next_measurement(
            snapshot,
            decisions,
            self._evidence(),
            total_s,
            self.checkpoints,
            lambda index, items: seconds(self.configurations[index], items),
            within_s,
        )

    @property
    def decided(self) -> tuple[BoolArray, BoolArray]:
        """(k, q) whether each configuration certainly meets an SLO requirement, and whether it certainly misses it."""
        snapshot = self._snapshot()
        return snapshot.meets, snapshot.fails

    def certainly_as_accurate(self) -> list[tuple[int, int]]:
        """Return pairs of configuration indexes: the first is certainly no less accurate than the second."""
        return [
            (int(self._arrays.references[index]), int(index)) for index in np.flatnonzero(self._arrays.no_more_accurate)
        ]

    def recommended(self, cost: FloatArray) -> IntArray:
        """Return (q,) the currently recommended configuration for each SLO requirement; -1 for none.

        It is the cheapest of the configurations that certainly meet it or whose estimate does.

        Args:
            cost: (k,) cost of each configuration.
        """
        snapshot, evidence = self._snapshot(), self._evidence()
        eligible = snapshot.meets | (~snapshot.fails & evidence.estimate_meets & (snapshot.items > 0)[:, None])
        eligible_cost = np.where(eligible, cost[:, None], np.inf)
        return np.where(eligible.any(axis=0), eligible_cost.argmin(axis=0), -1)

    def target_items(self) -> dict[Configuration, int]:
        """Return the expected final number of items of each configuration."""
        snapshot, decisions, evidence = self._snapshot(), self.decisions(), self._evidence()
        targets = {}
        for index, configuration in enumerate(self.configurations):
            items = len(self._scores[index])
            if decisions.needs_latency_items[index]:
                items = max(items, int(self._arrays.latency_items[index]))
            for q in np.flatnonzero(decisions.open[index]):
                items = max(items, expected_items_to_decide(index, int(q), snapshot, evidence))
            targets[configuration] = items
        return targets

    def decisions(self) -> OpenQuestions:
        """Return the open questions."""
        return open_questions(self._snapshot(), self._usage or ResourceUsage.empty(len(self.configurations)))

    def verdicts(self) -> dict[Configuration, ConfigurationVerdict]:
        """Return a verdict with its reason for every configuration that has not failed."""
        names = [str(configuration) for configuration in self.configurations]
        verdicts = assign_verdicts(self._snapshot(), self.decisions(), self.slos.requirements, names)
        return {c: verdicts[n] for n, c in enumerate(self.configurations) if not self._arrays.failed[n]}

    def _blank(self, configurations: int) -> RaceArrays:
        score_range = self.confidence.metric.range
        return RaceArrays.blank(configurations, len(self.slos.requirements), score_range, self._latency_items)

    @property
    def _bounded(self) -> list[int]:
        """Columns of requirements with an accuracy SLO."""
        return [q for q, requirement in enumerate(self.slos.requirements) if requirement.accuracy is not None]

    @property
    def _unbounded(self) -> list[int]:
        return [q for q, requirement in enumerate(self.slos.requirements) if requirement.accuracy is None]

    @property
    def _thresholds(self) -> list[AccuracySlo]:
        return [requirement.accuracy for requirement in self.slos.requirements if requirement.accuracy is not None]

    def _compare(self, index: int) -> None:
        """Update whether the reference of a configuration is certainly as accurate."""
        reference = int(self._arrays.references[index])
        if reference < 0:
            return
        comparison = self._comparisons.setdefault(index, self.confidence.sequential_comparison())
        extra = slice(comparison.items, min(len(self._scores[index]), len(self._scores[reference])))
        if extra.start < extra.stop:
            differences = self.confidence.paired_differences(self._scores[reference][extra], self._scores[index][extra])
            comparison.extend(differences)
            self._arrays.no_more_accurate[index] = comparison.decisions.at_least[0]

    def _snapshot(self) -> RaceSnapshot:
        population = self.confidence.population
        items = np.array([len(scores) for scores in self._scores], dtype=np.int64)
        return RaceSnapshot(
            meets=self._arrays.meets & ~self._arrays.slow & ~self._arrays.failed[:, None],
            fails=self._arrays.fails | self._arrays.slow | self._arrays.failed[:, None],
            slow=self._arrays.slow,
            items=np.where(self._arrays.failed | self._arrays.exhausted, population, items),
            latency_items=self._arrays.latency_items,
            all_items=population,
            dominated_on_accuracy=self._arrays.no_more_accurate
            & self._arrays.reference_no_costlier
            & ~self._arrays.failed[self._arrays.references],
            references=self._arrays.references,
            pruned=self._arrays.pruned,
        )

    def _evidence(self) -> ScoreEvidence:
        estimate_meets = np.ones(self._arrays.meets.shape, dtype=bool)
        margins = np.zeros(self._arrays.meets.shape)
        for column, requirement in enumerate(self.slos.requirements):
            slo = requirement.accuracy
            if slo is not None:
                estimate_meets[:, column] = [slo.is_met_by(mean) for mean in self._arrays.means.tolist()]
                margins[:, column] = np.abs(self._arrays.means - slo.threshold)
        return ScoreEvidence(
            variances=self._arrays.variances,
            estimate_meets=estimate_meets,
            margins=margins,
            score_range=_range(self.confidence.metric),
            side_risk=self.confidence.side_risk,
            weights=np.array(self.slos.weights, dtype=np.float64),
        )


def _range(metric: MetricSpec) -> float:
    low, high = metric.range
    return high - low
