"""Arrival processes of queries: sampling, index of dispersion, and fitting to observed arrivals.

Names are loaded lazily: a plan file has only the parameters of bursty arrivals.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
