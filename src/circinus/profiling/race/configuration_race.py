"""Race among configurations: its state, and the configuration to measure on more items next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.race.race_state import ConfigurationVerdict, RaceState, assign_verdicts
from circinus.profiling.race.resource_usage import ResourceUsage, provably_too_slow
from circinus.profiling.race.run_confidence import RunConfidence, ThresholdVerdicts
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.settings import PROFILING
from circinus.specification import Configuration, Slos
from circinus.statistics.interval import Interval
from circinus.statistics.mean_decision import items_until_decided, shrunk_variance
from circinus.statistics.sequential_test import SequentialThresholdTest


@dataclass(frozen=True)
class MeasurementStep:
    """Step that measures a configuration on more items."""

    configuration: int
    target: int
    """Number of measured items after the step."""
    value_per_s: float = field(default=0.0, compare=False)
    """Value per second: weight of the queries that the step is expected to decide, or the share of it that they
    save, over its duration."""


def next_measurement(
    state: RaceState,
    checkpoints: Sequence[int],
    seconds: Callable[[int, int], float],
    within_s: float,
    without: Collection[int] = (),
    *,
    latency_only: bool = False,
) -> MeasurementStep | None:
    """Return the step with the highest expected value per second, or None if nothing is open.

    A requirement that no configuration certainly meets yet waits for the configuration that is expected to do so
    soonest, which is worth the weight of its queries. After that a cheaper configuration is searched: among all that
    cost no more than the cheapest whose estimate meets the SLO, which all have to be decided anyway, the one that is
    expected to be decided soonest; it is worth the share of the CPU seconds that might be saved. If no estimate meets
    the SLO, it is the configuration that is expected to be eliminated soonest. A step goes to the next interim analysis
    only, and then everything is evaluated again.

    Args:
        state: state of the race; configurations without an item are skipped.
        checkpoints: sample sizes of the interim analyses, ascending.
        seconds: (configuration, items) -> seconds until it is measured on this many items.
        within_s: remaining seconds; steps expected to be decided within them come first.
        without: configurations to skip now.
        latency_only: whether a sampler decides about SLOs, so that only latencies are pursued.
    """
    eligible = state.decisive_items > 0
    eligible[list(without)] = False
    weights = np.array(state.slos.weights, dtype=np.float64)
    values: dict[int, tuple[float, float]] = {}
    for q in range(0 if latency_only else len(weights)):
        open_ = np.flatnonzero(state.open[:, q] & eligible)
        if not len(open_):
            continue
        candidates, share = _candidates(open_, q, state)
        expected_items = expected_items_to_decide(candidates, q, state).tolist()
        expected_s = {k: seconds(k, items) for k, items in zip(candidates.tolist(), expected_items, strict=True)}
        soonest = min(expected_s, key=lambda k: (expected_s[k], k))
        _add(values, soonest, share * float(weights[q]), expected_s[soonest])
    for k in np.flatnonzero(state.needs_latency_items & eligible):
        weight = float(weights[state.planned[k]].sum()) if len(weights) else 1.0
        _add(values, int(k), weight, seconds(int(k), int(state.latency_items[k])))
    if not values:
        return None
    selected = max(values, key=lambda k: (values[k][1] <= within_s, values[k][0] / max(values[k][1], 1e-9), -k))
    weight, max_s = values[selected]
    target = next(size for size in checkpoints if size > state.items[selected])
    return MeasurementStep(selected, target, weight / max(max_s, 1e-9))


def _add(values: dict[int, tuple[float, float]], configuration: int, weight: float, seconds: float) -> None:
    """Add the weight of a requirement that waits for the configuration; the longest wait counts."""
    total, max_s = values.get(configuration, (0.0, 0.0))
    values[configuration] = total + weight, max(max_s, seconds)


def _candidates(open_: IntArray, requirement: int, state: RaceState) -> tuple[IntArray, float]:
    """Return the configurations one of which comes next, and its value as a share of the requirement's weight."""
    total_cpu_s = np.nan_to_num(state.usage.total_cpu_s)  # all alike until usages are compared
    promising = open_[state.estimate_meets[open_, requirement]]
    certain = np.flatnonzero(state.meets[:, requirement])
    if not len(promising):
        return open_, PROFILING.min_question_value
    if not len(certain):
        return promising, 1.0
    cheapest_s = float(total_cpu_s[promising].min())
    saved = 1.0 - cheapest_s / max(float(total_cpu_s[certain].min()), 1e-12)
    return open_[total_cpu_s[open_] <= cheapest_s], max(saved, PROFILING.min_question_value)


