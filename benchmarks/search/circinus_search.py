"""The product's search for one query in the arena, on arrays.

It combines the surrogate and the acquisition of `circinus profile` for the arena, where a query has one plan per
configuration and placement, and pools of its own. It differs from `circinus profile` in that service times are known
exactly from one item on and predicted by pairs of knobs, and only one side of a threshold is guaranteed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from benchmarks.search.arena import Arena, PlanSpace
from benchmarks.search.comparison import SIMILAR
from benchmarks.search.covering_design import covering_design
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.prefix_prediction import PrefixTimes
from benchmarks.search.service_time_prediction import Times
from benchmarks.search.slo_cases import Case
from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler import StoppingRule
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.feasibility import feasibility_probability
from circinus.planning.sampler.mean_estimation import MeanScoreEstimates, estimate_mean_scores
from circinus.planning.sampler.prior_selection import select_prior
from circinus.planning.sampler.reservation_index import (
    CandidateBeliefs,
    expected_items_to_decide,
    select_configuration,
)
from circinus.planning.sampler.source_scores import SourceTask
from circinus.planning.sampler.surrogate import Belief
from circinus.profiling.race.configuration_race import look_schedule
from circinus.statistics.covariates import Covariates, one_hot_strata
from circinus.statistics.sequential_test import SequentialThresholdTest

RISK = 0.05
NEAR = StoppingRule(saving=0.01, probability=0.05)
"""Stopping rule for a plan within 1 % of the least cost."""
USUAL = StoppingRule()
BEGINNING_ITEMS = 100
"""Surcharge, in items, for starting a configuration."""
_DRAWS = 32
_DEGREES = 4.0
"""Degrees of freedom of draws of service times, whose residuals are heavy-tailed."""
_PSEUDO_REST = 1 / 16
"""Residual of one pseudo-item, as a share of the score range."""


@dataclass(frozen=True, eq=False)
class Circinus:
    """Search of the product, charged for measured items, with each prefix run once per item.

    The answer is the cheapest plan of the configurations that keep the threshold with confidence, at a risk of 0.05 for
    the whole run. There is none if no configuration is worth pursuing: the case is then called infeasible.
    Configurations that fit nowhere are left out.
    """

    earlier: Arena | None = None
    """Complete measurement of the pipeline on other data, if any."""
    stopping: StoppingRule = field(default=NEAR)
    reuse_prefixes: bool = True

    @property
    def name(self) -> str:
        """Name in tables."""
        words = ["Circinus"] if self.earlier is None else ["Circinus", "transfer"]
        return ", ".join(words if self.stopping == NEAR else [*words, f"{self.stopping.saving:.0%}"])

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """Search until no configuration is worth pursuing."""
        run = _Run(case, meter, self.earlier, self.stopping)
        run.search()
        return run.answer()


@dataclass(frozen=True, eq=False)
class WarmCircinus:
    """Factory of the product's search with measurements of the pipeline on similar data, free of charge."""

    stopping: StoppingRule = field(default=NEAR)

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Circinus | None:
        """Return a searcher for arenas with similar data."""
        return Circinus(drawn[SIMILAR[name]], self.stopping) if name in SIMILAR else None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Data independent of the case, for the configurations that fit somewhere."""

    numbers: IntArray
    knobs: ConfigurationSpace
    codes: IntArray
    beginning: tuple[int, ...]
    """Indexes of a covering design."""
    covariates: Covariates
    service: PrefixTimes
    sizes: PrefixTimes
    items: PrefixTimes
    earlier: FloatArray | None
    """Means on other data."""
    sources: tuple[SourceTask, ...]
    draws: FloatArray
    """(draws, configurations, operators) draws of a distribution with median 0."""


@lru_cache(maxsize=8)
def _prepared(space: PlanSpace, earlier: Arena | None) -> _Prepared:
    numbers = np.flatnonzero(space.fits.any(axis=1))
    listed = tuple(space.configurations[n] for n in numbers)
    knobs = ConfigurationSpace.of(space.pipeline)
    means = None if earlier is None else earlier.means[numbers]
    source = None if means is None else SourceTask.of("earlier", knobs, listed, means, space.pipeline.metric.range)
    shape = (_DRAWS, len(numbers), space.rows.shape[1])
    return _Prepared(
        numbers=numbers,
        knobs=knobs,
        codes=knobs.encode(listed),
        beginning=tuple(listed.index(configuration) for configuration in covering_design(listed)),
        covariates=Covariates.of(one_hot_strata(space.strata)),
        service=PrefixTimes(space, numbers, None if earlier is None else earlier.service_s),
        sizes=PrefixTimes(space, numbers, None if earlier is None else earlier.output_bytes),
        items=PrefixTimes(space, numbers, None if earlier is None else earlier.item_s),
        earlier=means,
        sources=() if source is None else (source,),
        draws=np.random.default_rng(0).standard_t(_DEGREES, shape),
    )


class _Run:
    def __init__(self, case: Case, meter: Meter, earlier: Arena | None, stopping: StoppingRule) -> None:
        self._case, self._meter, self._stopping = case, meter, stopping
        self._space = meter.space
        self._prepared = _prepared(meter.space, earlier)
        self._metric = meter.space.pipeline.metric
        self._looks = look_schedule(meter.space.items)
        count = len(self._prepared.numbers)
        self._risk = RISK / count
        self._tests: dict[int, SequentialThresholdTest] = {}
        self._sure, self._decided = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        operators = meter.space.rows.shape[1]
        self._learnt: list[list[Times | None]] = [[None] * operators for _ in range(3)]
        self._predicted: tuple[bytes, FloatArray, FloatArray] | None = None

    def search(self) -> None:
        for place in self._beginning():
            self._measure(place, self._looks[0])
        while True:
            prospects = self._prospects()
            saving_s = float(np.median(self._item_s()[self._items > 0])) * self._space.items
            costs = self._drawn_costs()
            chosen = select_configuration(prospects, costs, self._stopping, saving_s).configuration
            if chosen is None:
                return
            self._measure(chosen, next(look for look in self._looks if look > self._items[chosen]))

    def answer(self) -> Answer | None:
        costs = self._costs(self._meter.latency_s, self._meter.cost_usd_per_h)
        costs = np.where(self._sure[:, None], costs, np.inf)
        if not np.isfinite(costs).any():
            return None
        place, placement = np.unravel_index(int(costs.argmin()), costs.shape)
        return Answer(int(self._prepared.numbers[place]), int(placement))

    @property
    def _items(self) -> IntArray:
        return np.asarray(self._meter.items[self._prepared.numbers])

    def _beginning(self) -> tuple[int, ...]:
        """Return a covering design; with a source, after the first configuration that is good enough there.

        The design shows the service times of each operator, which differ between data sets more than scores do.
        """
        means = self._prepared.earlier
        if means is None:
            return self._prepared.beginning
        good = np.flatnonzero(self._case.accurate(means))
        promising = int(good[0]) if len(good) else int((self._case.sign * means).argmax())
        return tuple(dict.fromkeys((promising, *self._prepared.beginning)))

    def _measure(self, place: int, target: int) -> None:
        number = int(self._prepared.numbers[place])
        new = self._meter.measure(number, target - int(self._meter.items[number]))
        if place not in self._tests:
            low, high = self._metric.range
            thresholds = np.array([self._case.threshold])
            self._tests[place] = SequentialThresholdTest(
                self._space.items, thresholds, risk=self._risk, low=low, high=high, covariates=self._prepared.covariates
            )
        self._tests[place].extend(new)
        decisions = self._tests[place].decisions
        self._sure[place] = (decisions.at_least if self._case.sign > 0 else decisions.at_most)[0]
        self._decided[place] = decisions.exhausted

    def _prospects(self) -> CandidateBeliefs:
        places = np.flatnonzero(self._items)
        low, high = self._metric.range
        scores = [self._meter.scores(int(self._prepared.numbers[place])) for place in places]
        evidence = estimate_mean_scores(scores, self._space.items, high - low)
        belief = self._believe(places, evidence)
        feasibility = feasibility_probability(
            belief.mean, belief.deviation, self._case.threshold, at_least=self._case.sign > 0
        )
        feasibility[self._decided] = 0.0
        squares = np.array([self._tests[int(place)].residual_sum_of_squares for place in places])
        variance = np.median((squares + (_PSEUDO_REST * (high - low)) ** 2) / (self._items[places] + 1))
        settled = expected_items_to_decide(
            belief, feasibility, self._case.threshold, float(variance), high - low, self._risk, self._space.items
        )
        first, item_s = self._looks[0], self._item_s()
        return CandidateBeliefs(
            feasibility=feasibility,
            is_certain=self._sure,
            is_measured=self._items > 0,
            look_s=item_s * (first + BEGINNING_ITEMS),
            settle_s=item_s * np.maximum(settled - np.maximum(self._items, first), first),
        )

    def _believe(self, places: IntArray, evidence: MeanScoreEstimates) -> Belief:
        codes = self._prepared.codes
        prior = select_prior(
            self._prepared.knobs, self._prepared.sources, codes[places], evidence.means, evidence.variances,
            score_range=self._metric.range,
        )  # fmt: skip
        belief = prior.belief(codes)
        return Belief(belief.mean, np.sqrt(belief.deviation**2 + evidence.common_variance))

    def _costs(self, latency_s: FloatArray, cost_usd_per_h: FloatArray) -> FloatArray:
        """Return (m, p) costs, infinite where a limit is violated or a value is unknown."""
        is_affordable = self._case.affordable(latency_s, cost_usd_per_h)
        return np.where(is_affordable, cost_usd_per_h, np.inf)[self._prepared.numbers]

    def _drawn_costs(self) -> FloatArray:
        return self._predictions()[0]

    def _item_s(self) -> FloatArray:
        """Return the (m,) seconds to profile an item."""
        return self._predictions()[1]

    def _predictions(self) -> tuple[FloatArray, FloatArray]:
        """Return (m, draws) costs of the cheapest plans and (m,) seconds per item, recomputed after new prefixes."""
        key = self._meter.known_rows.tobytes()
        if self._predicted is None or self._predicted[0] != key:
            self._predicted = key, *self._predict()
        return self._predicted[1:]

    def _predict(self) -> tuple[FloatArray, FloatArray]:
        prepared, meter, space = self._prepared, self._meter, self._space
        median_s, deviation = prepared.service.predict(meter.service_s, self._learnt[0])
        sizes, service_s = np.zeros(space.rows.shape), np.zeros(space.rows.shape)
        sizes[prepared.numbers] = prepared.sizes.predict(meter.output_bytes, self._learnt[1])[0]
        usd_per_h = np.empty((len(prepared.numbers), len(prepared.draws)))
        for number, draw in enumerate(prepared.draws):
            service_s[prepared.numbers] = median_s * np.exp(deviation * draw)
            tables = space.latency_s(service_s, sizes), space.cost_usd_per_h(service_s)
            usd_per_h[:, number] = self._costs(*tables).min(axis=1)
        return usd_per_h, prepared.items.predict(meter.item_s, self._learnt[2])[0].sum(axis=1)
