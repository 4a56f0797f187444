"""What passes between stations: requests that come, and requests that were served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circinus.simulation.model import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class VisitArrivals:
    """Requests that come to visits, (n,) each.

    They come in order of time; at the same time, in the order in which the station before served them (those of a batch
    are done at once), and what one of them sends to several, in the order of the visits.
    """

    time_s: FloatArray
    order: IntArray
    """How many the station that it comes from had served before; from its source, how many had come."""
    visit: IntArray
    """Number of the visit, over all queries."""
    request: IntArray
    """Number of the request, over all queries."""

    def chosen(self, which: slice | NDArray[Any]) -> VisitArrivals:
        """Some of them."""
        return VisitArrivals(self.time_s[which], self.order[which], self.visit[which], self.request[which])

    def sorted(self) -> VisitArrivals:
        """In the order in which they come."""
        if len(self.time_s) < 2:
            return self
        order = np.argsort(self.time_s, kind="stable")
        ascending_s = self.time_s[order]
        if (ascending_s[1:] == ascending_s[:-1]).any():
            order = np.lexsort((self.visit, self.order, self.time_s))
        return self.chosen(order)

    @classmethod
    def of(cls, parts: Sequence[VisitArrivals]) -> VisitArrivals:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return _NOBODY
        return cls(
            np.concatenate([part.time_s for part in parts]),
            np.concatenate([part.order for part in parts]),
            np.concatenate([part.visit for part in parts]),
            np.concatenate([part.request for part in parts]),
        )


_NONE: IntArray = np.zeros(0, dtype=np.int64)
_NOBODY = VisitArrivals(np.zeros(0), _NONE, _NONE, _NONE)


@dataclass(frozen=True, eq=False)
class VisitDepartures:
    """Visits that ended, (m,) each, in the order in which the station, or each of several, served them."""

    visit: IntArray
    request: IntArray
    time_s: FloatArray
    """When they came."""
    order: IntArray
    """How many the same station had served before."""
    start_s: FloatArray
    end_s: FloatArray
    fill: IntArray
    """How many requests were in the same batch."""

    @classmethod
    def of(cls, parts: Sequence[VisitDepartures]) -> VisitDepartures:
        """One after the other; at least one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))
