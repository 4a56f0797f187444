"""JellyBean-style: beam search over the models of each operator, then greedy workers on heterogeneous tiers.

After Wu et al., "Serving and Optimizing Machine Learning Workflows on Heterogeneous Infrastructures" (VLDB 2022), and
our understanding of its public prototype. From the last operator to the first, the beam keeps the cheapest partial
choices of models that still reach the accuracy target. From the first operator to the last, each gets workers on the
tier of its inputs or a later one: one place that can do everything, else several, which divide the traffic. The
cheapest of several assignments is taken, by the workers that it adds and the work that it takes.

Simplified: a partial choice reaches the target if it does with the most accurate models at all other operators, which
are found one operator at a time; this replaces profiles of output over input accuracy. Workers are replicas up to the
common utilization, and queries, in order of arrival, share those of equal operators. The method ignores latency; plans
are left out that miss the objective by mean times with one request before it at each operator.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.admission import Admission
from benchmarks.baselines.planners.jellybean_workers import WorkerAssigner
from benchmarks.baselines.planners.query_plans import is_accurate, kind_of
from benchmarks.baselines.planners.visible_plans import (
    Banned,
    is_affordable,
    is_banned,
    planned_below_cost,
    visible_usd_per_h,
)
from benchmarks.evaluation.contest import Contest, Market, Planned
from circinus.matching.plan_estimates import PlanEstimates
from circinus.profiling import ConfigurationProfile
from circinus.specification import Configuration, KnobValues, Pipeline, Query

_MODELS = 10
"""Choices of models that the beam keeps."""
_TRIES = 10
"""Assignments of workers that are tried for a query."""


_DESCRIPTION = __doc__  # in a class, `__doc__` is its own


@dataclass(frozen=True)
class JellyBean:
    """Planner of one workflow after another."""

    name: str = "JellyBean-style"
    tiers: tuple[str, ...] | None = None
    description: str = _DESCRIPTION

    def plan(self, contest: Contest, seed: int) -> Planned:
        """See `Planner`. The seed has no effect."""
        market = Market(contest, shares_prefixes=True)
        begin_s = time.perf_counter()
        specification = contest.specification
        models = {name: _Models(market, pipeline) for name, pipeline in specification.pipelines.items()}
        chosen = dict[Query, Sequence[ConfigurationProfile]]()
        for query in specification.queries:
            if kind_of(query) not in chosen:
                chosen[kind_of(query)] = models[query.pipeline].search(query)
        profiles = {name: market.profile(name, list(own.measured.values())) for name, own in models.items()}
        estimates = PlanEstimates(specification, profiles)

        def assigned(banned: Banned) -> Admission:
            admission = Admission(specification, estimates)
            for query in specification.queries:
                pipeline = specification.pipelines[query.pipeline]
                assigner = WorkerAssigner(query, pipeline, contest.network, admission.capacity)
                found = [longer for measured in chosen[kind_of(query)] for longer in assigner.assignments(measured)]
                for assignment in sorted(found, key=lambda assignment: assignment.usd_per_h)[:_TRIES]:
                    plan = assigner.divided(assignment)
                    candidate = None if is_banned(banned, query, plan) else admission.estimate(query, plan)
                    if candidate is None or not is_affordable(query, visible_usd_per_h(candidate)):
                        continue
                    if admission.admit(query, candidate):
                        break
            return admission

        return planned_below_cost(market, begin_s, assigned)


class _Models:
    """Choices of models of a pipeline, measured where the search comes by."""

    def __init__(self, market: Market, pipeline: Pipeline) -> None:
        self._market, self._pipeline = market, pipeline
        self._configurations = frozenset(market.configurations(pipeline.name))
        self._variants = {
            operator.name: sorted({configuration[operator.name] for configuration in self._configurations})
            for operator in pipeline.topological_order()
        }
        self.measured: dict[Configuration, ConfigurationProfile] = {}
        self._reference = dict(min(self._configurations).operators)
        """The most accurate model of each operator."""
        sign = 1.0 if pipeline.metric.direction == "maximize" else -1.0
        for name in self._variants:
            best = max(self._expanded([self._reference], name), key=lambda own: sign * own.accuracy.value)
            self._reference = dict(best.configuration.operators)

    def search(self, query: Query) -> Sequence[ConfigurationProfile]:
        """Return the cheapest choices that meet the accuracy objective of a query."""
        beam, assigned = [self._reference], list[str]()
        for name in reversed(self._variants):
            assigned.append(name)
            accurate = [own for own in self._expanded(beam, name) if is_accurate(query, own)]
            accurate.sort(key=lambda own: sum(float(own.operators[a].service_s.mean()) for a in assigned))
            beam = [dict(own.configuration.operators) for own in accurate[:_MODELS]]
        return [self.measured[Configuration.of(models)] for models in beam]

    def _expanded(self, choices: Sequence[Mapping[str, KnobValues]], operator: str) -> Sequence[ConfigurationProfile]:
        """Return the measurements of choices with every model of one operator."""
        expanded = dict[Configuration, ConfigurationProfile]()
        for models in choices:
            for variant in self._variants[operator]:
                configuration = Configuration.of({**models, operator: variant})
                if configuration in self._configurations:
                    if configuration not in self.measured:
                        items = np.arange(self._market.items(self._pipeline.name))
                        measured = self._market.measure(self._pipeline.name, configuration, items)
                        self.measured[configuration] = measured
                    expanded[configuration] = self.measured[configuration]
        return list(expanded.values())
