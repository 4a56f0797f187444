"""Whole profiling runs on recorded scores, decided by the profiler's own code, without a store or an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling import MeasurementTrace
from circinus.profiling.confidence_sequences import Covariates, one_hot_strata
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos, SloRequirement
from circinus.specification import AccuracySlo, MetricSpec

RISK = 0.05
FIRST_LOOK = 8
LATENCY_ITEMS = 30
"""Of a configuration that may be chosen, for a 95th percentile of latency."""


@dataclass(frozen=True)
class Variant:
    """Which of the profiler's means to save items are in use."""

    name: str
    strata: bool = True
    pruning: bool = True
    pairing: bool = True
    partner: int | None = None
    """A configuration that is measured on every item beforehand, its scores a covariate of the others'."""


@dataclass(frozen=True, eq=False)
class Population:
    """A data set drawn from a trace, in the order of measuring."""

    scores: FloatArray
    """(configurations, items)"""
    strata: tuple[dict[str, str], ...]

    @classmethod
    def draw(cls, trace: MeasurementTrace, items: int, rng: np.random.Generator) -> Population:
        """`items` of the trace's items, all in a uniformly random order."""
        chosen = rng.permutation(trace.scores.shape[1])[:items]
        return cls(trace.scores[:, chosen], tuple(dict(trace.strata[index]) for index in chosen))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a run."""

    items: int
    """Summed over configurations."""
    seconds: float
    """Of processing, beginnings that configurations share run once."""
    wrong: bool
    """Whether anything that was said to be sure is not so."""
    right: BoolArray
    """(thresholds,) whether the plan recommended at the end is the cheapest feasible one, up to the tolerance."""
    items_until_right: float
    """Items after which the plans recommended for all thresholds were right and stayed so."""
    right_after: dict[int, float]
    """Items -> share of the thresholds whose recommended plan was right when so many had been measured."""


class _Unpaired(ResourceUsage):
    """Nothing is compared with anything."""

    def references(self) -> IntArray:
        return np.full(len(self.items), -1, dtype=np.int64)


def footprints_of(trace: MeasurementTrace, variant: Variant) -> ResourceUsage:
    """What each configuration of a trace takes on its first items."""
    cpus = np.array([operator.cpus for operator in trace.operators])
    memory = np.array(
        [
            [float(trace.replicas[o.name, configuration[o.name]].peak_memory_bytes) for o in trace.operators]
            for configuration in trace.configurations
        ]
    )
    values: dict[object, int] = {}
    changes = np.array(
        [[values.setdefault((o.name, c[o.name]), len(values)) for o in trace.operators] for c in trace.configurations]
    )
    kind = ResourceUsage if variant.pairing else _Unpaired
    return kind(
        cpu_s=np.asarray(trace.service_s[trace.rows][:, :, :FIRST_LOOK]) * cpus[None, :, None],
        output_bytes=np.asarray(trace.output_bytes[trace.rows][:, :, :FIRST_LOOK]),
        memory_bytes=memory,
        items=np.full(len(trace.configurations), FIRST_LOOK),
        knob_ids=changes,
    )


def simulate(
    trace: MeasurementTrace,
    metric: MetricSpec,
    thresholds: Sequence[float],
    variant: Variant,
    population: Population,
    *,
    watched: Sequence[int] = (),
) -> Outcome:
    """One run until every question is settled or proven not to matter.

    Args:
        trace: has what running takes.
        metric: of its scores.
        thresholds: what queries ask, one each.
        variant: what is in use.
        population: the items, in the order of measuring.
        watched: totals of items at which to look how many recommended plans are right.
    """
    scores, count = population.scores, len(trace.configurations)
    comparison = ">=" if metric.direction == "maximize" else "<="
    asked = tuple(AccuracySlo(threshold=threshold, comparison=comparison) for threshold in thresholds)
    standings = ConfigurationRace(
        trace.configurations,
        _confidence(metric, population, variant, count),
        PipelineSlos(tuple(map(SloRequirement, asked)), (1.0,) * len(asked), RISK, LATENCY_ITEMS, LATENCY_ITEMS),
    )
    known = np.zeros(count, dtype=np.int64)
    seconds_of = _Seconds(trace)
    judge = _Judge(scores, thresholds, comparison, seconds_of.total_s)

    def learn(number: int, items: int) -> None:
        known[number] = items
        standings.update_scores(trace.configurations[number], scores[number, :items])

    if variant.partner is not None:
        learn(variant.partner, scores.shape[1])
    for number in range(count):
        learn(number, max(FIRST_LOOK, int(known[number])))
    if variant.pruning:
        standings.update_usage(footprints_of(trace, variant))
    number_of = {configuration: number for number, configuration in enumerate(trace.configurations)}
    while True:
        judge.look(standings, int(known.sum()))
        step = standings.next_step(
            lambda configuration, items: seconds_of.increment_s(known, number_of[configuration], items), np.inf
        )
        if step is None:
            break
        learn(step.configuration, step.target)
    return Outcome(
        items=int(known.sum()),
        seconds=seconds_of.spent_s(known),
        wrong=judge.wrong,
        right=judge.right,
        items_until_right=judge.right_since,
        right_after={items: judge.share_at(items) for items in watched},
    )


def _confidence(metric: MetricSpec, population: Population, variant: Variant, configurations: int) -> RunConfidence:
    strata = population.strata if variant.strata else tuple({} for _ in population.strata)
    confidence = RunConfidence.of_run(metric, strata, RISK, configurations)
    if variant.partner is None:
        return confidence
    columns = np.column_stack([one_hot_strata(strata), population.scores[variant.partner]])
    return replace(confidence, covariates=Covariates.of(columns))


class _Seconds:
    """Seconds of processing, each prefix once an item."""

    def __init__(self, trace: MeasurementTrace) -> None:
        self._rows = trace.rows
        self._row_s = np.asarray(trace.service_s).mean(axis=1)
        self.total_s: FloatArray = self._row_s[trace.rows].sum(axis=1)

    def spent_s(self, known: IntArray) -> float:
        most = np.zeros(len(self._row_s))
        for column in self._rows.T:
            np.maximum.at(most, column, known)
        return float((most * self._row_s).sum())

    def increment_s(self, known: IntArray, number: int, items: int) -> float:
        rows = self._rows[number]
        before = [known[(self._rows == row).any(axis=1)].max() for row in rows]
        return float(sum(max(0, items - have) * self._row_s[row] for row, have in zip(rows, before, strict=True)))


class _Judge:
    """Knows the truth."""

    def __init__(
        self,
        scores: FloatArray,
        thresholds: Sequence[float],
        comparison: str,
        cost: FloatArray,
        tolerance: float = 0.05,
    ) -> None:
        means = scores.mean(axis=1)[:, None]
        limits = np.asarray(thresholds)[None, :]
        self._keeps: BoolArray = means >= limits if comparison == ">=" else means <= limits
        self._cost = cost
        cheapest = np.where(self._keeps, cost[:, None], np.inf).min(axis=0)
        self._good_enough = self._keeps & (cost[:, None] <= cheapest * (1 + tolerance))
        self._answerable: BoolArray = self._keeps.any(axis=0)
        self._looks: list[tuple[int, float]] = []
        self._means: FloatArray = means[:, 0]
        self._sign = 1.0 if comparison == ">=" else -1.0
        self._wrong = False
        self.right: BoolArray = np.zeros(len(limits[0]), dtype=bool)
        self.right_since = np.inf

    def look(self, standings: ConfigurationRace, items: int) -> None:
        """See which recommended plans are right after so many items, and whether what is sure is true."""
        meets, fails = standings.decided
        self._wrong |= bool((meets & ~self._keeps).any() or (fails & self._keeps).any())
        for better, worse in standings.surely_as_accurate():
            self._wrong |= bool(self._sign * (self._means[better] - self._means[worse]) < -1e-12)
        recommended = standings.recommended(self._cost)
        found = recommended >= 0
        self.right = np.where(
            self._answerable, found & self._good_enough[recommended, np.arange(len(recommended))], ~found
        )
        self._looks.append((items, float(self.right.mean())))
        wrong = [at for at, share in self._looks if share < 1]
        self.right_since = next((float(at) for at, _ in self._looks if not wrong or at > wrong[-1]), np.inf)

    def share_at(self, items: int) -> float:
        """Of the recommended plans, when `items` had been measured; at the end, if the run took fewer."""
        return [share for at, share in self._looks if at <= max(items, self._looks[0][0])][-1]

    @property
    def wrong(self) -> bool:
        """Whether something was ever said to be sure that is not so."""
        return self._wrong
