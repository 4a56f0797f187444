"""When requests arrive: processes that can be drawn and described, and measured from what was seen."""

from circinus.queueing.arrivals.dispersion import DispersionTest, observed_dispersion
from circinus.queueing.arrivals.markov_modulated import MarkovModulated
from circinus.queueing.arrivals.measured import measured
from circinus.queueing.arrivals.of_query import arrival_process
from circinus.queueing.arrivals.periodic import Periodic
from circinus.queueing.arrivals.poisson import Poisson
from circinus.queueing.arrivals.process import ArrivalProcess
from circinus.queueing.arrivals.recorded import Recorded

__all__ = [
    "ArrivalProcess",
    "DispersionTest",
    "MarkovModulated",
    "Periodic",
    "Poisson",
    "Recorded",
    "arrival_process",
    "measured",
    "observed_dispersion",
]
