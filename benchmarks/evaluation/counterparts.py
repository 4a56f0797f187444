"""Plain counterparts of the product's mechanisms, which ablations put in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.evaluation.contest import Contest
from circinus.arrays import FloatArray, IntArray
from circinus.matching import Matching
from circinus.matching.cuts import Cut
from circinus.matching.problem import Problem
from circinus.matching.simulation_check import SimulationCheck
from circinus.matching.solvers.greedy import IncrementalSolution, marginal_costs
from circinus.matching.solvers.solver import Solution
from circinus.planning.sampler.kernel import KnobKernel
from circinus.planning.sampler.mean_estimation import MeanScoreEstimates
from circinus.profiling import PipelineProfile
from circinus.queueing.waiting_time import WaitDistribution
from circinus.statistics.mean_decision import shrunk_variance

_FAR = 1e4
"""Inverse length scale at which two different choices of a knob have no correlation."""
_LOGARITHMS, _SLOPES, _WAITS = KnobKernel.logarithms, KnobKernel.slopes, WaitDistribution.at


def unrelated_logarithms(kernel: KnobKernel, inverse_lengthscale: FloatArray) -> FloatArray:
    """Return log correlations as `KnobKernel.logarithms`, with none between different configurations."""
    return _LOGARITHMS(kernel, np.full_like(inverse_lengthscale, _FAR))


def unrelated_slopes(kernel: KnobKernel, inverse_lengthscale: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the derivatives of `unrelated_logarithms` as `KnobKernel.slopes`: zero."""
    return np.zeros_like(inverse_lengthscale)


def unpaired_means(scores: Sequence[FloatArray], population: int, score_range: float) -> MeanScoreEstimates:
    """Estimate each mean score by itself, as if each configuration had drawn its own items.

    Args:
        scores: scores of each configuration.
        population: number of items that mean scores are of.
        score_range: greatest score minus the least.
    """
    counts = np.array([len(own) for own in scores])
    variances = [shrunk_variance(float(((own - own.mean()) ** 2).sum()), len(own), score_range) for own in scores]
    means = np.array([own.mean() for own in scores])
    return MeanScoreEstimates(means, np.array(variances) / counts * (1.0 - counts / population), 0.0)


def no_strata(strata: Sequence[Mapping[str, str]]) -> FloatArray:
    """Return (N, 0) columns of N items, which nothing distinguishes."""
    return np.zeros((len(strata), 0))


def one_stratum(strata: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return one name for the strata of N items."""
    return ("",) * len(strata)


def whole_data_set(items: int) -> tuple[int, ...]:
    """Return the only sample size: all items."""
    return (items,)


def no_sources(*_: object) -> tuple[()]:
    """Return no earlier measurements."""
    return ()


def no_waits(distribution: WaitDistribution, exponentials: FloatArray) -> FloatArray:
    """Return waits of zero, in the shape of `WaitDistribution.at`."""
    return _WAITS(distribution, exponentials) * 0.0


def without_columns(candidates: Any, *_: object, **__: object) -> Any:
    """Return the candidates of `generate_columns` without those at dual prices."""
    return candidates


def trusting_check(matching: Matching, *_: object, unconfirmed: Sequence[str] = (), **__: object) -> SimulationCheck:
    """Trust all formulas: what they refuse is violated, and nothing else is."""
    return SimulationCheck(matching, {a.query: a.chosen for a in matching.assignments if a.query in unconfirmed})


class FirstFitSolver:
    """`Solver` that goes through the queries by falling weight once: each gets the cheapest plan that still fits."""

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, warm_starts: Sequence[IntArray] = ()
    ) -> Solution:
        """Return the first fit; see `Solver`. It proves no bound."""
        solution = IncrementalSolution(problem, np.full(len(problem.queries), -1, dtype=np.int64))
        for query in np.argsort(-problem.priority_levels.importance, kind="stable").tolist():
            costs = marginal_costs(problem, query, solution.usage)
            fitting = np.flatnonzero(costs.fits)
            for position in fitting[np.argsort(costs.counted_usd_per_h[fitting], kind="stable")].tolist():
                solution.move(query, int(problem.block[query]) + position)
                if solution.is_feasible(cuts):
                    break
                solution.move(query, -1)
        chosen = solution.chosen
        return Solution(chosen, chosen, problem.priority_levels.total_weights, 0.0, optimal=False)


def with_own_pipelines(
    contest: Contest, profiles: Mapping[str, PipelineProfile]
) -> tuple[Contest, Mapping[str, PipelineProfile]]:
    """Return the contest with a pipeline for each query, so that no deployment serves two, and its profiles.

    Args:
        contest: with shared pipelines.
        profiles: pipeline -> what was measured.
    """
    whole, pipelines, queries = contest.specification, {}, []
    own: dict[str, dict[str, PipelineProfile]] = {"truth": {}, "profiles": {}}
    for query in whole.queries:
        name = f"{query.pipeline}-{query.name}"
        pipelines[name] = whole.pipelines[query.pipeline].model_copy(update={"name": name})
        queries.append(query.model_copy(update={"pipeline": name}))
        own["truth"][name] = replace(contest.truth[query.pipeline], pipeline=name)
        own["profiles"][name] = replace(profiles[query.pipeline], pipeline=name)
    specification = replace(whole, pipelines=pipelines, queries=tuple(queries))
    return replace(contest, specification=specification, truth=own["truth"], traces={}), own["profiles"]
