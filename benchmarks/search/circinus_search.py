"""Our search for one query in the arena, on arrays.

It pursues and believes by the same parts as `circinus profile`, put together for the arena, where a query has one plan
for each configuration and tier, and the pools are its own. Other than there, operators' times are known exactly from
one item on and predicted by pairs of knobs; strata of all items tell how hard the first are; errors of configurations
that are alike count as alike; each fit begins from the one before; and only one side of a threshold is promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from benchmarks.search.arena import Arena, PlanSpace
from benchmarks.search.comparison import SIMILAR
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.prefix_prediction import PrefixTimes
from benchmarks.search.service_time_prediction import Times
from benchmarks.search.slo_cases import Case
from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler import StoppingRule
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.feasibility import feasibility_probability
from circinus.planning.sampler.initial_design import covering_design
from circinus.planning.sampler.mean_estimation import MeanScoreEstimates, estimate_mean_scores
from circinus.planning.sampler.prior_selection import MeanPrior, select_prior
from circinus.planning.sampler.reservation_index import (
    CandidateBeliefs,
    expected_items_to_decide,
    select_by_reservation_cost,
)
from circinus.planning.sampler.source_scores import SourceTask
from circinus.planning.sampler.surrogate import Belief
from circinus.profiling.confidence_sequences import (
    Covariates,
    SequentialThresholdTest,
    one_hot_strata,
    per_sequence_alpha,
)
from circinus.profiling.race.configuration_race import look_schedule

RISK = 0.05
NEAR = StoppingRule(saving=0.01, probability=0.05)
"""The aim is a plan within 1 % of the least cost."""
USUAL = StoppingRule()
BEGINNING_ITEMS = 100
"""Items that beginning a configuration counts as besides those measured: it is spared where others tell as much."""
_DRAWS = 32
_DEGREES = 4.0
"""Of freedom of the draws of what operators take: rests are heavy-tailed."""
_PSEUDO_REST = 1 / 16
"""Share of the range by which one item more is taken to be off."""


@dataclass(frozen=True, eq=False)
class Circinus:
    """Charged: the items that it measures, prefixes once an item.

    The answer is the cheapest plan of the configurations that surely keep the threshold, at a risk of 0.05 for the
    whole run; none: the case is called infeasible, as no configuration is believed to be worth pursuing. Knowing which
    configurations fit nowhere, it leaves them out.
    """

    earlier: Arena | None = None
    """The same pipeline on other data, all of it measured; None: there was none."""
    stopping: StoppingRule = field(default=NEAR)
    reuse_prefixes: bool = True

    @property
    def name(self) -> str:
        """What tables call it."""
        words = ["Circinus"] if self.earlier is None else ["Circinus", "transfer"]
        return ", ".join(words if self.stopping == NEAR else [*words, f"{self.stopping.saving:.0%}"])

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """Until nothing is worth pursuing."""
        run = _Run(case, meter, self.earlier, self.stopping)
        run.search()
        return run.answer()


@dataclass(frozen=True, eq=False)
class WarmCircinus:
    """Ours after the same pipeline was measured on similar data; that is not charged again."""

    stopping: StoppingRule = field(default=NEAR)

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Circinus | None:
        """Where there is similar data."""
        return Circinus(drawn[SIMILAR[name]], self.stopping) if name in SIMILAR else None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What does not depend on the case. Configurations are numbered among those that fit somewhere."""

    numbers: IntArray
    knobs: ConfigurationSpace
    codes: IntArray
    beginning: tuple[int, ...]
    """Places of a cover."""
    covariates: Covariates
    service: PrefixTimes
    sizes: PrefixTimes
    items: PrefixTimes
    earlier: FloatArray | None
    """Means elsewhere."""
    sources: tuple[SourceTask, ...]
    draws: FloatArray
    """(draws, configurations, operators) of a distribution with median 0."""


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
    """One search."""

    def __init__(self, case: Case, meter: Meter, earlier: Arena | None, stopping: StoppingRule) -> None:
        self._case, self._meter, self._stopping = case, meter, stopping
        self._space = meter.space
        self._known = _prepared(meter.space, earlier)
        self._metric = meter.space.pipeline.metric
        self._looks = look_schedule(meter.space.items)
        count = len(self._known.numbers)
        self._risk = per_sequence_alpha(RISK, count, sides=1)
        self._verdicts: dict[int, SequentialThresholdTest] = {}
        self._sure, self._decided = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        self._prior: MeanPrior | None = None
        operators = meter.space.rows.shape[1]
        self._learnt: list[list[Times | None]] = [[None] * operators for _ in range(3)]
        self._predicted: tuple[bytes, FloatArray, FloatArray] | None = None

    def search(self) -> None:
        for place in self._beginning():
            self._measure(place, self._looks[0])
        while True:
            prospects = self._prospects()
            saving_s = float(np.median(self._item_s()[self._items > 0])) * self._space.items
            found = select_by_reservation_cost(prospects, self._stopping, saving_s).configuration
            if found is None:
                return
            self._measure(found, next(look for look in self._looks if look > self._items[found]))

    def answer(self) -> Answer | None:
        costs = self._costs(self._meter.latency_s, self._meter.cost_usd_per_h)
        costs = np.where(self._sure[:, None], costs, np.inf)
        if not np.isfinite(costs).any():
            return None
        place, placement = np.unravel_index(int(costs.argmin()), costs.shape)
        return Answer(int(self._known.numbers[place]), int(placement))

    @property
    def _items(self) -> IntArray:
        return np.asarray(self._meter.items[self._known.numbers])

    def _beginning(self) -> tuple[int, ...]:
        """A cover; with a source first the first configuration that it says is good enough.

        The cover shows what each operator takes: times differ between data sets by more than their source tells.
        """
        means = self._known.earlier
        if means is None:
            return self._known.beginning
        good = np.flatnonzero(self._case.accurate(means))
        promising = int(good[0]) if len(good) else int((self._case.sign * means).argmax())
        return tuple(dict.fromkeys((promising, *self._known.beginning)))

    def _measure(self, place: int, target: int) -> None:
        number = int(self._known.numbers[place])
        new = self._meter.measure(number, target - int(self._meter.items[number]))
        if place not in self._verdicts:
            low, high = self._metric.range
            thresholds = np.array([self._case.threshold])
            self._verdicts[place] = SequentialThresholdTest(
                self._space.items, thresholds, risk=self._risk, low=low, high=high, covariates=self._known.covariates
            )
        self._verdicts[place].extend(new)
        found = self._verdicts[place].verdicts
        self._sure[place] = (found.at_least if self._case.sign > 0 else found.at_most)[0, 0]
        self._decided[place] = found.exhausted

    def _prospects(self) -> CandidateBeliefs:
        places = np.flatnonzero(self._items)
        low, high = self._metric.range
        scores = [self._meter.scores(int(self._known.numbers[place])) for place in places]
        evidence = estimate_mean_scores(scores, self._space.items, high - low, self._known.covariates)
        belief = self._believe(places, evidence)
        kept = feasibility_probability(
            belief.mean, belief.deviation, self._case.threshold, at_least=self._case.sign > 0
        )
        kept[self._decided] = 0.0
        squares = np.array([self._verdicts[int(place)].residual_sum_of_squares for place in places])
        variance = np.median((squares + (_PSEUDO_REST * (high - low)) ** 2) / (self._items[places] + 1))
        settled = expected_items_to_decide(
            belief, kept, self._case.threshold, float(variance), high - low, self._risk, self._space.items
        )
        first, item_s = self._looks[0], self._item_s()
        return CandidateBeliefs(
            keeps=kept,
            sure=self._sure,
            begun=self._items > 0,
            usd_per_h=self._drawn_costs(),
            look_s=item_s * (first + BEGINNING_ITEMS),
            settle_s=item_s * np.maximum(settled - np.maximum(self._items, first), first),
        )

    def _believe(self, places: IntArray, evidence: MeanScoreEstimates) -> Belief:
        codes = self._known.codes
        self._prior = select_prior(
            self._known.knobs, self._known.sources, codes[places], evidence.means, evidence.variances, codes,
            earlier=self._prior, score_range=self._metric.range, shared=evidence.shared,
        )  # fmt: skip
        belief = self._prior.belief(codes)
        return Belief(belief.mean, np.hypot(belief.deviation, evidence.common_deviation(belief.mean)))

    def _costs(self, latency_s: FloatArray, cost_usd_per_h: FloatArray) -> FloatArray:
        """(m, p) infinite where a limit is broken or something is not known."""
        kept = self._case.affordable(latency_s, cost_usd_per_h)
        return np.where(kept, cost_usd_per_h, np.inf)[self._known.numbers]

    def _drawn_costs(self) -> FloatArray:
        return self._predictions()[0]

    def _item_s(self) -> FloatArray:
        """(m,) seconds to profile an item of each."""
        return self._predictions()[1]

    def _predictions(self) -> tuple[FloatArray, FloatArray]:
        """(m, draws) costs of the cheapest plans, (m,) seconds for an item; computed when a further prefix was run."""
        key = self._meter.known_rows.tobytes()
        if self._predicted is None or self._predicted[0] != key:
            self._predicted = key, *self._predict()
        return self._predicted[1:]

    def _predict(self) -> tuple[FloatArray, FloatArray]:
        known, meter, space = self._known, self._meter, self._space
        median_s, deviation = known.service.predict(meter.service_s, self._learnt[0])
        sizes, service_s = np.zeros(space.rows.shape), np.zeros(space.rows.shape)
        sizes[known.numbers] = known.sizes.predict(meter.output_bytes, self._learnt[1])[0]
        usd_per_h = np.empty((len(known.numbers), len(known.draws)))
        for number, draw in enumerate(known.draws):
            service_s[known.numbers] = median_s * np.exp(deviation * draw)
            tables = space.latency_s(service_s, sizes), space.cost_usd_per_h(service_s)
            usd_per_h[:, number] = self._costs(*tables).min(axis=1)
        return usd_per_h, known.items.predict(meter.item_s, self._learnt[2])[0].sum(axis=1)
