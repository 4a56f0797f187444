"""Which codes are worth a closer look, where there are too many to look at all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from circinus.planning.exploration.candidates import Promise
from circinus.planning.exploration.keeping import classify_feasibility, population_size, slo_feasibility
from circinus.planning.exploration.knob_space import IntArray
from circinus.planning.exploration.predicted import CAUTION, ProfilePredictor
from circinus.planning.exploration.transfer import MeanPrior
from circinus.profiling import PipelineProfile
from circinus.spec import Query

FloatArray = NDArray[np.float64]

_LEAST_S = 1e-9
_DEAR = 2.0
"""What a plan may take where there is none yet, over the dearest measured."""


def acquisition_function(
    queries: Sequence[Query],
    weights: Sequence[float],
    known: PipelineProfile,
    prior: MeanPrior,
    predictor: ProfilePredictor,
) -> Promise:
    """The probability that a configuration keeps each query's accuracy objective, less the more seconds it takes.

    The seconds of all operators stand for the cost, which takes longer to compute; they are compared with those of the
    query's best configuration so far.
    """
    measured_of = {found.configuration: found for found in known.configurations}
    service_s = [sum(float(o.service_s.mean()) for o in found.operators.values()) for found in known.configurations]
    sure, _ = classify_feasibility(queries, list(measured_of), measured_of, population_size(known))
    best_s = np.where(sure, np.array(service_s)[:, None], np.inf).min(axis=0)
    best_s = np.maximum(np.where(np.isfinite(best_s), best_s, _DEAR * max(service_s)), _LEAST_S)

    def promise(codes: IntArray) -> FloatArray:
        belief = prior.belief(codes)
        total_s = predictor.total_service_s(codes, CAUTION)
        found = np.zeros(len(codes))
        for query, weight, incumbent_s in zip(queries, weights, best_s, strict=True):
            found += weight * slo_feasibility(belief, query.slos.accuracy) * np.exp(-total_s / incumbent_s)
        return found

    return promise
