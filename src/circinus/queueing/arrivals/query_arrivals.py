"""Arrival processes of queries."""

from __future__ import annotations

from circinus.errors import PlanningError
from circinus.queueing.arrivals.markov_modulated import MarkovModulatedPoisson
from circinus.queueing.arrivals.process import ArrivalProcess, Periodic, Poisson
from circinus.queueing.arrivals.recorded import RecordedProcess
from circinus.specification import BurstyArrivals, PeriodicArrivals, PoissonArrivals, Query


def arrival_process(query: Query) -> ArrivalProcess:
    """Return the arrival process of `query`, at its rate.

    Raises:
        PlanningError: the recording of the arrivals was not read.
    """
    rate_per_s, arrivals = query.rate_per_s, query.arrivals
    if isinstance(arrivals, PoissonArrivals):
        return Poisson(rate_per_s)
    if isinstance(arrivals, PeriodicArrivals):
        return Periodic(rate_per_s, arrivals.jitter_s)
    if isinstance(arrivals, BurstyArrivals):
        rates_per_s = (rate_per_s * arrivals.peak, rate_per_s * arrivals.off_peak_factor)
        return MarkovModulatedPoisson(rates_per_s, (arrivals.burst_s, arrivals.every_s - arrivals.burst_s))
    if arrivals.times_s is None:
        raise PlanningError(
            f"the arrivals recording {arrivals.file} was not read",
            code="arrivals.recording_not_read",
            location=f"query {query.name}",
            hint="Use `load_specification` or `Specification.of`, or pass `times_s`.",
        )
    return RecordedProcess.of(arrivals.times_s, rate_per_s)
