"""What is simulated, as arrays: queries whose requests visit stations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Arrivals(Protocol):
    """A stationary stream of requests."""

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """(n,) ascending times in [0, duration_s) at which requests arrive."""
        ...


@dataclass(frozen=True, eq=False)
class Visit:
    """What one request of a query does at one station."""

    station: int
    after: tuple[int, ...]
    """Earlier visits of the same request that must have ended; none: the request comes from its source."""
    service_s: FloatArray
    """(n,) seconds for each of the query's items, alone."""
    delay_s: float = 0.0
    """From the end of the visit until it is known where the request goes next: half a round trip."""


@dataclass(frozen=True, eq=False)
class SimulatedQuery:
    """Requests that carry items at random and make visits."""

    name: str
    arrivals: Arrivals
    items: int
    """n, how many items there are to draw from."""
    visits: tuple[Visit, ...]
    """Each after all that it waits for."""
    finals: tuple[int, ...]
    """Visits at whose ends the result is complete."""
