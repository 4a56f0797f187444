"""How the requests of a query come, as far as formulas can take it into account."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from circinus.estimation.traffic import Traffic
from circinus.queueing.arrivals import ArrivalProcess, MarkovModulated, Periodic, Recorded, arrival_process, measured
from circinus.spec import Query

_NEARLY_REGULAR = 0.25
"""Jitter up to this share of the time between two requests leaves them regular."""


@dataclass(frozen=True)
class Coming:
    """Regular, in bursts, or neither: then independent of each other."""

    regular: bool = False
    modulation: MarkovModulated | None = None

    @classmethod
    def of(cls, query: Query) -> Coming:
        """As the query says; a recording as what it was measured to be."""
        process = arrival_process(query)
        if isinstance(process, Recorded):
            process = _measured(process)
        if isinstance(process, Periodic):
            return cls(regular=process.jitter_s * process.rate_per_s <= _NEARLY_REGULAR)
        return cls(modulation=process if isinstance(process, MarkovModulated) else None)

    def traffic(self, rate_per_s: float, mean_s: float, square_s2: float, cube_s3: float, *, first: bool) -> Traffic:
        """Requests that come so.

        Args:
            rate_per_s: of the query.
            mean_s: mean seconds in service.
            square_s2: mean of their squares.
            cube_s3: mean of their cubes.
            first: whether requests come straight from the source; behind other queues they are no longer regular.
        """
        return Traffic(rate_per_s, mean_s, square_s2, cube_s3, self.regular and first, self.modulation)


@lru_cache(maxsize=256)
def _measured(recording: Recorded) -> ArrivalProcess:
    return measured(np.array(recording.moments_s), recording.period_s)
