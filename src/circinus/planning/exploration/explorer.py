"""Choosing which configurations to measure at all, for all queries on a pipeline together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.choice import Stopping, choose
from circinus.planning.exploration.cover import covering
from circinus.planning.exploration.evidence import evidence_of
from circinus.planning.exploration.improvement import Outlook, keeps, pointless
from circinus.planning.exploration.knob_space import KnobSpace
from circinus.planning.exploration.plan_costs import SureCosts, least_costs
from circinus.planning.exploration.predicted import Predicted, predict
from circinus.planning.exploration.surrogate import Belief, Surrogate
from circinus.profiling import (
    LEAST_ITEMS,
    Assessment,
    Certificate,
    ConfigurationProfile,
    Objective,
    PipelineProfile,
    Proposal,
)
from circinus.profiling.explorer import Seconds
from circinus.spec import AccuracySlo, Configuration, Network, Query, Specification

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_DEFAULT = Stopping()
_Z = 2.0
"""Standard deviations that an estimate is to be away from a threshold, for a guess of how many items that takes."""


class PlanExplorer:
    """Measures what most likely makes plans cheaper, per second.

    Of accuracies it believes what a Gaussian process over the knobs says of those measured; what plans cost it computes
    from the profiles of operators, measured or predicted. A configuration is worth, for each query, the share of the
    plan's cost that it saves times the probability that it keeps the accuracy objective; divided by the seconds until
    that is expected to be known. It follows from what is known alone.
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
        self._stopping = stopping
        self._listed: tuple[Configuration, ...] = ()
        self._predicted: Predicted | None = None
        self._codes = np.zeros((0, 0), dtype=np.int64)
        self._last: tuple[object, tuple[FloatArray, ...]] | None = None

    def cover(self, listed: Sequence[Configuration]) -> Sequence[Configuration]:
        """Configurations to begin with, so that something is known of every operator."""
        self._listed = tuple(listed)
        self._codes = self._space.encode(listed)
        return covering(listed)

    def assess(self, known: PipelineProfile, seconds: Seconds) -> Assessment:
        """What is worth measuring; see `Explorer`."""
        failed = {failure.configuration for failure in known.failed}
        listed = self._listed
        measured_of = {found.configuration: found for found in known.configurations}
        measured = np.array([c in measured_of or c in failed for c in listed], dtype=bool)
        unmeasured = int((~measured).sum())
        predicted = self._predicted = predict(self._pipeline, known, listed, self._predicted)
        if predicted is None:
            return Assessment(Certificate(unmeasured, 1.0, self._stopping.saving, conclusive=False), {})
        belief = self._believe(listed, measured_of, known.dataset_items - known.held_out_items)
        sure = self._sure(listed, measured_of)
        lower = self._least_costs(predicted)
        unknown = np.array([configuration in predicted.unknown for configuration in listed], dtype=bool)
        lower = tuple(np.where(unknown[:, None], 0.0, costs) for costs in lower)  # they may cost next to nothing
        exact = self._sure_costs.of(known, listed, sure)
        outlooks = [
            Outlook(_keeps(belief, query.slos.accuracy), sure[:, q], measured, lower[q], exact[q])
            for q, query in enumerate(self._queries)
        ]
        idle = self._pointless(outlooks)
        items = self._items(belief, len(listed), known)
        choice = choose(outlooks, self._weights, lambda n: seconds(listed[n], int(items[n])), self._stopping)
        if choice.configuration is not None:
            return Assessment(Proposal(listed[choice.configuration], choice.worth_per_s), idle)
        begun = len(known.usable) == len(known.configurations)
        conclusive = begun and choice.probability <= self._stopping.probability
        return Assessment(Certificate(unmeasured, choice.probability, self._stopping.saving, conclusive), idle)

    def _least_costs(self, predicted: Predicted) -> tuple[FloatArray, ...]:
        """As of the last time, where nothing was learnt of any operator since."""
        key = predicted.key
        if self._last is None or self._last[0] != key:
            costs = least_costs(self._pipeline, self._queries, predicted.profile, self._network, self._listed)
            self._last = key, costs
        return self._last[1]

    def _pointless(self, outlooks: Sequence[Outlook]) -> dict[Objective, BoolArray]:
        """An objective is pointless to ask where it is for every query behind it."""
        found: dict[Objective, BoolArray] = {}
        for query, outlook in zip(self._queries, outlooks, strict=True):
            objective = Objective(query.slos.accuracy, query.slos.latency)
            idle = pointless(outlook, self._stopping.saving)
            found[objective] = found[objective] & idle if objective in found else idle
        return found

    def _believe(
        self, listed: Sequence[Configuration], known: Mapping[Configuration, ConfigurationProfile], population: int
    ) -> Belief:
        """What the scores measured say of the mean scores of all."""
        seen = [known[configuration] for configuration in listed if configuration in known]
        low, high = self._pipeline.metric.range
        evidence = evidence_of([found.scores for found in seen], population, high - low)
        codes = self._space.encode([found.configuration for found in seen])
        surrogate = Surrogate.fit(
            self._space, codes, evidence.means, evidence.variances, score_range=self._pipeline.metric.range
        )
        belief = surrogate.predict(self._codes)
        return replace(belief, deviation=np.sqrt(belief.deviation**2 + evidence.common_variance))

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
