"""Candidates that any choice may contain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.matching.cuts import Cut, SizingCut
from circinus.matching.problem import Problem, meets_cost_slo, round_up_replicas


def viable_candidates(problem: Problem, cuts: Sequence[Cut]) -> BoolArray:
    """Return (P,) candidates that fit, and whose cost SLO holds with the most favourable sharing."""
    row, column, fractional = problem.fractional_load.entries(0, len(problem.candidates))
    dedicated = round_up_replicas(fractional, True, problem.spare_replicas[column])
    usable = np.ones(len(problem.candidates), dtype=bool)
    usable[row[dedicated > problem.max_replicas[column]]] = False
    for cut in cuts:
        if isinstance(cut, SizingCut) and not cut.valid:
            usable[cut.candidate] = False
    limit = problem.cost_limit_usd_per_h[problem.query_of]
    while True:  # an excluded candidate cannot share its deployments with others any more
        load_of = max_loads(problem, usable)
        are_distinct_user = (load_of > 0).sum(axis=1) <= 1
        # A deployment's replicas for each unit of its load are never fewer than 1 / (the most load it could get).
        load = np.maximum(load_of.sum(axis=1)[column], fractional)
        ratio = np.where(are_distinct_user[column], dedicated / fractional, np.maximum(1.0, 1.0 / load))
        min_cost = problem.transfer_cost_usd_per_h.copy()
        np.add.at(min_cost, row, problem.price_usd_per_h[column] * fractional * ratio)
        too_dear = usable & ~meets_cost_slo(min_cost, limit)
        if not too_dear.any():
            return usable
        usable &= ~too_dear


def max_loads(problem: Problem, usable: BoolArray) -> FloatArray:
    """Return (D, Q) the maximum load of any usable candidate of each query on each deployment."""
    row, column, fractional = problem.fractional_load.entries(0, len(problem.candidates))
    is_usable = usable[row]
    loads = np.zeros((len(problem.deployments), len(problem.queries)))
    np.maximum.at(loads, (column[is_usable], problem.query_of[row[is_usable]]), fractional[is_usable])
    return loads
