"""Simulated profiling runs on recorded scores, decided by the profiler's own code, without store and operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling import MeasurementTrace
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.race_state import RaceState
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.specification import AccuracySlo, MetricSpec, Slos
from circinus.statistics.covariates import Covariates, one_hot_strata

RISK = 0.05
FIRST_LOOK = 8
LATENCY_ITEMS = 30
"""Items of a configuration that may be chosen, for a 95th percentile of latency."""


@dataclass(frozen=True)
class Variant:
    """Selection of the profiler's techniques that save items."""

    name: str
    strata: bool = True
    pruning: bool = True
    pairing: bool = True
    partner: int | None = None
    """Configuration that is measured on every item beforehand, its scores a covariate of all configurations."""


@dataclass(frozen=True, eq=False)
class Population:
    """Data set drawn from a trace, in the order of measuring."""

    scores: FloatArray
    """(configurations, items)"""
    strata: tuple[dict[str, str], ...]

    @classmethod
    def draw(cls, trace: MeasurementTrace, items: int, rng: np.random.Generator) -> Population:
        """Draw `items` of the trace's items in uniformly random order."""
        chosen = rng.permutation(trace.scores.shape[1])[:items]
        return cls(trace.scores[:, chosen], tuple(dict(trace.strata[index]) for index in chosen))


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of a run."""

    items: int
    """Number of measured items, summed over configurations."""
    seconds: float
    """Processing time, with shared prefixes run once."""
    wrong: bool
    """True if any verdict was wrong."""
    right: BoolArray
    """(thresholds,) whether the plan recommended at the end is the cheapest feasible one, up to the tolerance."""
    items_until_right: float
    """Number of items from which on the plans recommended for all thresholds were right."""
    right_after: dict[int, float]
    """Share of thresholds with the right recommended plan, per number of measured items."""


class _Unpaired(ResourceUsage):
    """Resource usage without pairs of comparable configurations."""

    def references(self) -> IntArray:
        return np.full(len(self.items), -1, dtype=np.int64)


def footprints_of(trace: MeasurementTrace, variant: Variant) -> ResourceUsage:
    """Return the resource usage of each configuration of a trace on its first items."""
    operators = trace.pipeline.topological_order()
    cpus = np.array([min(operator.cpus) for operator in operators])
    memory = np.array(
        [
            [float(trace.replicas[o.name, configuration[o.name]].peak_memory_bytes) for o in operators]
            for configuration in trace.configurations
        ]
    )
    values: dict[object, int] = {}
    changes = np.array(
        [[values.setdefault((o.name, c[o.name]), len(values)) for o in operators] for c in trace.configurations]
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
    """Simulate a run until every verdict is settled or proven irrelevant.

    Args:
        trace: recorded service times and sizes.
        metric: metric of the scores.
        thresholds: accuracy SLOs, one per query.
        variant: techniques in use.
        population: the items, in the order of measuring.
        watched: numbers of items at which the share of right recommendations is recorded.
    """
    scores, count = population.scores, len(trace.configurations)
    comparison = ">=" if metric.direction == "maximize" else "<="
    slos = tuple(AccuracySlo(threshold=threshold, comparison=comparison) for threshold in thresholds)
    standings = ConfigurationRace(
        trace.configurations,
        _confidence(metric, population, variant, count),
        PipelineSlos(tuple(Slos(accuracy=slo) for slo in slos), (1.0,) * len(slos), RISK, LATENCY_ITEMS, LATENCY_ITEMS),
    )
    measured = np.zeros(count, dtype=np.int64)
    seconds_of = _Seconds(trace)
    judge = _Judge(scores, thresholds, comparison, seconds_of.total_s)

    def learn(number: int, items: int) -> None:
        measured[number] = items
        standings.update_scores(trace.configurations[number], scores[number, :items])

    if variant.partner is not None:
        learn(variant.partner, scores.shape[1])
    for number in range(count):
        learn(number, max(FIRST_LOOK, int(measured[number])))
    if variant.pruning:
        standings.update_usage(footprints_of(trace, variant))
    number_of = {configuration: number for number, configuration in enumerate(trace.configurations)}
    while True:
        judge.look(standings, int(measured.sum()))
        step = standings.next_step(
            lambda configuration, items: seconds_of.increment_s(measured, number_of[configuration], items), np.inf
        )
        if step is None:
            break
        learn(step.configuration, step.target)
    return Outcome(
        items=int(measured.sum()),
        seconds=seconds_of.spent_s(measured),
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
    """Processing seconds, with each prefix run once per item."""

    def __init__(self, trace: MeasurementTrace) -> None:
        self._rows = trace.rows
        self._row_s = np.asarray(trace.service_s).mean(axis=1)
        self.total_s: FloatArray = self._row_s[trace.rows].sum(axis=1)

    def spent_s(self, measured: IntArray) -> float:
        row_items = np.zeros(len(self._row_s))
        for column in self._rows.T:
            np.maximum.at(row_items, column, measured)
        return float((row_items * self._row_s).sum())

    def increment_s(self, measured: IntArray, number: int, items: int) -> float:
        rows = self._rows[number]
        before = [measured[(self._rows == row).any(axis=1)].max() for row in rows]
        return float(sum(max(0, items - have) * self._row_s[row] for row, have in zip(rows, before, strict=True)))


class _Judge:
    """Comparison of verdicts and recommendations with the true means."""

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
        """Record the share of right recommendations after `items` items, and whether a verdict is wrong."""
        state = standings.state
        self._wrong |= bool((state.meets & ~self._keeps).any() or (state.fails & self._keeps).any())
        worse = np.flatnonzero(state.no_more_accurate)
        advantage = self._sign * (self._means[state.references[worse]] - self._means[worse])
        self._wrong |= bool((advantage < -1e-12).any())
        recommended = self._recommended(state)
        has_plan = recommended >= 0
        self.right = np.where(
            self._answerable, has_plan & self._good_enough[recommended, np.arange(len(recommended))], ~has_plan
        )
        self._looks.append((items, float(self.right.mean())))
        wrong = [at for at, share in self._looks if share < 1]
        self.right_since = next((float(at) for at, _ in self._looks if not wrong or at > wrong[-1]), np.inf)

    def _recommended(self, state: RaceState) -> IntArray:
        """Return (thresholds,) the cheapest configuration that certainly meets each one or seems to; -1 for none."""
        eligible = state.meets | (~state.fails & state.estimate_meets & (state.items > 0)[:, None])
        eligible_cost = np.where(eligible, self._cost[:, None], np.inf)
        return np.where(eligible.any(axis=0), eligible_cost.argmin(axis=0), -1)

    def share_at(self, items: int) -> float:
        """Return the share of right recommendations after `items` items, or at the end of a shorter run."""
        return [share for at, share in self._looks if at <= max(items, self._looks[0][0])][-1]

    @property
    def wrong(self) -> bool:
        """True if any verdict was wrong."""
        return self._wrong
