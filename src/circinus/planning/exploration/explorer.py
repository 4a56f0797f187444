"""Choosing which configurations to measure at all, for all queries on a pipeline together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.candidates import Promise, candidates
from circinus.planning.exploration.choice import Stopping, choose
from circinus.planning.exploration.cover import covering
from circinus.planning.exploration.elsewhere import Elsewhere, beginning, owed
from circinus.planning.exploration.evidence import evidence_of
from circinus.planning.exploration.improvement import Outlook, incumbents, keeps, pointless
from circinus.planning.exploration.knob_cover import covering_choices
from circinus.planning.exploration.knob_space import IntArray, KnobSpace
from circinus.planning.exploration.plan_costs import SureCosts, least_costs
from circinus.planning.exploration.predicted import CAUTION, Predictor
from circinus.planning.exploration.surrogate import Belief
from circinus.planning.exploration.transfer import Prior
from circinus.profiling import (
    LEAST_ITEMS,
    Assessment,
    Certificate,
    ConfigurationProfile,
    Objective,
    PipelineProfile,
    Proposal,
)
from circinus.profiling.earlier import EarlierScores
from circinus.profiling.explorer import Seconds
from circinus.spec import AccuracySlo, Configuration, Network, Query, Specification

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_DEFAULT = Stopping()
LISTED_AT_MOST = 600
"""Configurations up to which all are looked at in every step."""
_CANDIDATES = 256
"""Configurations that are looked at besides those measured where there are more."""
_DEAR = 2.0
"""What a plan may cost where there is none yet, over the dearest measured."""
_Z = 2.0
"""Standard deviations that an estimate is to be away from a threshold, for a guess of how many items that takes."""


class PlanExplorer:
    """Measures what most likely makes plans cheaper, per second.

    Of accuracies it believes what a Gaussian process over the knobs says of those measured; what plans cost it computes
    from the profiles of operators, measured or predicted. A configuration is worth, for each query, the share of the
    plan's cost that it saves times the probability that it keeps the accuracy objective; divided by the seconds until
    that is expected to be known. It follows from what is known alone.

    Every configuration is looked at where they can be listed, else the most promising ones.
    """

    def __init__(self, specification: Specification, pipeline_name: str, stopping: Stopping = _DEFAULT) -> None:
        """Prepare for the queries on a pipeline.

        Args:
            specification: with an infrastructure and at least one query on the pipeline.
            pipeline_name: which pipeline.
            stopping: when to stop.

        Raises:
            ValueError: there is no infrastructure or no query.
        """
        queries = tuple(query for query in specification.queries if query.pipeline == pipeline_name)
        if specification.infrastructure is None or not queries:
            raise ValueError(f"pipeline {pipeline_name}: found no infrastructure or no query, expected both")
        self._pipeline = specification.pipelines[pipeline_name]
        self._network = Network(specification.infrastructure)
        self._queries, self._weights = _alike(queries)
        self._sure_costs = SureCosts(self._pipeline, self._queries, self._network)
        self._space = KnobSpace.of(self._pipeline)
        self._elsewhere = Elsewhere(self._pipeline, self._space)
        self._predictor = Predictor(self._pipeline, self._space)
        self._stopping = stopping
        self._least = min(self._space.size, len(self._space.columns) + 2)
        self._everything = self._space.everything() if self._space.size <= LISTED_AT_MOST else None
        self._last: tuple[object, tuple[FloatArray, ...]] | None = None

    def cover(self, earlier: Sequence[EarlierScores] = ()) -> Sequence[Configuration]:
        """Configurations to begin with: those that seem best elsewhere, else every choice of every knob at least once.

        Args:
            earlier: what was scored elsewhere; `assess` uses it too.
        """
        self._elsewhere = Elsewhere(self._pipeline, self._space, tuple(earlier))
        self._predictor = Predictor(self._pipeline, self._space, self._elsewhere.operators)
        self._last = None
        return self._best_elsewhere() or self._every_choice

    @cached_property
    def _every_choice(self) -> tuple[Configuration, ...]:
        return self._space.decode(covering_choices(self._space))

    def _best_elsewhere(self) -> tuple[Configuration, ...]:
        """By scores and costs of the source that has most; none where that says nothing of what plans cost."""
        profile, none = self._elsewhere.profile(), np.zeros(0)
        if profile is None:
            return ()
        scored = self._space.encode([found.configuration for found in profile.configurations])
        codes = scored if self._everything is None else self._everything
        before = self._elsewhere.prior(codes[:0], none, none, codes)
        predictor = Predictor(self._pipeline, self._space)
        if before.candidates is None or not predictor.learn(profile):
            return ()
        listed = self._space.decode(codes)
        costs = least_costs(self._pipeline, self._queries, predictor.predict(profile, listed), self._network, listed)
        rows = beginning(before.candidates, costs, [query.slos.accuracy for query in self._queries])
        return tuple(listed[row] for row in rows)

    def assess(self, known: PipelineProfile, seconds: Seconds) -> Assessment:
        """What is worth measuring; see `Explorer`."""
        if not self._predictor.learn(known):
            return self._begin(known)
        measured_of = {found.configuration: found for found in known.configurations}
        prior, common_variance = self._learnt(known)
        codes = self._looked_at(known, prior)
        listed = self._space.decode(codes)
        measured = np.array([c in measured_of for c in listed], dtype=bool)
        failed = {failure.configuration for failure in known.failed}
        belief = prior.belief(codes)
        belief = replace(belief, deviation=np.sqrt(belief.deviation**2 + common_variance))
        sure = self._sure(listed, measured_of)
        lower = self._least_costs(known, codes, listed)
        exact = self._sure_costs.of(known, listed, sure)
        outlooks = [
            Outlook(_keeps(belief, query.slos.accuracy), sure[:, q], measured, lower[q], exact[q])
            for q, query in enumerate(self._queries)
        ]
        idle = self._pointless(outlooks, listed)
        items = self._items(belief, len(listed), known)
        stopping = self._stopping
        if any(np.isinf(incumbents(outlook)).all() for outlook in outlooks) and len(measured_of) < self._least:
            stopping = replace(stopping, probability=0.0)  # too little is known to say that a query has no plan
        choice = choose(outlooks, self._weights, lambda n: seconds(listed[n], int(items[n])), stopping)
        found = None if choice.configuration is None else listed[choice.configuration]
        worth_per_s, every_choice = choice.worth_per_s, self._owed(prior, {*measured_of, *failed}, seconds)
        if every_choice is not None:
            found, worth_per_s = every_choice, math.inf
        begun = len(known.usable) == len(known.configurations)
        certificate = Certificate(
            unmeasured=known.unmeasured,
            considered=sum(c not in measured_of and c not in failed for c in listed),
            probability=choice.probability,
            saving=self._stopping.saving,
            conclusive=begun and found is None and choice.probability <= stopping.probability,
            next=found,
            prior=prior.reason if self._elsewhere.sources else "",
        )
        return Assessment(None if found is None else Proposal(found, worth_per_s), certificate, idle)

    def _begin(self, known: PipelineProfile) -> Assessment:
        """Nothing can be said of anything. Where all that was tried failed, other values of operators are tried."""
        failed = {failure.configuration for failure in known.failed}
        found = None
        if failed and not known.configurations and self._everything is not None:
            others = covering(self._space.decode(self._everything))
            found = next((configuration for configuration in others if configuration not in failed), None)
        certificate = Certificate(known.unmeasured, 0, 1.0, self._stopping.saving, conclusive=False, next=found)
        return Assessment(None if found is None else Proposal(found, 1.0), certificate, {})

    def _owed(self, prior: Prior, known: Collection[Configuration], seconds: Seconds) -> Configuration | None:
        """Where all sources were dropped: what would have been measured first without any."""
        if prior.name is not None or not self._elsewhere.sources:
            return None
        return owed([found for found in self._every_choice if math.isfinite(seconds(found, 1))], known)

    def _learnt(self, known: PipelineProfile) -> tuple[Prior, float]:
        """What the scores measured say of mean scores; and the variance of what all have in common."""
        low, high = self._pipeline.metric.range
        population = known.dataset_items - known.held_out_items
        evidence = evidence_of([found.scores for found in known.configurations], population, high - low)
        codes = self._space.encode([found.configuration for found in known.configurations])
        prior = self._elsewhere.prior(
            codes, evidence.means, evidence.variances, codes, additive=self._everything is None
        )
        return prior, evidence.common_variance

    def _looked_at(self, known: PipelineProfile, prior: Prior) -> IntArray:
        """(k, d) all codes, or those measured and the most promising ones."""
        if self._everything is not None:
            return self._everything
        measured = self._space.encode([found.configuration for found in known.configurations])
        failed = self._space.encode([failure.configuration for failure in known.failed])
        promise = self._promise(known, prior)
        rng = np.random.default_rng(len(measured))
        avoided = np.concatenate([measured, failed])
        promising = candidates(self._space, prior.fits[None], avoided, _CANDIDATES, rng, promise=promise)
        return np.concatenate([measured, promising])

    def _promise(self, known: PipelineProfile, prior: Prior) -> Promise:
        """The seconds of all operators stand for the cost, which takes longer to compute."""
        service_s = [sum(float(o.service_s.mean()) for o in found.operators.values()) for found in known.configurations]
        sure = self._sure(
            [found.configuration for found in known.configurations],
            {found.configuration: found for found in known.configurations},
        )
        best_s = np.where(sure, np.array(service_s)[:, None], np.inf).min(axis=0)
        best_s = np.where(np.isfinite(best_s), best_s, _DEAR * max(service_s))

        def promise(codes: IntArray) -> FloatArray:
            belief = prior.belief(codes)
            total_s = self._predictor.total_service_s(codes, CAUTION)
            found = np.zeros(len(codes))
            for query, weight, incumbent_s in zip(self._queries, self._weights, best_s, strict=True):
                keeps_it = _keeps(belief, query.slos.accuracy)
                found += weight * keeps_it * np.exp(-total_s / incumbent_s)
            return found

        return promise

    def _least_costs(
        self, known: PipelineProfile, codes: IntArray, listed: Sequence[Configuration]
    ) -> tuple[FloatArray, ...]:
        """As of the last time, where nothing was learnt of any operator since."""
        key = self._predictor.key, codes.tobytes()
        if self._last is None or self._last[0] != key:
            profile = self._predictor.predict(known, listed)
            self._last = key, least_costs(self._pipeline, self._queries, profile, self._network, listed)
        return self._last[1]

    def _pointless(
        self, outlooks: Sequence[Outlook], listed: Sequence[Configuration]
    ) -> dict[Objective, frozenset[Configuration]]:
        """An objective is pointless to ask where it is for every query behind it."""
        found: dict[Objective, frozenset[Configuration]] = {}
        for query, outlook in zip(self._queries, outlooks, strict=True):
            objective = Objective(query.slos.accuracy, query.slos.latency)
            idle = pointless(outlook, self._stopping.saving) & outlook.measured
            those = frozenset(listed[number] for number in np.flatnonzero(idle).tolist())
            found[objective] = found[objective] & those if objective in found else those
        return found

    def _sure(self, listed: Sequence[Configuration], known: Mapping[Configuration, ConfigurationProfile]) -> BoolArray:
        """(k, q) which configurations were measured and surely keep the accuracy objective of which query."""
        found = np.zeros((len(listed), len(self._queries)), dtype=bool)
        for row, configuration in enumerate(listed):
            if configuration in known:
                accuracy = known[configuration].accuracy
                for column, query in enumerate(self._queries):
                    slo = query.slos.accuracy
                    found[row, column] = slo is None or slo.holds_for(
                        accuracy.lower if slo.comparison == ">=" else accuracy.upper
                    )
        return found

    def _items(self, belief: Belief, count: int, known: PipelineProfile) -> FloatArray:
        """(k,) a guess of the items until it is known which objectives a configuration keeps."""
        population = known.dataset_items - known.held_out_items
        thresholds = [query.slos.accuracy.threshold for query in self._queries if query.slos.accuracy is not None]
        if not thresholds:
            return np.ones(count)
        variance = float(np.median([max(float(np.var(c.scores)), 1e-6) for c in known.configurations]))
        margins = np.abs(belief.mean[:, None] - np.array(thresholds)).min(axis=1)
        items = _Z**2 * variance / np.maximum(margins, belief.deviation / 2) ** 2
        return np.asarray(np.clip(np.ceil(items), min(LEAST_ITEMS, population), population))


def _keeps(belief: Belief, slo: AccuracySlo | None) -> FloatArray:
    if slo is None:
        return np.ones(len(belief.mean))
    return keeps(belief.mean, belief.deviation, slo.threshold, at_least=slo.comparison == ">=")


def _alike(queries: Sequence[Query]) -> tuple[tuple[Query, ...], tuple[float, ...]]:
    """One of each group of queries that differ in their names and weights only, and the groups' weights."""
    found: dict[Query, float] = {}
    for query in queries:
        key = query.model_copy(update={"name": "any", "weight": 1.0})
        found[key] = found.get(key, 0.0) + query.weight
    return tuple(found), tuple(found.values())


def explorer_of(specification: Specification, pipeline_name: str) -> PlanExplorer | None:
    """An explorer for a pipeline; None where plans say nothing: no infrastructure, or no query on it."""
    if specification.infrastructure is None or all(q.pipeline != pipeline_name for q in specification.queries):
        return None
    return PlanExplorer(specification, pipeline_name)
