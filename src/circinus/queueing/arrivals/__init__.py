"""Arrival processes: sampling, index of dispersion, and fitting to observed arrivals."""

from circinus.queueing.arrivals.fitting import DispersionTest, empirical_idc, fit_arrival_process
from circinus.queueing.arrivals.from_query import arrival_process
from circinus.queueing.arrivals.markov_modulated import MarkovModulatedPoisson
from circinus.queueing.arrivals.process import ArrivalProcess, Periodic, Poisson
from circinus.queueing.arrivals.recorded import RecordedProcess

__all__ = [
    "ArrivalProcess",
    "DispersionTest",
    "MarkovModulatedPoisson",
    "Periodic",
    "Poisson",
    "RecordedProcess",
    "arrival_process",
    "empirical_idc",
    "fit_arrival_process",
]
