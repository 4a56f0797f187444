"""When requests arrive: processes that can be drawn and described, and measured from what was seen."""

from circinus.estimation.arrivals.dispersion import DispersionTest, observed_dispersion
from circinus.estimation.arrivals.markov_modulated import MarkovModulated
from circinus.estimation.arrivals.measured import measured
from circinus.estimation.arrivals.of_query import arrival_process
from circinus.estimation.arrivals.periodic import Periodic
from circinus.estimation.arrivals.poisson import Poisson
from circinus.estimation.arrivals.process import ArrivalProcess
from circinus.estimation.arrivals.recorded import Recorded

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
