"""Our search for one query in the arena: the parts that `circinus profile` uses, on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.search_arena import Arena, BoolArray, FloatArray, IntArray, PlanSpace
from benchmarks.search_cases import Case
from benchmarks.search_meter import Answer, Meter
from benchmarks.search_race import SIMILAR
from circinus.planning.exploration import Stopping
from circinus.planning.exploration.choice import choose
from circinus.planning.exploration.cover import covering
from circinus.planning.exploration.evidence import evidence_of
from circinus.planning.exploration.improvement import Outlook, keeps, pointless
from circinus.planning.exploration.knob_space import KnobSpace
from circinus.planning.exploration.predicted import CAUTION, LEAST_SPREAD, UNSEEN_SPREAD
from circinus.planning.exploration.sources import Source
from circinus.planning.exploration.transfer import Prior, best_prior
from circinus.profiling.confidence import Confidence
from circinus.profiling.footprints import Footprints
from circinus.profiling.objectives import Objective, Objectives
from circinus.profiling.standings import Standings
from circinus.spec import AccuracySlo, Configuration

RISK = 0.05
STOPPING = Stopping(saving=0.01, probability=0.05)
"""The aim is a plan within 1 % of the least cost."""
_DEVIATIONS = 2.0


@dataclass(frozen=True, eq=False)
class Circinus:
    """Charged: the items that it measures, prefixes once an item.

    The answer is the cheapest plan of the configurations that surely keep the threshold, at a risk of 0.05 for all that
    is said in a run; none: the case is called infeasible. Knowing which configurations fit nowhere, it leaves them out.
    """

    earlier: Arena | None = None
    """The same pipeline on other data, all of it measured; None: there was none."""
    reuse_prefixes: bool = True

    @property
    def name(self) -> str:
        """What tables call it."""
        return "Circinus" if self.earlier is None else "Circinus, transfer"

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """Until nothing is open."""
        run = _Run(case, meter, self.earlier)
        run.search()
        return run.answer()


@dataclass(frozen=True, eq=False)
class WarmCircinus:
    """Ours after the same pipeline was measured on similar data; that is not charged again."""

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Circinus | None:
        """Where there is similar data."""
        return Circinus(earlier=drawn[SIMILAR[name]]) if name in SIMILAR else None


class _Run:
    """One search. Configurations are numbered among those that fit somewhere."""

    def __init__(self, case: Case, meter: Meter, earlier: Arena | None) -> None:
        self._case, self._meter, space = case, meter, meter.space
        self._numbers: IntArray = np.flatnonzero(space.fits.any(axis=1))
        self._listed = tuple(space.configurations[n] for n in self._numbers)
        self._knobs = KnobSpace.of(space.pipeline)
        self._codes = self._knobs.encode(self._listed)
        self._metric = space.pipeline.metric
        slo = AccuracySlo(threshold=case.threshold, comparison=">=" if case.sign > 0 else "<=")
        self._objective = Objective(slo)
        self._confidence = Confidence.of_run(self._metric, space.strata, RISK, len(self._listed))
        self._standings = Standings(
            self._listed, self._confidence, Objectives((self._objective,), (1.0,), RISK, 1, 1), comparing=False
        )
        self._elsewhere = earlier
        self._earlier = None if earlier is None else earlier.means[self._numbers]
        source = None
        if self._earlier is not None:
            source = Source.of("earlier", self._knobs, self._listed, self._earlier, self._metric.range)
        self._sources = () if source is None else (source,)
        self._prior: Prior | None = None
        self._own = _own_knobs(space)
        self._place = {configuration: place for place, configuration in enumerate(self._listed)}

    def search(self) -> None:
        look = self._standings.looks[0]
        for configuration in self._beginning():
            self._measure(self._place[configuration], look)
        while True:
            outlook = self._outlook()
            idle = np.flatnonzero(pointless(outlook, STOPPING.saving)).tolist()
            self._standings.narrow({self._objective: {self._listed[place] for place in idle}})
            until_known_s = self._until_known_s()
            choice = choose([outlook], [1.0], until_known_s.tolist().__getitem__, STOPPING)
            self._standings.weigh(self._footprints())
            step = self._standings.next_step(lambda c, items: self._price_s(self._place[c], items), np.inf)
            if choice.configuration is not None and (step is None or choice.worth_per_s > step.worth_per_s):
                self._measure(choice.configuration, look)
            elif step is not None:
                self._measure(step.configuration, step.target)
            else:
                return

    def answer(self) -> Answer | None:
        sure = self._sure()
        costs = np.where(sure[:, None], self._costs(self._meter.latency_s, self._meter.cost_usd_per_h), np.inf)
        if not np.isfinite(costs).any():
            return None
        place, placement = np.unravel_index(int(costs.argmin()), costs.shape)
        return Answer(int(self._numbers[place]), int(placement))

    def _beginning(self) -> tuple[Configuration, ...]:
        """With a source only one: the cheapest that it says is good enough; else a cover."""
        means = self._earlier
        if means is None:
            return covering(self._listed)
        good = np.flatnonzero(self._case.accurate(means))
        return (self._listed[int(good[0]) if len(good) else int((self._case.sign * means).argmax())],)

    def _measure(self, place: int, target: int) -> None:
        number = int(self._numbers[place])
        self._meter.measure(number, target - int(self._meter.items[number]))
        self._standings.learn(self._listed[place], self._meter.scores(number))

    def _sure(self) -> BoolArray:
        return self._standings.sure[0][:, 0]

    def _outlook(self) -> Outlook:
        items = self._meter.items[self._numbers]
        measured = items > 0
        places = np.flatnonzero(measured)
        low, high = self._metric.range
        evidence = evidence_of(
            [self._meter.scores(int(self._numbers[p])) for p in places], self._meter.space.items, high - low
        )
        self._prior = best_prior(
            self._knobs, self._sources, self._codes[places], evidence.means, evidence.variances, self._codes,
            earlier=self._prior, score_range=(low, high),
        )  # fmt: skip
        belief = self._prior.belief(self._codes)
        deviation = np.sqrt(belief.deviation**2 + evidence.common_variance)
        self._belief = belief.mean, deviation
        sure = self._sure()
        known = self._costs(self._meter.latency_s, self._meter.cost_usd_per_h).min(axis=1)
        guessed = self._costs(*self._guessed()).min(axis=1)
        return Outlook(
            keeps=keeps(belief.mean, deviation, self._case.threshold, at_least=self._case.sign > 0),
            sure=sure,
            measured=measured,
            usd_per_h=np.where(measured, known, guessed)[:, None],
            sure_usd_per_h=np.where(sure, known, np.inf)[:, None],
        )

    def _costs(self, latency_s: FloatArray, cost_usd_per_h: FloatArray) -> FloatArray:
        """(k, p) infinite where a limit is broken or something is not known."""
        kept = self._case.affordable(latency_s, cost_usd_per_h)
        return np.where(kept, cost_usd_per_h, np.inf)[self._numbers]

    def _guessed(self) -> tuple[FloatArray, FloatArray]:
        """(k, p) latency and cost, an operator under an unknown prefix taken from the most similar known one."""
        space, meter = self._meter.space, self._meter
        there = self._elsewhere
        service_s = predicted_rows(space, self._own, meter.service_s, None if there is None else there.service_s)
        sizes = predicted_rows(space, self._own, meter.output_bytes, None if there is None else there.output_bytes)
        return space.latency_s(service_s, sizes), space.cost_usd_per_h(service_s)

    def _price_s(self, place: int, target: int) -> float:
        number = int(self._numbers[place])
        return self._meter.price_s(number, target - int(self._meter.items[number]))

    def _until_known_s(self) -> FloatArray:
        """(k,) a guess of the seconds until it is known whether an unmeasured configuration keeps the threshold."""
        mean, deviation = self._belief
        places = np.flatnonzero(self._meter.items[self._numbers] > 0)
        scores = np.concatenate([self._meter.scores(int(n)) for n in self._numbers[places]])
        margins = np.maximum(np.abs(mean - self._case.threshold), deviation / 2)
        items = np.clip(_DEVIATIONS**2 * scores.var() / margins**2, self._standings.looks[0], self._meter.space.items)
        there = None if self._elsewhere is None else self._elsewhere.item_s
        item_s = predicted_rows(self._meter.space, self._own, self._meter.item_s, there)[self._numbers]
        return np.asarray(item_s.sum(axis=1) * items)

    def _footprints(self) -> Footprints:
        """By which the standings compare what configurations take: here cost is all, so it stands for CPU seconds."""
        costs = self._costs(self._meter.latency_s, self._meter.cost_usd_per_h).min(axis=1)
        measured = self._meter.items[self._numbers] > 0
        cpu_s = np.where(measured & np.isfinite(costs), costs, np.where(measured, 1e9, np.nan))[:, None, None]
        ones = np.where(measured, 1.0, np.nan)
        return Footprints(
            cpu_s,
            ones[:, None, None],
            ones[:, None],
            measured.astype(np.int64),
            np.arange(len(ones))[:, None],
            tolerance=0.0,
        )


def predicted_rows(
    space: PlanSpace, own: IntArray, known: FloatArray, elsewhere: FloatArray | None = None
) -> FloatArray:
    """(r,) of prefixes, NaN where not run -> (k, o) with guesses in their places.

    What was measured elsewhere, in the ratio that known ones have on the whole; else the same operator configuration
    under the prefix with most operators in common, of equals the first; else the least of the operator under any. All
    less some spreads.

    Args:
        space: of the plans.
        own: (k, o) numbers of the operators' own knob values.
        known: what was run.
        elsewhere: (r,) the same, measured on other data.
    """
    values = known[space.rows]
    have = ~np.isnan(values)
    guesses, spread = np.full_like(values, np.nan), _spread(values, own)
    if elsewhere is not None:
        both = (known > 0) & (elsewhere > 0)
        ratios = np.log(known[both] / elsewhere[both])
        guesses = elsewhere[space.rows] * np.exp(np.median(ratios) if len(ratios) else 0.0)
        spread = max(LEAST_SPREAD, float(ratios.std(ddof=1))) if len(ratios) > 1 else UNSEEN_SPREAD
    for column in range(values.shape[1]):
        seen = np.unique(space.rows[have[:, column], column], return_index=True)[1]
        seen = np.flatnonzero(have[:, column])[seen]
        lost = np.flatnonzero(~have[:, column] & np.isnan(guesses[:, column]))
        if len(seen) and len(lost):
            alike = (own[lost][:, None, : column + 1] == own[seen][None, :, : column + 1]).sum(axis=2)
            same = own[lost, column][:, None] == own[seen, column][None, :]
            nearest = np.where(same, alike, -1).argmax(axis=1)
            guesses[lost, column] = np.where(
                same.any(axis=1), values[seen[nearest], column], values[seen, column].min()
            )
    return np.where(have, values, guesses * np.exp(-CAUTION * spread))


def _own_knobs(space: PlanSpace) -> IntArray:
    """(k, o) numbers of the operators' own knob values."""
    numbers: dict[object, int] = {}
    operators = [operator.name for operator in space.pipeline.topological_order()]
    return np.array([[numbers.setdefault((o, c[o]), len(numbers)) for o in operators] for c in space.configurations])


def _spread(values: FloatArray, own: IntArray) -> float:
    """As of `circinus.planning.exploration.predicted`: of the logarithm of one operator configuration's values."""
    squares, degrees = 0.0, 0
    for column in range(values.shape[1]):
        for number in np.unique(own[:, column]):
            group = values[own[:, column] == number, column]
            logarithms = np.log(np.unique(group[~np.isnan(group) & (group > 0)]))
            if len(logarithms) > 1:
                squares += float(((logarithms - logarithms.mean()) ** 2).sum())
                degrees += len(logarithms) - 1
    return max(LEAST_SPREAD, float(np.sqrt(squares / degrees))) if degrees else UNSEEN_SPREAD
