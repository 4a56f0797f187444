"""Where every configuration stands while a pipeline is measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.confidence_sequences import SequentialThresholdTest
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


def look_schedule(items: int) -> tuple[int, ...]:
    """Numbers of items after which to look again: 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, ... and all.

    The bounds allow any number of looks; eight items are worth starting an operator for, and four steps to a doubling
    keep a configuration from getting many more than it needs.
    """
    found, step = [8], 8
    while found[-1] + step < items:
        found.append(found[-1] + step)
        if found[-1] >= 8 * step:
            step *= 2
    return (*(look for look in found if look < items), items)


class ConfigurationRace:
    """On how many items each configuration is known, what that decides, and what to measure next.

    All of it follows from the scores and footprints alone: who ends a measurement and begins it again later gets the
    same decisions, as long as everything had its first look before it was weighed first: partners stay then.
    """

    def __init__(
        self,
        configurations: Sequence[Configuration],
        confidence: RunConfidence,
        objectives: PipelineSlos,
        *,
        comparing: bool = True,
    ) -> None:
        """Begin with nothing known.

        Args:
            configurations: all that may be measured.
            confidence: bounds their mean scores.
            objectives: what is to be decided.
            comparing: whether each configuration is compared with a partner. Partners are chosen among those measured
                when they are weighed first, so all are to have had their first look by then.
        """
        self._comparing = comparing
        self.configurations = tuple(configurations)
        self.confidence = confidence
        self.objectives = objectives
        self.looks = look_schedule(confidence.population)
        usual, certain = (
            next(look for look in self.looks if look >= min(items, confidence.population))
            for items in (objectives.latency_items, objectives.distribution_free_items)
        )
        self._certain_items = certain
        self._latency_items = usual
        self._number = {configuration: number for number, configuration in enumerate(self.configurations)}
        self._scores: list[FloatArray] = [np.zeros(0) for _ in self.configurations]
        self._running = [confidence.sequential_test(self._thresholds) for _ in self.configurations]
        self._comparisons: dict[int, SequentialThresholdTest] = {}
        self._of = self._blank(len(self.configurations))
        self._footprints: ResourceUsage | None = None

    def add(self, configuration: Configuration) -> None:
        """Have one more configuration, of which nothing is known; nothing happens if it is there already."""
        if configuration in self._number:
            return
        self._number[configuration] = len(self.configurations)
        self.configurations += (configuration,)
        self._scores.append(np.zeros(0))
        self._running.append(self.confidence.sequential_test(self._thresholds))
        self._of = self._of.followed_by(self._blank(1))
        self._footprints = None  # they are of fewer configurations

    def has(self, configuration: Configuration) -> bool:
        """Whether it is one of these."""
        return configuration in self._number

    def update_scores(self, configuration: Configuration, scores: FloatArray) -> None:
        """Take note of the (n,) scores of a configuration on the first n items."""
        number = self._number[configuration]
        if len(scores) == len(self._scores[number]):
            return
        self._scores[number] = scores
        running = self._running[number]
        running.extend(scores[running.items :])
        sides = ThresholdVerdicts.of(running.verdicts, self._thresholds)
        self._of.meets[number, self._bounded] = sides.meets[0]
        self._of.fails[number, self._bounded] = sides.fails[0]
        self._of.meets[number, self._unbounded] = True
        width = _range(self.confidence.metric)
        self._of.means[number] = running.estimate
        # One item more whose score is a quarter of the range off: a few equal scores are no proof of certainty.
        self._of.variances[number] = (running.residual_sum_of_squares + width**2 / 16) / (len(scores) + 1)
        for pair in {number, *np.flatnonzero(self._of.partners == number).tolist()}:
            self._compare(pair)

    def update_usage(self, footprints: ResourceUsage) -> None:
        """Take note of what running each configuration takes, by which they are compared from now on."""
        self._footprints = footprints
        begun = np.array([number in self._comparisons for number in range(len(self.configurations))])
        # Who was compared once is compared with nobody else: every further comparison would take its share of the risk.
        if self._comparing:
            self._of.partners = np.where(begun, self._of.partners, footprints.references())
        self._of.stands_in = footprints.reference_no_costlier(self._of.partners)
        if footprints.least_latency_s is not None:
            latencies = tuple(objective.latency for objective in self.objectives.requirements)
            population, risk = self.confidence.population, self.confidence.latency_risk
            self._of.slow = provably_too_slow(footprints.least_latency_s, population, latencies, risk)
        self._of.latency_items = np.where(footprints.heavy_tailed, self._certain_items, self._of.latency_items)
        for number in range(len(self.configurations)):
            self._compare(number)

    def prune(self, pointless: Mapping[SloRequirement, Collection[Configuration]]) -> None:
        """Take note of where it is pointless to ask (`Assessment.pointless`)."""
        for column, objective in enumerate(self.objectives.requirements):
            if objective in pointless:
                idle = pointless[objective]
                self._of.pointless[:, column] = [configuration in idle for configuration in self.configurations]

    def mark_failed(self, configuration: Configuration) -> None:
        """Measure it no more."""
        self._of.failed[self._number[configuration]] = True

    def mark_exhausted(self, configuration: Configuration) -> None:
        """Measure it no more: there is nothing more to be had of it. What is known stays."""
        self._of.ended[self._number[configuration]] = True

    def failed(self, configuration: Configuration) -> bool:
        """Whether it failed in this measurement."""
        number = self._number.get(configuration)
        return number is not None and bool(self._of.failed[number])

    def is_closed(self, configuration: Configuration) -> bool:
        """Whether it is measured no more, because it failed or there is nothing more of it."""
        number = self._number.get(configuration)
        return number is not None and bool(self._of.failed[number] or self._of.ended[number])

    def items(self, configuration: Configuration) -> int:
        """Length of the beginning of the order on which it is known."""
        number = self._number.get(configuration)
        return 0 if number is None else len(self._scores[number])

    def settled(self, configuration: Configuration) -> bool:
        """Whether more items of it would change no decision."""
        return bool(self.decisions().settled[self._number[configuration]])

    def next_step(
        self,
        seconds: Callable[[Configuration, int], float],
        within_s: float,
        without: Collection[Configuration] = (),
        *,
        latency_only: bool = False,
    ) -> MeasurementStep | None:
        """What to measure next of the configurations that have been measured at all; None: nothing is open.

        Args:
            seconds: (configuration, items) -> seconds until it is known on so many items.
            within_s: seconds left.
            without: configurations that are not to be measured now.
            latency_only: whether somebody else says which objectives are to be decided.
        """
        decisions, standing = self.decisions(), self._standing()
        measured = standing.items > 0
        measured[[self._number[configuration] for configuration in without]] = False
        open_ = np.zeros_like(decisions.open) if latency_only else decisions.open & measured[:, None]
        decisions = replace(decisions, open=open_, needs_latency_items=decisions.needs_latency_items & measured)
        total_s = np.zeros(len(self.configurations)) if self._footprints is None else self._footprints.total_cpu_s
        return next_measurement(
            standing,
            decisions,
            self._evidence(),
            total_s,
            self.looks,
            lambda number, items: seconds(self.configurations[number], items),
            within_s,
        )

    @property
    def decided(self) -> tuple[BoolArray, BoolArray]:
        """(k, q) which objectives each configuration surely keeps, and which it surely misses."""
        standing = self._standing()
        return standing.meets, standing.fails

    def surely_as_accurate(self) -> list[tuple[int, int]]:
        """Pairs of numbers of configurations: the first is surely no less accurate than the second."""
        return [(int(self._of.partners[number]), int(number)) for number in np.flatnonzero(self._of.no_more_accurate)]

    def recommended(self, cost: FloatArray) -> IntArray:
        """(q,) the configuration that one would choose for each objective now; -1: none.

        Of those that surely keep it and those that may and whose estimate does, the one with the least cost.

        Args:
            cost: (k,) whatever is to be spared.
        """
        standing, evidence = self._standing(), self._evidence()
        hopeful = standing.meets | (~standing.fails & evidence.keeps & (standing.items > 0)[:, None])
        least = np.where(hopeful, cost[:, None], np.inf)
        return np.where(hopeful.any(axis=0), least.argmin(axis=0), -1)

    def target_items(self) -> dict[Configuration, int]:
        """On how many items each configuration will be known in the end, as it looks now."""
        standing, decisions, evidence = self._standing(), self.decisions(), self._evidence()
        found = {}
        for number, configuration in enumerate(self.configurations):
            items = len(self._scores[number])
            if decisions.needs_latency_items[number]:
                items = max(items, int(self._of.latency_items[number]))
            for q in np.flatnonzero(decisions.open[number]):
                items = max(items, expected_items_to_decide(number, int(q), standing, evidence))
            found[configuration] = items
        return found

    def decisions(self) -> OpenQuestions:
        """Which questions are open."""
        return open_questions(self._standing(), self._footprints or ResourceUsage.empty(len(self.configurations)))

    def verdicts(self) -> dict[Configuration, ConfigurationVerdict]:
        """A verdict with its reason for every configuration that has not failed."""
        names = [str(configuration) for configuration in self.configurations]
        found = assign_verdicts(self._standing(), self.decisions(), self.objectives.requirements, names)
        return {c: found[n] for n, c in enumerate(self.configurations) if not self._of.failed[n]}

    def _blank(self, configurations: int) -> RaceArrays:
        score_range = self.confidence.metric.range
        return RaceArrays.blank(configurations, len(self.objectives.requirements), score_range, self._latency_items)

    @property
    def _bounded(self) -> list[int]:
        """Columns of objectives that ask for accuracy."""
        return [q for q, objective in enumerate(self.objectives.requirements) if objective.accuracy is not None]

    @property
    def _unbounded(self) -> list[int]:
        return [q for q, objective in enumerate(self.objectives.requirements) if objective.accuracy is None]

    @property
    def _thresholds(self) -> list[AccuracySlo]:
        return [objective.accuracy for objective in self.objectives.requirements if objective.accuracy is not None]

    def _compare(self, number: int) -> None:
        """See whether the partner of a configuration is surely as accurate."""
        partner = int(self._of.partners[number])
        if partner < 0:
            return
        comparison = self._comparisons.setdefault(number, self.confidence.sequential_comparison())
        new = slice(comparison.items, min(len(self._scores[number]), len(self._scores[partner])))
        if new.start < new.stop:
            first, second = self._scores[partner][new], self._scores[number][new]
            comparison.extend(self.confidence.paired_differences(first, second))
            self._of.no_more_accurate[number] = comparison.verdicts.at_least[0, 0]

    def _standing(self) -> RaceSnapshot:
        everything = self.confidence.population
        items = np.array([len(scores) for scores in self._scores], dtype=np.int64)
        return RaceSnapshot(
            meets=self._of.meets & ~self._of.slow & ~self._of.failed[:, None],
            fails=self._of.fails | self._of.slow | self._of.failed[:, None],
            slow=self._of.slow,
            items=np.where(self._of.failed | self._of.ended, everything, items),
            latency_items=self._of.latency_items,
            all_items=everything,
            outdone=self._of.no_more_accurate & self._of.stands_in & ~self._of.failed[self._of.partners],
            partners=self._of.partners,
            pointless=self._of.pointless,
        )

    def _evidence(self) -> ScoreEvidence:
        keeps = np.ones(self._of.meets.shape, dtype=bool)
        margins = np.zeros(self._of.meets.shape)
        for column, objective in enumerate(self.objectives.requirements):
            slo = objective.accuracy
            if slo is not None:
                keeps[:, column] = [slo.is_met_by(mean) for mean in self._of.means.tolist()]
                margins[:, column] = np.abs(self._of.means - slo.threshold)
        return ScoreEvidence(
            variances=self._of.variances,
            keeps=keeps,
            margins=margins,
            score_range=_range(self.confidence.metric),
            side_risk=self.confidence.side_risk,
            weights=np.array(self.objectives.weights, dtype=np.float64),
        )


def _range(metric: MetricSpec) -> float:
    low, high = metric.range
    return high - low