def expected_items_to_decide(configurations: IntArray, requirement: int, state: RaceState) -> IntArray:
    """Return (n,) the number of items, at most all, at which a requirement is expected to be decided for each of n."""
    slo, all_items = state.slos.requirements[requirement].accuracy, state.confidence.items
    low, high = state.confidence.metric.range
    means, variances = state.means[configurations], state.variances[configurations]
    distances = np.zeros(len(means)) if slo is None else np.abs(means - slo.threshold)
    margins = np.maximum(distances, (high - low) / (2 * all_items))
    risk, population = state.confidence.side_risk, state.confidence.population
    items = np.ceil(items_until_decided(margins, variances, high - low, risk, population))
    return np.clip(items, state.items[configurations] + 1, all_items).astype(np.int64)


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
            with_references: whether each configuration is compared with a reference. References are selected among the
                configurations measured when usages are first compared, so all need their first analysis before.
        """
        self._with_references = with_references
        self.configurations: tuple[Configuration, ...] = ()
        self.checkpoints = look_schedule(confidence.items)
        self._latency_items, self._distribution_free_items = (
            next(size for size in self.checkpoints if size >= min(items, confidence.items))
            for items in (slos.latency_items, slos.distribution_free_items)
        )
        self._is_bounded = np.array([requirement.accuracy is not None for requirement in slos.requirements], dtype=bool)
        self._accuracies = [slo.accuracy for slo in slos.requirements if slo.accuracy is not None]
        self._index: dict[Configuration, int] = {}
        self._scores: list[FloatArray] = []
        self._tests: list[SequentialThresholdTest] = []
        self._comparisons: dict[int, SequentialThresholdTest] = {}
        self.state = RaceState.blank(0, slos, confidence, latency_items=self._latency_items)
        self._add(configurations)

    def add(self, configuration: Configuration) -> None:
        """Add a configuration without measurements, unless it exists."""
        if configuration not in self._index:
            self._add([configuration])

    def has(self, configuration: Configuration) -> bool:
        """Return whether the configuration takes part."""
        return configuration in self._index

    def update_scores(self, configuration: Configuration, scores: FloatArray) -> None:
        """Update the (n,) scores of a configuration on the first n items."""
        index, state = self._index[configuration], self.state
        if len(scores) == len(self._scores[index]):
            return
        test = self._tests[index]
        test.extend(scores[test.items :])
        self._scores[index] = scores
        sides = ThresholdVerdicts.of(test.decisions, self._accuracies)
        accurate, inaccurate = np.ones(len(self._is_bounded), dtype=bool), np.zeros(len(self._is_bounded), dtype=bool)
        accurate[self._is_bounded], inaccurate[self._is_bounded] = sides.meets, sides.fails
        low, high = state.confidence.metric.range
        self.state = state.with_row(
            index,
            items=len(scores),
            accurate=accurate,
            inaccurate=inaccurate,
            means=test.estimate,
            variances=shrunk_variance(test.residual_sum_of_squares, len(scores), high - low),
            score_variances=shrunk_variance(float(((scores - scores.mean()) ** 2).sum()), len(scores), high - low),
        )
        for pair in {index, *np.flatnonzero(state.references == index).tolist()}:
            self._compare(pair)

    def add_scores(self, configuration: Configuration, scores: Sequence[float]) -> None:
        """Add the (n,) scores of a configuration on its next items."""
        self.update_scores(configuration, np.concatenate([self._scores[self._index[configuration]], scores]))

    def update_usage(self, usage: ResourceUsage) -> None:
        """Update the resource usage of all configurations, which they are compared by from now on."""
        state, slow = self.state, self.state.slow
        # References are never replaced: every further comparison would take a share of the risk.
        new = usage.references() if self._with_references else state.references
        references = np.where(state.references < 0, new, state.references)
        if usage.min_latency_s is not None:
            latencies = tuple(requirement.latency for requirement in state.slos.requirements)
            population, risk = state.confidence.population, state.confidence.latency_risk
            slow = provably_too_slow(usage.min_latency_s, population, latencies, risk)
        self.state = replace(
            state,
            usage=usage,
            slow=slow,
            references=references,
            reference_no_costlier=usage.reference_no_costlier(references),
            latency_items=np.where(usage.heavy_tailed, self._distribution_free_items, state.latency_items),
        )
        for index in np.flatnonzero(references >= 0).tolist():
            self._compare(index)

    def prune(self, pruned: Mapping[Slos, Collection[Configuration]]) -> None:
        """Update the SLO requirements that need not be decided (`SamplerDecision.pruned`)."""
        table = self.state.pruned.copy()
        for column, requirement in enumerate(self.state.slos.requirements):
            if requirement in pruned:
                skipped = pruned[requirement]
                table[:, column] = [configuration in skipped for configuration in self.configurations]
        self.state = replace(self.state, pruned=table)

    def mark_failed(self, configuration: Configuration) -> None:
        """Exclude a failed configuration from further measurement."""
        self.state = self.state.with_row(self._index[configuration], failed=True)

    def mark_exhausted(self, configuration: Configuration) -> None:
        """Exclude a configuration without further recordings from measurement; its measurements are retained."""
        self.state = self.state.with_row(self._index[configuration], exhausted=True)

    def failed(self, configuration: Configuration) -> bool:
        index = self._index.get(configuration)
        return index is not None and bool(self.state.failed[index])

    def is_closed(self, configuration: Configuration) -> bool:
        """Return whether the configuration is excluded from further measurement (failed or exhausted)."""
        index = self._index.get(configuration)
        return index is not None and bool(self.state.failed[index] or self.state.exhausted[index])

    def items(self, configuration: Configuration) -> int:
        """Return the number of measured items, a prefix of the order."""
        index = self._index.get(configuration)
        return 0 if index is None else len(self._scores[index])

    def next_step(
        self,
        seconds: Callable[[Configuration, int], float],
        within_s: float,
        without: Collection[Configuration] = (),
        *,
        latency_only: bool = False,
    ) -> MeasurementStep | None:
        """Return the next step among the configurations with measurements; see `next_measurement`."""
        return next_measurement(
            self.state,
            self.checkpoints,
            lambda index, items: seconds(self.configurations[index], items),
            within_s,
            [self._index[configuration] for configuration in without],
            latency_only=latency_only,
        )

    @property
    def target_items(self) -> IntArray:
        """(k,) expected final number of items."""
        state, targets = self.state, self.state.items.copy()
        short = state.needs_latency_items
        targets[short] = np.maximum(targets[short], state.latency_items[short])
        for q in np.flatnonzero(state.open.any(axis=0)).tolist():
            open_ = np.flatnonzero(state.open[:, q])
            targets[open_] = np.maximum(targets[open_], expected_items_to_decide(open_, q, state))
        return targets

    def verdicts(
        self, bounds: Mapping[Configuration, Interval] | None = None
    ) -> dict[Configuration, ConfigurationVerdict]:
        """Return a verdict with its reason for every configuration that has not failed.

        Args:
            bounds: bounds of mean scores that were computed before, from all scores; others are computed.
        """

        def bounds_of(row: int) -> Interval:
            computed = None if bounds is None else bounds.get(self.configurations[row])
            return computed or self.state.confidence.bounds(self._scores[row][None])[0]

        verdicts = assign_verdicts(self.state, [str(c) for c in self.configurations], bounds_of)
        return {c: verdicts[n] for n, c in enumerate(self.configurations) if not self.state.failed[n]}

    def _add(self, configurations: Sequence[Configuration]) -> None:
        state = self.state
        self._index |= {c: index for index, c in enumerate(configurations, len(self.configurations))}
        self.configurations += tuple(configurations)
        self._scores += [np.zeros(0) for _ in configurations]
        self._tests += [state.confidence.sequential_test(self._accuracies) for _ in configurations]
        blank = RaceState.blank(len(configurations), state.slos, state.confidence, latency_items=self._latency_items)
        self.state = state.followed_by(blank)

    def _compare(self, index: int) -> None:
        """Update whether the reference of a configuration is certainly as accurate."""
        reference = int(self.state.references[index])
        if reference < 0:
            return
        comparison = self._comparisons.setdefault(index, self.state.confidence.sequential_comparison())
        extra = slice(comparison.items, min(len(self._scores[index]), len(self._scores[reference])))
        if extra.start < extra.stop:
            scores = self._scores[reference][extra], self._scores[index][extra]
            comparison.extend(self.state.confidence.paired_differences(*scores))
            self.state = self.state.with_row(index, no_more_accurate=comparison.decisions.at_least[0])
