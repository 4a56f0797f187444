"""How the requests of a query come, as far as formulas can take it into account."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from circinus.estimation.traffic import RequestStream
from circinus.queueing.arrivals import (
    ArrivalProcess,
    MarkovModulatedPoisson,
    Periodic,
    RecordedProcess,
    arrival_process,
    fit_arrival_process,
)
from circinus.spec import Query

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class ArrivalModel:
    """Regular, in bursts, or neither: then independent of each other."""

    jitter_s: float | None = None
    """Standard deviation about regular times; None: they are not regular."""
    modulation: MarkovModulatedPoisson | None = None

    @classmethod
    def of(cls, query: Query) -> ArrivalModel:
        """As the query says; a recording as what it was measured to be."""
        return _of(query)

    def is_poisson(self, *, first: bool) -> bool:
        """Whether requests are independent of each other; `first`: straight from the source."""
        return self.modulation is None and (self.jitter_s is None or not first)

    def traffic(
        self,
        rate_per_s: float,
        mean_s: float,
        square_s2: float,
        cube_s3: float,
        *,
        first: bool,
        mean_factor: float = 1.0,
    ) -> RequestStream:
        """Requests that come so.

        Args:
            rate_per_s: of the query.
            mean_s: mean seconds in service.
            square_s2: mean of their squares.
            cube_s3: mean of their cubes.
            first: whether requests come straight from the source; behind other queues see `behind`.
            mean_factor: what the mean seconds may come to over `mean_s`.
        """
        jitter_s = self.jitter_s if first else None
        return RequestStream(rate_per_s, mean_s, square_s2, cube_s3, jitter_s, self.modulation, mean_factor)

    def after_queue(self, traffic: RequestStream, ready_s: FloatArray) -> RequestStream:
        """Requests of this kind that come behind others' queues.

        Args:
            traffic: what comes.
            ready_s: (n,) after how long requests come, of n.
        """
        if self.jitter_s is None:
            return traffic
        return replace(traffic, jitter_s=math.hypot(self.jitter_s, float(np.std(ready_s))))


@lru_cache(maxsize=256)  # recordings are long, and every operator and link asks
def _of(query: Query) -> ArrivalModel:
    process = arrival_process(query)
    if isinstance(process, RecordedProcess):
        process = _measured(process)
    if isinstance(process, Periodic):
        return ArrivalModel(jitter_s=process.jitter_s / math.sqrt(3.0))  # uniform between minus and plus the jitter
    return ArrivalModel(modulation=process if isinstance(process, MarkovModulatedPoisson) else None)


@lru_cache(maxsize=256)  # the same under other objectives
def _measured(recording: RecordedProcess) -> ArrivalProcess:
    return fit_arrival_process(np.array(recording.moments_s), recording.period_s)
