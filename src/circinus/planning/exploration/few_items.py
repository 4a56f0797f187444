"""How far what operators take on all items may be from what they took on the first ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circinus.profiling import OperatorProfile, PipelineProfile

ERRORS = 2.0
"""Standard errors by which operators may well be faster than they were on the first items."""
_LEAST_S = 1e-12


def relative_standard_error(operator: OperatorProfile, population: int) -> float:
    """Standard error of the mean service time over all items, as a share of it (Cochran 1977, section 2.6)."""
    service_s, count = operator.service_s, len(operator.service_s)
    if count < 2:
        return 1.0
    left = max(1.0 - count / population, 0.0)
    return float(service_s.std(ddof=1) / max(float(service_s.mean()), _LEAST_S) * np.sqrt(left / count))


def optimistic_profile(profile: PipelineProfile, population: int) -> PipelineProfile:
    """Every operator faster by `ERRORS`: what may well be if the first items were slow ones."""
    known: dict[int, OperatorProfile] = {}

    def faster(operator: OperatorProfile) -> OperatorProfile:
        if id(operator) not in known:
            factor = float(np.exp(-ERRORS * relative_standard_error(operator, population)))
            known[id(operator)] = replace(operator, service_s=operator.service_s * factor)
        return known[id(operator)]

    return replace(
        profile,
        configurations=tuple(
            replace(found, operators={name: faster(operator) for name, operator in found.operators.items()})
            for found in profile.configurations
        ),
    )
